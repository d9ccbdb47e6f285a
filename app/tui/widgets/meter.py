"""The panel "Now": what the engine is doing, in four quiet lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip

from fireside.app.tui.widgets.numbers import grouped, memory, seconds, speed
from fireside.app.tui.widgets.plain import PlainRows

BARS = "▁▂▃▄▅▆▇█"
FULL, EMPTY = "█", "░"

# Seconds of one bar of the sparkline.
SAMPLE = 0.5
# A gauge this full says so in words: the oldest lines of the story are about to slide out.
NEARLY_FULL = 0.9


@dataclass(frozen=True)
class MeterState:
    """What the panel shows; None and 0 mean there is nothing to say."""

    tokens_per_second: float | None = None
    generating: bool = False
    prefill_done: int = 0
    prefill_total: int = 0
    prefill_seconds_left: float | None = None
    context_used: int = 0
    context_size: int = 0
    reused: int | None = None
    computed: int | None = None
    memory_bytes: int = 0
    kernels: str = ""

    @property
    def reading(self) -> bool:
        """Whether a prompt is being read."""
        return self.prefill_total > self.prefill_done

    @property
    def speed_text(self) -> str:
        """Speed in words, always of the same width."""
        number = "–" if self.tokens_per_second is None else speed(self.tokens_per_second)
        return f"{number:>6} tok/s"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw values as bars, the newest at the right; the tallest fills the line."""
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    if top <= 0:
        return BARS[0] * len(shown)
    return "".join(BARS[min(7, int(value / top * 8))] if value > 0 else BARS[0] for value in shown)


def gauge(share: float, width: int) -> str:
    """Draw a bar that is `share` full; something is never drawn as nothing."""
    share = min(max(share, 0.0), 1.0)
    full = round(share * width)
    if share > 0:
        full = max(1, full)
    if share < 1:
        full = min(full, width - 1)
    return FULL * full + EMPTY * (width - full)


class Meter(PlainRows):
    """Speed now and over time, prompt reading, context, cache, memory and kernels."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"meter--number", "meter--bars", "meter--quiet"}

    DEFAULT_CSS = """
    Meter {
        height: 4;
        width: 1fr;
        & > .meter--number { text-style: bold; }
        & > .meter--bars { color: $primary; }
        & > .meter--quiet { color: $text-muted; }
    }
    """

    def __init__(
        self,
        state: MeterState | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        """Create a panel; `clock` gives the seconds by which speeds are gathered over time."""
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self._clock = clock
        self._state = state or MeterState()
        self._speeds: deque[float] = deque(maxlen=240)
        self._sampled_at: float | None = None
        self._drawn: list[list[tuple[str, str]]] = []
        self._inks: dict[str, Style] = {}

    @property
    def state(self) -> MeterState:
        """What is shown."""
        return self._state

    @property
    def speeds(self) -> tuple[float, ...]:
        """The speeds of the sparkline, oldest first, one each half second of writing."""
        return tuple(self._speeds)

    def update_state(self, state: MeterState) -> None:
        """Show another state; only lines that differ are drawn anew."""
        self._state = state
        self._sample()
        drawn, width = self._lines(), self.size.width
        for y, line in enumerate(drawn):
            if y >= len(self._drawn) or line != self._drawn[y]:
                self.repaint(Region(0, y, width, 1))
        self._drawn = drawn

    def clear_speeds(self) -> None:
        """Begin the sparkline anew: another model is at work."""
        self._speeds.clear()
        self._sampled_at = None
        self.update_state(self._state)

    def _sample(self) -> None:
        state = self._state
        if not state.generating or state.tokens_per_second is None:
            return
        now = self._clock()
        if self._sampled_at is not None and self._speeds and now - self._sampled_at < SAMPLE:
            self._speeds[-1] = state.tokens_per_second
            return
        self._speeds.append(state.tokens_per_second)
        self._sampled_at = now

    def _lines(self) -> list[list[tuple[str, str]]]:
        """Pieces of each line: text and component class ("" for plain text)."""
        return [self._speed_line(), self._middle_line(), self._cache_line(), self._kernels_line()]

    def _speed_line(self) -> list[tuple[str, str]]:
        text = self._state.speed_text
        bars = sparkline(self._speeds, self.size.width - cell_len(text) - 2)
        return [(text, "number"), ("  ", ""), (bars, "bars")]

    def _middle_line(self) -> list[tuple[str, str]]:
        state = self._state
        if state.reading:
            done, total = grouped(state.prefill_done), grouped(state.prefill_total)
            text = f"reading {done:>{len(total)}} of {total}"
            left = ""
            if state.prefill_seconds_left is not None:
                left = f" · {seconds(state.prefill_seconds_left)} left"
            if cell_len(text + " tokens" + left) <= self.size.width:
                text += " tokens"
            return [(text + left, "number")]
        if not state.context_size:
            return [("Context  –", "quiet")]
        used, size = grouped(state.context_used), grouped(state.context_size)
        numbers = f"{used:>{len(size)}} of {size}"
        share = state.context_used / state.context_size
        if share >= NEARLY_FULL:
            numbers += " !"
        width = self.size.width - len("Context ") - cell_len(numbers) - 2
        bar = gauge(share, min(24, width)) if width >= 4 else ""
        return [("Context ", ""), (bar, "bars"), ("  " + numbers, "")]

    def _cache_line(self) -> list[tuple[str, str]]:
        state = self._state
        pieces = []
        if state.reused is not None:
            pieces.append(f"Reused {grouped(state.reused)}")
        if state.computed is not None:
            computed = grouped(state.computed)
            pieces.append(f"computed {computed}" if pieces else f"Computed {computed}")
        if state.memory_bytes:
            pieces.append(memory(state.memory_bytes))
        return [(" · ".join(pieces), "quiet")]

    def _kernels_line(self) -> list[tuple[str, str]]:
        return [(f"Kernels {self._state.kernels}" if self._state.kernels else "", "quiet")]

    def on_resize(self) -> None:
        """Bars grow and shrink with the panel."""
        self._drawn = self._lines()

    def notify_style_update(self) -> None:
        """The theme has changed."""
        super().notify_style_update()
        self._inks.clear()

    def rows(self, lines: range) -> list[Strip]:
        """Draw some of the lines."""
        return [self.render_line(y) for y in lines]

    def render_line(self, y: int) -> Strip:
        """Draw one line."""
        drawn = self._drawn or self._lines()
        pieces = drawn[y] if 0 <= y < len(drawn) else []
        segments = [Segment(text, self._ink(name)) for text, name in pieces]
        return Strip(segments).adjust_cell_length(self.size.width, self._ink(""))

    def _ink(self, name: str) -> Style:
        """The style of a component class, "" for that of plain text."""
        ink = self._inks.get(name)
        if ink is None:
            ink = self.get_component_rich_style(f"meter--{name}") if name else self.rich_style
            self._inks[name] = ink
        return ink
