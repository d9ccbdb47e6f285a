"""What is asked of the inference thread, and what it tells: plain values and their buffer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fireside.engine import (
    KV,
    FinishReason,
    Overflow,
    Quant,
    Sampling,
    Speculation,
    Statistics,
    Token,
)
from fireside.engine.chat import Message

# -- what is asked ------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelSpec:
    """Which model, and how to run it. context 0 = as long as the model was trained for."""

    path: Path
    quant: Quant = "none"
    kernels: str = "auto"
    threads: int = 0
    context: int = 0
    tokenizer: Path | None = None
    speculation: Speculation = "auto"
    kv: KV = "f16"
    draft: Path | None = None

    @property
    def name(self) -> str:
        """What to call it before it is loaded."""
        return self.path.stem


@dataclass(frozen=True)
class Conversation:
    """What was said so far; the model in use knows how it wants to be asked for the next turn."""

    messages: tuple[Message, ...]
    template: str = ""  # a name of engine.chat; "" = the model's own


Prompt = str | Sequence[int] | Conversation
"""Text, ids with their BOS, or a conversation whose next turn is the model's."""


@dataclass(frozen=True)
class Request:
    """One generation."""

    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    overflow: Overflow = "slide"
    alternatives: int = 0


# -- what is told -------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelInfo:
    """The model in use, in plain values."""

    spec: ModelSpec
    name: str
    architecture: str
    parameters: int
    quant: str
    kernels: str
    isa: str
    threads: int
    context: int
    nbytes: int
    load_s: float


@dataclass(frozen=True)
class LoadProgress:
    """`done` of `total` bytes of the model of `spec` are laid out; total 0 = not known yet."""

    job: int
    spec: ModelSpec
    done: int
    total: int


@dataclass(frozen=True)
class Loaded:
    """The new model is in use from here on."""

    job: int
    info: ModelInfo


@dataclass(frozen=True)
class LoadFailed:
    """It could not be loaded. message: one line, for a person.

    The model in use before still is, unless it had to make room: then job `back` loads it again.
    """

    job: int
    spec: ModelSpec
    message: str
    back: int = 0


@dataclass(frozen=True)
class LoadCancelled:
    """It was given up for a newer one, or because somebody asked. back: as in LoadFailed."""

    job: int
    spec: ModelSpec
    back: int = 0


@dataclass(frozen=True)
class Prefill:
    """The prompt is being read: `done` of `total` tokens, `reused` of them from the cache."""

    job: int
    done: int
    total: int
    reused: int
    seconds: float


@dataclass(frozen=True)
class TextUpdate:
    """Text that was written since the last drain; `tokens` and `seconds` count from the start."""

    job: int
    text: str
    tokens: int
    seconds: float
    context_used: int
    choices: tuple[Token, ...] = ()  # every token, where alternatives were asked for


@dataclass(frozen=True)
class Slid:
    """The text outgrew the context: the beginning stays, `dropped` tokens after it are unseen."""

    job: int
    kept: int
    dropped: int


@dataclass(frozen=True)
class Done:
    """The generation has ended. info None: it was stopped before there was a model."""

    job: int
    reason: FinishReason
    seed: int
    statistics: Statistics
    info: ModelInfo | None


@dataclass(frozen=True)
class Failed:
    """The generation could not go on. message: one line, for a person."""

    job: int
    message: str


Update = (
    LoadProgress | Loaded | LoadFailed | LoadCancelled | Prefill | TextUpdate | Slid | Done | Failed
)


class Buffer:
    """Updates on their way out, joined where only the newest counts. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._updates: list[Update] = []
        # What was written since the last of `_updates`, not yet made into one: a model may write
        # some thousand tokens between two looks.
        self._writing: tuple[int, int, float, int] | None = None  # job, tokens, seconds, context
        self._texts: list[str] = []
        self._choices: list[Token] = []

    def push(self, update: Update) -> None:
        """Add one."""
        with self._lock:
            self._settle()
            last = self._updates[-1] if self._updates else None
            newer = type(last) is type(update) and last is not None and last.job == update.job
            if newer and isinstance(update, Prefill | LoadProgress):
                self._updates[-1] = update
            else:
                self._updates.append(update)

    def write(
        self,
        job: int,
        text: str,
        tokens: int,
        seconds: float,
        context_used: int,
        choice: Token | None = None,
    ) -> None:
        """Add what a token wrote; the others as in TextUpdate."""
        with self._lock:
            if self._writing and self._writing[0] != job:
                self._settle()
            self._writing = job, tokens, seconds, context_used
            self._texts.append(text)
            if choice is not None:
                self._choices.append(choice)

    def drain(self) -> list[Update]:
        """Take all of them out, oldest first."""
        with self._lock:
            self._settle()
            updates, self._updates = self._updates, []
            return updates

    def _settle(self) -> None:
        """Make an update of what was written."""
        if self._writing:
            job, tokens, seconds, used = self._writing
            text, choices = "".join(self._texts), tuple(self._choices)
            self._updates.append(TextUpdate(job, text, tokens, seconds, used, choices))
            self._writing, self._texts, self._choices = None, [], []
