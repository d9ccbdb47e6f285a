"""A slider: one line with a name, a number and a track.

Textual has none. Values are decimals inside, so that steps of 0.05 add up to what they say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import ClassVar, Literal

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import clamp
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from fireside.app.tui.widgets.scale import Number, Scale, exact
from fireside.app.tui.widgets.typed import Typed

KNOB = "●"
KNOB_CHANGED = "◆"
CHANGED = "*"
TRACK, FILLED = "─", "━"
DEFAULT_TICK = "┼"
ENDS = "├┤"


class Slider(Typed, can_focus=True):
    """A number to be set by keys, by mouse or by typing it.

    Setting `value` from code posts `Changed` as a person's doing does; where that is unwanted,
    use `with slider.prevent(Slider.Changed): slider.value = ...`.
    """

    ALLOW_SELECT = False
    CHARACTERS = frozenset("0123456789.-")
    MAXIMUM_TYPED = 8

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,up", "step(1)", "More", show=False),
        Binding("left,down", "step(-1)", "Less", show=False),
        Binding("shift+right,shift+up,pageup", "large_step(1)", "Much more", show=False),
        Binding("shift+left,shift+down,pagedown", "large_step(-1)", "Much less", show=False),
        Binding("home", "go('minimum')", "Least", show=False),
        Binding("end", "go('maximum')", "Most", show=False),
        Binding("r,delete", "reset", "Reset", show=False),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "slider--label",
        "slider--value",
        "slider--track",
        "slider--filled",
        "slider--knob",
        "slider--typed",
    }

    DEFAULT_CSS = """
    Slider {
        height: 1;
        width: 1fr;
        & > .slider--label { color: $foreground; }
        & > .slider--value { text-style: bold; }
        & > .slider--track { color: $text-muted; }
        & > .slider--filled { color: $primary; }
        & > .slider--knob { color: $primary; text-style: bold; }
        & > .slider--typed { text-style: reverse; }
        &:focus > .slider--label { text-style: bold reverse; }
        &:hover > .slider--knob { color: $accent; }
        &:disabled > .slider--label,
        &:disabled > .slider--value,
        &:disabled > .slider--track,
        &:disabled > .slider--filled,
        &:disabled > .slider--knob { color: $text-disabled; }
    }
    """

    value: reactive[float] = reactive[float](0.0, init=False)
    """The number: an int where the step is whole, else the float nearest to the decimal."""

    class Changed(Message):
        """The value has really changed, by a person or by code."""

        def __init__(self, slider: Slider, value: float) -> None:
            super().__init__()
            self.slider = slider
            self.value = value

        @property
        def control(self) -> Slider:
            """The slider that moved."""
            return self.slider

    def __init__(
        self,
        label: str,
        value: Number | None = None,
        *,
        minimum: Number = 0,
        maximum: Number = 1,
        step: Number = "0.05",
        precision: Number | None = None,
        large_step: Number | None = None,
        default: Number | None = None,
        scale: Literal["linear", "logarithmic"] = "linear",
        stops: Sequence[Number] | None = None,
        off: Number | None = None,
        off_label: str = "off",
        format: Callable[[float], str] | None = None,
        label_width: int = 12,
        value_width: int = 5,
        tooltip: str | None = None,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        """Create a slider.

        value: where it stands first; the default, if not given.
        step, large_step: what the keys move by; large_step is ten steps, if not given.
        precision: what typed values are rounded to; the step, if not given.
        default: what a reset returns to; `value`, if not given, or else the minimum.
        scale: "logarithmic" gives small numbers as much room as large ones.
        stops: keys and mouse go from one to the next; other values can be typed.
        off: the value shown as `off_label`.
        format: makes the text of a value; its decimals are those of the step, if not given.
        label_width, value_width: cells, to line up several sliders; a wider number has its way.
        """
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.label = label
        self.scale = Scale.make(minimum, maximum, step, large_step, precision, scale, stops)
        first = value if value is not None else default if default is not None else minimum
        self.default = self.scale.fit(exact(first if default is None else default))
        self._off = None if off is None else exact(off)
        self._off_label = off_label
        self._format = format
        self.label_width = label_width
        self.value_width = max(value_width, self._widest())
        self._dragging = False
        if tooltip is not None:
            self.tooltip = tooltip
        self.set_reactive(Slider.value, self._public(self.scale.fit(exact(first))))

    # -- value

    @property
    def decimal(self) -> Decimal:
        """The value, exactly."""
        return exact(self.value)

    @property
    def is_default(self) -> bool:
        """Whether the value is what a reset returns to."""
        return self.decimal == self.default

    def validate_value(self, value: Number) -> float:
        """Bring any number onto the scale."""
        return self._public(self.scale.fit(exact(value)))

    def watch_value(self, value: float) -> None:
        """Tell that it really changed."""
        self.post_message(self.Changed(self, value))

    def text_of(self, value: Decimal) -> str:
        """How a value is written."""
        if self._off is not None and value == self._off:
            return self._off_label
        if self._format is not None:
            return self._format(self._public(value))
        return f"{value:.{self.scale.decimals}f}"

    def reset(self) -> None:
        """Return to the default."""
        self.value = self._public(self.default)

    def _public(self, value: Decimal) -> float:
        return int(value) if self.scale.decimals == 0 else float(value)

    def _widest(self) -> int:
        ends = [self.scale.minimum, self.scale.maximum, self.default, *self.scale.stops]
        widest = max(cell_len(self.text_of(value)) for value in ends)
        return max(widest, cell_len(self._off_label) if self._off is not None else 0)

    # -- keys

    def action_step(self, direction: int) -> None:
        """Move by a step."""
        self._move(self.scale.stepped(self.decimal, direction))

    def action_large_step(self, direction: int) -> None:
        """Move by a large step."""
        self._move(self.scale.stepped(self.decimal, direction, large=True))

    def action_go(self, end: Literal["minimum", "maximum"]) -> None:
        """Move to one end."""
        self._move(self.scale.minimum if end == "minimum" else self.scale.maximum)

    def action_reset(self) -> None:
        """Return to the default."""
        self.typed = None
        self.reset()

    def _move(self, value: Decimal) -> None:
        self.typed = None
        self.value = self._public(value)

    def take(self, typed: str) -> None:
        """Go to the number that was typed."""
        # "1.2.3" or "-": the number stays as it was
        with contextlib.suppress(InvalidOperation):
            self.value = self._public(self.scale.fit(Decimal(typed)))

    # -- mouse

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Grab the knob, or send it where the track was pressed."""
        if event.button == 1 and self._track_has(event.x):
            self._dragging = True
            self.capture_mouse()
            self._move_to_cell(event.x)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the knob."""
        if self._dragging:
            self._move_to_cell(event.x)

    def on_mouse_up(self) -> None:
        """Let go of the knob."""
        if self._dragging:
            self._dragging = False
            self.release_mouse()

    def on_click(self, event: events.Click) -> None:
        """A double click resets."""
        if event.chain == 2:
            self.action_reset()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """The wheel moves by a step where the slider has the focus, else the panel scrolls."""
        if self.has_focus:
            event.stop()
            self.action_step(1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """The other way."""
        if self.has_focus:
            event.stop()
            self.action_step(-1)

    @property
    def _track(self) -> tuple[int, int]:
        """First cell and number of cells of the track, its ends included; none where narrow."""
        start = self.label_width + 1 + self.value_width + 2
        cells = self.size.width - start
        return start, cells if cells >= 5 else 0

    def _track_has(self, x: int) -> bool:
        start, cells = self._track
        return start <= x < start + cells

    def _move_to_cell(self, x: int) -> None:
        start, cells = self._track
        if cells:
            place = clamp((x - start - 1) / (cells - 3), 0.0, 1.0) if cells > 3 else 0.0
            self._move(self.scale.at(place))

    # -- drawing

    def render_line(self, y: int) -> Strip:
        """Draw the only line."""
        width = self.size.width
        if y:
            return Strip.blank(width, self.rich_style)
        style = self.get_component_rich_style
        base = self.rich_style
        segments = [
            Segment(set_cell_size(self.label, self.label_width), style("slider--label")),
            Segment(" ", base),
        ]
        if self.typed is not None:
            shown = set_cell_size(self.typed + "▏", self.value_width + 1)
            segments.append(Segment(shown, style("slider--typed")))
        else:
            text = self.text_of(self.decimal)
            text = " " * (self.value_width - cell_len(text)) + text
            mark = " " if self.is_default else CHANGED
            segments.append(Segment(text + mark, style("slider--value")))
        segments.append(Segment(" ", base))
        segments.extend(self._draw_track())
        return Strip(segments).adjust_cell_length(width, base)

    def _draw_track(self) -> list[Segment]:
        _, cells = self._track
        if not cells:
            return []
        inner = cells - 2

        def cell_of(value: Decimal) -> int:
            return round(self.scale.place(value) * (inner - 1))

        knob, tick = cell_of(self.decimal), cell_of(self.default)
        # Filled is what the knob is away from having no effect, where there is such a value.
        origin = -1 if self._off is None else cell_of(self.scale.fit(self._off))
        track = self.get_component_rich_style("slider--track")
        filled = self.get_component_rich_style("slider--filled")
        segments = [Segment(ENDS[0], track)]
        for cell in range(inner):
            within = min(origin, knob) <= cell <= max(origin, knob)
            if cell == knob:
                mark = KNOB if self.is_default else KNOB_CHANGED
                segments.append(Segment(mark, self.get_component_rich_style("slider--knob")))
            else:
                mark = DEFAULT_TICK if cell == tick else FILLED if within else TRACK
                segments.append(Segment(mark, filled if within else track))
        segments.append(Segment(ENDS[1], track))
        return list(Segment.simplify(segments))
