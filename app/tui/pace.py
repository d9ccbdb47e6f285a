"""From updates to the numbers of the panel "Now"."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from fireside.app.tui.widgets.meter import MeterState
from fireside.app.updates import Done, Failed, ModelInfo, Prefill, Slid, TextUpdate

WINDOW = 1.0  # seconds over which the speed of now is measured


class Pace:
    """Keeps a `MeterState` up to date."""

    def __init__(self) -> None:
        self.state = MeterState()
        self._marks: deque[tuple[float, int]] = deque()

    def model(self, info: ModelInfo) -> None:
        """Another model is in use."""
        threads = f" · {info.threads} threads" if info.threads > 1 else ""
        isa = "" if info.isa == info.kernels else f" {info.isa}"
        self.state = MeterState(
            context_size=info.context,
            memory_bytes=info.nbytes,
            kernels=f"{info.kernels}{isa}{threads}",
        )

    def begin(self) -> None:
        """A generation was asked for."""
        self._marks.clear()
        self.state = replace(self.state, tokens_per_second=None, generating=True)

    def take(self, update: Prefill | TextUpdate | Slid | Done | Failed) -> None:
        """What happened to it."""
        if isinstance(update, Prefill):
            self._read(update)
        elif isinstance(update, TextUpdate):
            self._wrote(update)
        elif isinstance(update, Done):
            self._done(update)
        elif isinstance(update, Failed):
            self._rest()

    def _read(self, update: Prefill) -> None:
        computed = update.done - update.reused
        left = None
        if computed > 0 and update.done < update.total:
            left = update.seconds / computed * (update.total - update.done)
        self.state = replace(
            self.state,
            prefill_done=update.done,
            prefill_total=update.total,
            prefill_seconds_left=left,
            context_used=update.done,
            reused=update.reused,
            computed=computed,
        )

    def _wrote(self, update: TextUpdate) -> None:
        marks = self._marks
        marks.append((update.seconds, update.tokens))
        while len(marks) > 2 and marks[-1][0] - marks[1][0] >= WINDOW:
            marks.popleft()
        seconds, tokens = marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1]
        if seconds <= 0:  # the first sight: all that was written since the beginning
            seconds, tokens = update.seconds, update.tokens - 1
        speed = tokens / seconds if seconds > 0 and tokens > 0 else None
        self.state = replace(
            self.state,
            tokens_per_second=speed if speed is not None else self.state.tokens_per_second,
            prefill_done=self.state.prefill_total,
            prefill_seconds_left=None,
            context_used=update.context_used,
        )

    def _done(self, update: Done) -> None:
        self._rest()
        statistics = update.statistics
        if statistics.decode_tokens:
            self.state = replace(
                self.state,
                tokens_per_second=statistics.decode_tok_s,
                context_used=statistics.context_used,
                reused=statistics.reused_tokens,
                computed=statistics.prefill_tokens,
            )

    def _rest(self) -> None:
        self.state = replace(
            self.state, generating=False, prefill_done=0, prefill_total=0, prefill_seconds_left=None
        )
