"""Which model writes: asking for another, hearing how it went, keeping the old one meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from fireside.app.updates import (
    LoadCancelled,
    Loaded,
    LoadFailed,
    LoadProgress,
    ModelInfo,
    ModelSpec,
)
from fireside.engine import Quant

QUANT_NAMES: dict[str, str] = {"none": "as is", "f16": "F16", "q8": "Q8", "q4": "Q4"}
Loading = LoadProgress | Loaded | LoadFailed | LoadCancelled


def template_name(template: str) -> str:
    """What to call a chat template."""
    return "the model's own" if template == "own" else template


class Loader(Protocol):
    """The part of Inference that loads."""

    def load(self, spec: ModelSpec) -> int:
        """Begin; the job's number."""
        ...

    def cancel_load(self) -> None:
        """Give it up."""
        ...


class Switching:
    """The model in use and the one that is wanted. `tell(message, error)` speaks to the writer.

    `fallback` is what to write with where the very first model cannot be loaded.
    """

    def __init__(
        self, loader: Loader, tell: Callable[[str, bool], None], fallback: Path | None = None
    ) -> None:
        self.loader = loader
        self.tell = tell
        self.fallback = fallback
        self.info: ModelInfo | None = None
        self.wanted: ModelSpec | None = None
        self.job = 0  # the load under way, 0 = none
        self.progress: float | None = None

    @property
    def loading(self) -> bool:
        """Whether a model is on its way."""
        return self.job != 0

    @property
    def activity(self) -> str:
        """What is loaded, for the header."""
        if not self.loading or self.wanted is None:
            return ""
        return f"loading {self.wanted.name} {QUANT_NAMES[self.wanted.quant]}"

    @property
    def detail(self) -> str:
        """The model in use, for the header: the least missed last."""
        info = self.info
        if info is None:
            return "no model"
        isa = "" if info.isa == info.kernels else f" {info.isa}"
        return f"{info.spec.name} · {QUANT_NAMES[info.quant]} · {info.kernels}{isa}"

    def use(self, spec: ModelSpec) -> None:
        """Ask for a model, whatever is loaded now."""
        if self.loading and spec == self.wanted:
            return
        if self.info is not None and spec == self.info.spec:
            if self.loading:  # back to the one that is there
                self.loader.cancel_load()
            self.wanted, self.job, self.progress = spec, 0, None
            return
        self.wanted, self.progress = spec, 0.0
        self.job = self.loader.load(spec)

    def change(
        self,
        *,
        path: Path | None = None,
        quant: Quant | None = None,
        threads: int | None = None,
    ) -> None:
        """Ask for a model that differs in these from the one wanted before."""
        spec = self.wanted
        if spec is None:
            if path is None:
                return
            spec = ModelSpec(path)
        if path is not None and path != spec.path:
            spec = replace(spec, path=path, tokenizer=None, draft=None)
        if quant is not None:
            spec = replace(spec, quant=quant)
        if threads is not None:
            spec = replace(spec, threads=threads)
        self.use(spec)

    def cancel(self) -> bool:
        """Give up the load under way; False when there is none."""
        if not self.loading:
            return False
        self.loader.cancel_load()
        return True

    def receive(self, update: Loading) -> None:
        """Hear how it goes."""
        if isinstance(update, Loaded):
            self.info = update.info  # whatever was wanted, this one is in use now
        if update.job != self.job:
            if isinstance(update, Loaded) and not self.loading and self.wanted is not None:
                self.use(self.wanted)  # it came in the moment it was given up
            elif isinstance(update, LoadCancelled) and not self.loading and update.back:
                self.job, self.progress = update.back, 0.0
            return
        if isinstance(update, LoadProgress):
            self.progress = update.done / update.total if update.total else 0.0
            return
        self.job, self.progress = 0, None
        if isinstance(update, Loaded):
            self.wanted = update.info.spec
        else:
            self._stay(update)

    def _stay(self, update: LoadFailed | LoadCancelled) -> None:
        """The new model did not come: say so and keep what there is."""
        spec, stays = update.spec, ""
        if self.info is not None and spec == self.info.spec:
            self.info = None  # it had made room for another, and does not come back
        if self.info is not None:
            self.wanted = self.info.spec
            stays = f" {self.info.spec.name} {'is loaded again' if update.back else 'stays'}."
            if update.back:
                self.job, self.progress = update.back, 0.0
        elif self.fallback is not None and spec.path != self.fallback:
            self.use(replace(spec, path=self.fallback, tokenizer=None))
            stays = f" {self.fallback.stem} stands in."
        if isinstance(update, LoadFailed):
            reason = update.message.removeprefix(f"{spec.path}: ").rstrip(".")
            self.tell(f"{spec.name} could not be loaded: {reason}.{stays}", True)
        else:
            self.tell(f"{spec.name} was not loaded.{stays}", False)
