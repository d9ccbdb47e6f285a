"""What a generation says while it runs: small frozen events. The engine never prints."""

from __future__ import annotations

from fireside.engine.hints import Literal
from fireside.engine.records import record

FinishReason = Literal["end", "stop", "length", "context", "aborted"]
"""end: the model ended its text; stop: a stop string; length: max_tokens; context: the window is
full; aborted: abort() was called."""


@record
class PrefillProgress:
    """The prompt is being read: `done` of `total` tokens, of which `reused` came from the cache."""

    done: int
    total: int
    reused: int


@record
class ContextSlid:
    """The text outgrew the window: the first `kept` tokens stay, the next `dropped` are out."""

    kept: int
    dropped: int


@record
class Alternative:
    """A token that might have been chosen, with the model's own probability of it."""

    id: int
    text: str
    probability: float


@record
class Token:
    """One generated token.

    `text` is what became certain with it: it may be empty (half a character, or what may yet
    become a stop string). `probability` is the model's own, before the samplers; `alternatives`
    are its most likely tokens, best first.
    """

    id: int
    text: str
    index: int  # 0 for the first generated token
    probability: float
    alternatives: tuple[Alternative, ...] = ()


@record
class Statistics:
    """Counts and seconds of one generation."""

    prefill_tokens: int = 0  # computed; those reused from the cache are not among them
    reused_tokens: int = 0
    prefill_s: float = 0.0
    decode_tokens: int = 0
    decode_s: float = 0.0
    context_used: int = 0
    context_size: int = 0
    guessed_tokens: int = 0  # computed ahead in the hope that they come
    accepted_tokens: int = 0  # of those, the ones that came

    @property
    def prefill_tok_s(self) -> float:
        """Prompt tokens a second; 0 where none were computed."""
        return self.prefill_tokens / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tok_s(self) -> float:
        """Generated tokens a second; 0 where none were."""
        return self.decode_tokens / self.decode_s if self.decode_s > 0 else 0.0


@record
class Finished:
    """The last event: why it ended, text held back until now, all ids generated, statistics."""

    reason: FinishReason
    text: str
    ids: tuple[int, ...]
    seed: int
    statistics: Statistics = Statistics()


Event = PrefillProgress | ContextSlid | Token | Finished
