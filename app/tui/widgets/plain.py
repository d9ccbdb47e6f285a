"""Widgets of rows alone, without border, drawn with little ado."""

from __future__ import annotations

from rich.style import Style
from textual.geometry import Region
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.strip import Strip
from textual.widget import Widget


class PlainRows(Widget):
    """Draws its rows without Textual's cache for borders and padding.

    That cache makes new strips of rows that moved. A strip remembers what it cost to filter and to
    encode it, so handing out one's own, the same ones again, saves most of a frame.
    """

    def rows(self, lines: range) -> list[Strip]:
        """Those rows of the widget, padding above and below it included, up to a scroll bar."""
        raise NotImplementedError

    def repaint(self, region: Region) -> None:
        """Have a part drawn anew with the screen's next frame.

        What `refresh` does for a change of words alone: nothing is sized or styled anew, and it
        takes no message to the screen.
        """
        if self.is_mounted and self.display:
            self._set_dirty(region)
            screen = self.screen
            screen._dirty_widgets.add(self)
            screen.check_idle()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Draw some rows; in some theme the widget may have a border, or shine through."""
        gutter, padding = self.styles.gutter, self.styles.padding
        if gutter != padding or padding.width or self.opacity < 1:
            return super().render_lines(crop)
        background = self.background_colors[1]
        strips = self.rows(crop.line_range)
        for line_filter in self.get_line_filters():
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        if crop.x or any(strip.cell_length != crop.right for strip in strips):
            blank = Style(bgcolor=background.rich_color)
            strips = [strip.adjust_cell_length(crop.right, blank) for strip in strips]
            strips = [strip.crop(crop.x, crop.right) for strip in strips] if crop.x else strips
        return strips


class PlainBar(PlainRows, ScrollBar):
    """Textual's upright scroll bar; nearly all of its rows are one of two."""

    def rows(self, lines: range) -> list[Strip]:
        """Draw what `render` describes."""
        bar = self.render()
        assert isinstance(bar, ScrollBarRender)
        style = self.app.console.get_style(bar.style)
        assert style.color is not None
        assert style.bgcolor is not None
        drawn = bar.render_bar(
            size=self.size.height,
            virtual_size=bar.virtual_size,
            window_size=bar.window_size,
            position=bar.position,
            thickness=self.thickness,
            back_color=style.bgcolor,
            bar_color=style.color,
        )
        strips = {id(segment): Strip([segment], self.thickness) for segment in drawn.segments}
        return [strips[id(drawn.segments[y])] for y in lines]
