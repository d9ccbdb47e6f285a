"""The side panel: model, sampling in the order of the chain, and what goes on now."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.cells import cell_len
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.message import Message
from textual.timer import Timer
from textual.widgets import Static

from fireside.app.settings import Settings
from fireside.app.tui.presets import PRESETS, applied, matching
from fireside.app.tui.scribe import Wish
from fireside.app.tui.widgets.choice import Choice
from fireside.app.tui.widgets.header import shorten
from fireside.app.tui.widgets.meter import Meter
from fireside.app.tui.widgets.seed import SeedField
from fireside.app.tui.widgets.slider import Slider
from fireside.engine import QUANTS, Quant, Sampling

LABEL = 11
VALUE = 5
OWN = "own mixture"
THREADS_SETTLE = 0.6  # seconds after the last move of the slider a model is laid out anew


@dataclass(frozen=True)
class _Stage:
    """A sampler with its slider. `off`: the value that switches it off."""

    name: str  # of Sampling
    label: str
    minimum: str
    maximum: str
    step: str
    off: float | None
    tooltip: str


STAGES = (
    _Stage("repetition_penalty", "Repetition", "0.5", "2", "0.05", 1, "above 1: say less again"),
    _Stage("presence_penalty", "Presence", "-2", "2", "0.1", 0, "taken off what occurred"),
    _Stage("frequency_penalty", "Frequency", "-2", "2", "0.1", 0, "taken off for each time"),
    _Stage("top_k", "Top-k", "0", "200", "1", 0, "only the k likeliest"),
    _Stage("typical_p", "Typical-p", "0.01", "1", "0.01", 1, "as surprising as expected"),
    _Stage("top_p", "Top-p", "0.01", "1", "0.01", 1, "the likeliest up to this share"),
    _Stage("min_p", "Min-p", "0", "1", "0.01", 0, "none below this share of the likeliest"),
    _Stage("temperature", "Temperature", "0", "2", "0.05", None, "how daring; 0 = the likeliest"),
)
LENGTH_STOPS = (0, 10, 25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1200, 2000)


class ModelLine(Static, can_focus=True):
    """The name of the model; enter or a click asks for another."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "choose", show=False)]
    DEFAULT_CSS = """
    ModelLine {
        height: 1; text-style: bold; pointer: pointer;
        &:focus { text-style: bold reverse; }
        &:hover { color: $primary; }
    }
    """
    ALLOW_SELECT = False

    def show(self, text: str) -> None:
        """Show a name, with the arrow that says there are others."""
        width = max(8, (self.size.width or 34) - 2)
        name = shorten(text, width)
        self.update(name + " " * (width - cell_len(name)) + " ▾")

    def on_click(self) -> None:
        """Ask for another."""
        self.action_choose()

    def action_choose(self) -> None:
        """Ask for another."""
        self.post_message(Panel.ModelWanted())


