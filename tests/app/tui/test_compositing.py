"""Parts of the screen drawn alone give the screen that drawing all of it gives."""

from __future__ import annotations

from collections.abc import Iterator

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from textual.geometry import Region

from fireside.app.tui.compositing import DirectCompositor, PiecesUpdate, around, joined
from tests.app.tui.conftest import Start
from tests.app.tui.fake import FakeInference

regions = st.builds(
    Region, st.integers(0, 9), st.integers(0, 9), st.integers(0, 6), st.integers(0, 6)
)


def cells(region: Region) -> Iterator[tuple[int, int]]:
    return ((x, y) for x in region.column_range for y in region.line_range)


@given(st.lists(regions, max_size=6))
def test_joined_regions_are_the_same_cells(given_regions: list[Region]) -> None:
    before = {cell for region in given_regions for cell in cells(region)}
    assert {cell for region in joined(given_regions) for cell in cells(region)} == before
    assert len(joined(given_regions)) <= len(given_regions)


# All of them hold the cell (4, 4).
overlapping = st.builds(
    Region, st.integers(0, 4), st.integers(0, 4), st.integers(5, 9), st.integers(5, 9)
)


@given(overlapping, overlapping)
def test_around_a_hole_is_what_it_leaves(region: Region, hole: Region) -> None:
    left = [cell for part in around(region, hole) for cell in cells(part)]
    assert len(left) == len(set(left))
    assert set(left) == set(cells(region)) - set(cells(hole))


class Seen:
    """A terminal that is sent the updates of parts, after the whole screen once."""

    def __init__(self, compositor: DirectCompositor) -> None:
        self.compositor = compositor
        width, height = compositor.size
        self.screen = pyte.Screen(width, height)
        self.stream = pyte.Stream(self.screen)
        self.console = Console(color_system="truecolor", force_terminal=True)
        self.parts = 0
        self.draw_all(self.screen)

    def draw_all(self, screen: pyte.Screen) -> pyte.Screen:
        stream = pyte.Stream(screen)
        for y, strip in enumerate(self.compositor.render_strips()):
            stream.feed(f"\x1b[{y + 1};1H{strip.render(self.console)}")
        return screen

    def take(self, update: PiecesUpdate | None) -> PiecesUpdate | None:
        if update is not None:
            self.parts += 1
            self.stream.feed(update.render_segments(self.console))
        return update

    @property
    def wrong(self) -> list[tuple[int, int]]:
        """Places that look otherwise than on a screen drawn as a whole."""
        whole = self.draw_all(pyte.Screen(*self.compositor.size))
        return [
            (x, y)
            for y in range(whole.lines)
            for x in range(whole.columns)
            if self.screen.buffer[y][x] != whole.buffer[y][x]
        ]


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_a_story_is_seen_as_it_grows(
    start: Start, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeInference(hold=True), size=size) as d:
        await d.type("once upon a time", "enter")
        compositor = d.desk._compositor
        assert isinstance(compositor, DirectCompositor)
        seen = Seen(compositor)
        draw = compositor.render_partial_update
        monkeypatch.setattr(compositor, "render_partial_update", lambda: seen.take(draw()))
        for count in range(12):
            d.inference.say(
                " the dragon 🐉 puffed a small grey cloud 雲" * 9 + "\n\n" * (count % 2)
            )
            await d.settle()
            d.desk.line.insert("and ")  # elsewhere on the screen
            if count == 8:
                d.desk.page.scroll_to(y=2, animate=False)
            await d.settle()
            assert seen.wrong == []
        assert seen.parts > 12
        d.inference.finish()
        await d.settle()
        assert seen.wrong == []


async def test_what_lies_in_front_stays_there(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(FakeInference(hold=True), size=(80, 24)) as d:
        await d.type("once upon a time", "enter")
        await d.press("f2")  # the panel, over the page
        d.app.notify("a note that covers a corner", timeout=60)
        await d.settle(0.1)
        compositor = d.desk._compositor
        assert isinstance(compositor, DirectCompositor)
        seen = Seen(compositor)
        draw = compositor.render_partial_update
        monkeypatch.setattr(compositor, "render_partial_update", lambda: seen.take(draw()))
        for _ in range(8):
            d.inference.say(" and the dragon puffed a small grey cloud." * 9)
            await d.settle()
            assert seen.wrong == []
        assert seen.parts
