"""The seed of a story: random each time, or one number kept."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from fireside.app.tui.widgets.numbers import grouped
from fireside.app.tui.widgets.typed import Typed


class SeedField(Typed, can_focus=True):
    """Shows "random  last 811 402" or a fixed number; a key or a click keeps the last one."""

    ALLOW_SELECT = False

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space", "toggle_kept", "Keep / random", show=False),
        Binding("k", "keep", "Keep the last seed", show=False),
        Binding("r,delete", "random", "Random", show=False),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "seed--label",
        "seed--value",
        "seed--hint",
        "seed--typed",
    }

    DEFAULT_CSS = """
    SeedField {
        height: 1;
        width: 1fr;
        & > .seed--value { text-style: bold; }
        & > .seed--hint { color: $text-muted; }
        & > .seed--typed { text-style: reverse; }
        &:focus > .seed--label { text-style: bold reverse; }
        &:disabled > .seed--label, &:disabled > .seed--value { color: $text-disabled; }
    }
    """

    seed: reactive[int | None] = reactive[int | None](None, init=False)
    """The number to use, or None for a random one each time."""
    last: reactive[int | None] = reactive[int | None](None, init=False)
    """The seed of what was generated last."""

    class Changed(Message):
        """The seed was fixed, released or replaced."""

        def __init__(self, field: SeedField, seed: int | None) -> None:
            super().__init__()
            self.field = field
            self.seed = seed

        @property
        def control(self) -> SeedField:
            """The field that changed."""
            return self.field

    def __init__(
        self,
        seed: int | None = None,
        *,
        last: int | None = None,
        label: str = "Seed",
        label_width: int = 12,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        """Create a seed field; `label_width` lines it up with the sliders above it."""
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.label = label
        self.label_width = label_width
        self.set_reactive(SeedField.seed, seed)
        self.set_reactive(SeedField.last, last)

    def watch_seed(self, seed: int | None) -> None:
        """Tell that it changed."""
        self.post_message(self.Changed(self, seed))

    def action_keep(self) -> None:
        """Fix the seed used last."""
        self.typed = None
        if self.last is not None:
            self.seed = self.last

    def action_random(self) -> None:
        """A new seed each time."""
        self.typed = None
        self.seed = None

    def action_toggle_kept(self) -> None:
        """Keep the last one, or let go of the one that is kept."""
        if self.seed is None:
            self.action_keep()
        else:
            self.action_random()

    def take(self, typed: str) -> None:
        """Fix what was typed."""
        self.seed = int(typed)

    def reset(self) -> None:
        """A new seed each time."""
        self.action_random()

    def on_click(self, event: events.Click) -> None:
        """A click does what enter does."""
        if event.chain == 1:
            self.action_toggle_kept()

    def render_line(self, y: int) -> Strip:
        """Draw the only line."""
        width = self.size.width
        if y:
            return Strip.blank(width, self.rich_style)
        style = self.get_component_rich_style
        segments = [
            Segment(set_cell_size(self.label, self.label_width), style("seed--label")),
            Segment(" ", self.rich_style),
        ]
        if self.typed is not None:
            segments.append(Segment(self.typed + "▏", style("seed--typed")))
        elif self.seed is not None:
            segments.append(Segment(grouped(self.seed), style("seed--value")))
            hint = "  r frees" if self.has_focus else "  kept"
            segments.append(Segment(hint, style("seed--hint")))
        else:
            segments.append(Segment("random", style("seed--value")))
            if self.last is not None:
                hint = "k keeps" if self.has_focus else "last"
                segments.append(Segment(f"  {hint} {grouped(self.last)}", style("seed--hint")))
        return Strip(segments).adjust_cell_length(width, self.rich_style)