class Panel(VerticalScroll, can_focus=False):
    """Tells of changes with messages; `wish` is what the next generation shall be like."""

    DEFAULT_CSS = """
    Panel {
        width: 42;
        height: 100%;
        scrollbar-size-vertical: 1;
        background: $background;
        Vertical {
            height: auto; padding: 0 1; border: round $foreground 20%;
            border-title-color: $text-muted; border-title-style: none;
            &:ansi { border: round $border-blurred; }
            &:focus-within { border: round $border; }
        }
    }
    """

    class ModelWanted(Message):
        """Somebody wants to choose a model."""

    @dataclass
    class QuantChosen(Message):
        """The weights shall be of this kind."""

        quant: Quant

    @dataclass
    class ThreadsChosen(Message):
        """So many threads shall compute; 0 = as many as there are cores."""

        threads: int

    @dataclass
    class Changed(Message):
        """A value of the sampling or the length was changed; names as in the settings."""

        values: dict[str, Any]

    def __init__(self, settings: Settings, id: str | None = None) -> None:
        super().__init__(id=id)
        self._sampling: Sampling = settings.sampling
        self._length = settings.passage_tokens
        self._stop = settings.stop
        self.template = settings.template
        self._quant = settings.quant
        self._threads = settings.threads
        self._threads_timer: Timer | None = None
        self._model = ""

    def compose(self) -> ComposeResult:
        """Three boxes."""
        with Vertical(id="model-box") as box:
            box.border_title = "Model"
            yield ModelLine(id="model", markup=False)
            yield Choice(
                [("none", "as is"), ("q8", "Q8"), ("q4", "Q4"), ("f16", "F16")],
                self._quant,
                label="Weights",
                label_width=LABEL - 3,
                id="quant",
                tooltip="as is: as the file has them; F16: halfs; Q8, Q4: smaller and faster",
            )
            yield self._threads_slider()
        with Vertical(id="sampling-box") as box:
            box.border_title = "Sampling"
            preset = matching(self._sampling)
            yield Choice(
                [*((p.name, p.name) for p in PRESETS), (OWN, OWN)],
                preset.name if preset else OWN,
                label="Preset",
                label_width=LABEL,
                id="preset",
                tooltip="arrows to look, enter to choose",
            )
            for stage in STAGES:
                yield self._slider(stage)
            yield Slider(
                "Length",
                self._length,
                minimum=min(LENGTH_STOPS[0], self._length),
                maximum=max(LENGTH_STOPS[-1], self._length),
                step=1,
                stops=LENGTH_STOPS,
                default=200,
                label_width=LABEL,
                value_width=VALUE,
                id="length",
                off=0,
                off_label="end",
                tooltip="tokens the model writes at a time; end = until the story ends",
            )
            yield SeedField(self._sampling.seed, label_width=LABEL, id="seed")
        with Vertical(id="now-box") as box:
            box.border_title = "Now"
            yield Meter(id="meter")

    def _slider(self, stage: _Stage) -> Slider:
        return Slider(
            stage.label,
            getattr(self._sampling, stage.name),
            minimum=stage.minimum,
            maximum=stage.maximum,
            step=stage.step,
            default=getattr(PRESETS[0].sampling, stage.name),
            off=stage.off,
            label_width=LABEL,
            value_width=VALUE,
            id=stage.name,
            classes="stage",
            tooltip=stage.tooltip,
        )

    def _threads_slider(self) -> Slider:
        cores = max(2, os.cpu_count() or 1, self._threads)
        return Slider(
            "Threads",
            self._threads,
            minimum=0,
            maximum=cores,
            step=1,
            default=0,
            off=0,
            off_label="auto",
            label_width=LABEL,
            value_width=VALUE,
            id="threads",
        )

    # -- what the desk reads and sets -----------------------------------------------------------

    @property
    def wish(self) -> Wish:
        """What the next generation shall be like."""
        template = "" if self.template == "own" else self.template
        return Wish(self._sampling, self._length, self._stop, template)

    @property
    def meter(self) -> Meter:
        """The box at the foot."""
        return self.query_one(Meter)

    def show_model(self, name: str, quant: Quant | None = None) -> None:
        """Show which model is in use, or asked for."""
        self._model = name
        self.query_one(ModelLine).show(name)
        choice = self.query_one("#quant", Choice)
        if quant is not None and quant != choice.value:
            with choice.prevent(Choice.Changed):
                choice.value = quant

    def show_seed(self, seed: int) -> None:
        """Show the seed of what was written last."""
        self.query_one(SeedField).last = seed

    def on_resize(self, event: events.Resize) -> None:
        """The arrow stays at the right edge."""
        self.call_after_refresh(lambda: self.query_one(ModelLine).show(self._model))

    # -- what a person changes ------------------------------------------------------------------

    @on(Choice.Changed, "#quant")
    def _quant_changed(self, event: Choice.Changed) -> None:
        event.stop()
        for quant in QUANTS:
            if quant == event.value:
                self.post_message(self.QuantChosen(quant))

    @on(Slider.Changed, "#threads")
    def _threads_changed(self, event: Slider.Changed) -> None:
        event.stop()
        threads = int(event.value)
        if self._threads_timer is not None:
            self._threads_timer.stop()
        self._threads_timer = self.set_timer(
            THREADS_SETTLE, lambda: self.post_message(self.ThreadsChosen(threads))
        )

    @on(Slider.Changed, "#length")
    def _length_changed(self, event: Slider.Changed) -> None:
        event.stop()
        self._length = int(event.value)
        self.post_message(self.Changed({"passage_tokens": self._length}))

    @on(Slider.Changed, ".stage")
    def _stage_changed(self, event: Slider.Changed) -> None:
        event.stop()
        values: dict[str, Any] = {event.slider.id or "": event.value}
        self._sampling = replace(self._sampling, **values)
        self._show_preset()
        self.post_message(self.Changed(values))

    @on(SeedField.Changed)
    def _seed_changed(self, event: SeedField.Changed) -> None:
        event.stop()
        self._sampling = replace(self._sampling, seed=event.seed)
        self.post_message(self.Changed({"seed": event.seed}))

    @on(Choice.Changed, "#preset")
    def _preset_chosen(self, event: Choice.Changed) -> None:
        event.stop()
        self.choose_preset(event.value)

    def choose_preset(self, name: str) -> None:
        """Set all samplers."""
        preset = next((p for p in PRESETS if p.name == name), None)
        if preset is None or preset == matching(self._sampling):
            return
        self._sampling = applied(preset, self._sampling)
        values: dict[str, Any] = {}
        for stage in STAGES:
            slider = self.query_one(f"#{stage.name}", Slider)
            values[stage.name] = getattr(self._sampling, stage.name)
            with slider.prevent(Slider.Changed):
                slider.value = values[stage.name]
        self._show_preset()
        self.post_message(self.Changed(values))

    def _show_preset(self) -> None:
        preset = matching(self._sampling)
        choice = self.query_one("#preset", Choice)
        with choice.prevent(Choice.Changed):
            choice.value = preset.name if preset else OWN
