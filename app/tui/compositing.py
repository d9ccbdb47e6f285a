"""What has changed on a screen, drawn with nothing else touched.

Textual's compositor draws all that lies in the rectangle around what has changed: when the page and
the meter beside it have, that is every widget of the screen, each row cut wherever a border stands
on it. Here every widget is asked for just those of its rows that have changed, and what it draws
goes to the terminal as it is.
"""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from textual._compositor import Compositor, CompositorUpdate
from textual.geometry import Region
from textual.strip import Strip

Piece = tuple[int, int, Strip]  # column, row, what is there now


class PiecesUpdate(CompositorUpdate):
    """Parts of rows, each with its place on the screen."""

    def __init__(self, pieces: list[Piece]) -> None:
        self.pieces = pieces

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """For Rich, which has no cursor: one behind the other."""
        for _, _, strip in self.pieces:
            yield from strip

    def render_segments(self, console: Console) -> str:
        """What the terminal is sent."""
        return "".join(
            [f"\x1b[{y + 1};{x + 1}H{strip.render(console)}" for x, y, strip in self.pieces]
        )


class DirectCompositor(Compositor):
    """Textual's, but for updates of a part of the screen."""

    def render_partial_update(self) -> PiecesUpdate | None:  # type: ignore[override]
        """Draw what is dirty; None where nothing is."""
        dirty = joined([region.intersection(self.size.region) for region in self._dirty_regions])
        self._dirty_regions.clear()
        pieces: list[Piece] = []
        # Who comes first stands in front, and covers what comes later.
        for widget, (place, clip) in self.visible_widgets.items():
            if not dirty:
                break
            seen = place.intersection(clip)
            for region in [region for region in dirty if region.intersection(seen)]:
                dirty.remove(region)
                dirty += around(region, seen)
                x, y, width, height = region.intersection(seen)
                first = x - place.x
                strips = widget.render_lines(Region(0, y - place.y, first + width, height))
                for row, strip in enumerate(strips, y):
                    if first or strip.cell_length > width:
                        strip = strip.crop(first, first + width)
                    pieces.append((x, row, strip))
        return PiecesUpdate(pieces) if pieces else None


def joined(regions: list[Region]) -> list[Region]:
    """The same cells in fewer regions: what stands on each other is one, nothing is there twice."""
    kept: list[Region] = []
    for region in sorted(regions, key=lambda r: (r.x, -r.width, r.y, -r.height)):
        last = kept[-1] if kept else None
        if last and (last.x, last.width) == (region.x, region.width) and region.y <= last.bottom:
            kept[-1] = last.union(region)
        elif region and not any(other.contains_region(region) for other in kept):
            kept.append(region)
    return kept


def around(region: Region, hole: Region) -> list[Region]:
    """What is left of a region where something covers a part of it, or all."""
    x1, y1, x2, y2 = region.intersection(hole).corners
    left, top, right, bottom = region.corners
    parts = [
        Region.from_corners(left, top, right, y1),
        Region.from_corners(left, y1, x1, y2),
        Region.from_corners(x2, y1, right, y2),
        Region.from_corners(left, y2, right, bottom),
    ]
    return [part for part in parts if part]
