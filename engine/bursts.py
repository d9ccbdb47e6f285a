"""Several tokens in one call into C: a step and a draw, again and again (native/telling.c).

Between two tokens of a fast model Python would take as long as the model does. What is drawn is
what drawing token by token would draw: each is a function of the seed and its place in the text.
"""

from __future__ import annotations

from collections.abc import Sequence

from fireside.engine.executors import Cache, Executor
from fireside.engine.executors.native import NativeExecutor
from fireside.engine.executors.native_library import load
from fireside.engine.records import record
from fireside.engine.samplers import Chain, Choice
from fireside.engine.samplers.native import NativeChain

# A burst ends behind so many tokens that Python's share of them is small; until then guesses, an
# abort and the screen wait. A reader sees no difference.
ENOUGH = 16  # tokens
SECONDS = (0.005, 0.012)  # at least and at most, of a burst
MOST = 64  # tokens of a burst


@record
class Told:
    """What a burst drew, the logits [vocab] before the last of it, the mean seconds of a step."""

    choices: list[Choice]
    logits: memoryview[float]  # of float32
    step_s: float


class Burst:
    """Goes on with texts of one executor, drawing with one chain, up to the ids `ends`."""

    def __init__(self, executor: NativeExecutor, chain: NativeChain, ends: frozenset[int]) -> None:
        self._executor = executor
        self._chain = chain
        ffi, _, _ = load()
        self._ends = ffi.new("int32_t[]", sorted(ends))  # the C side holds on to its memory
        self._new = ffi.new_allocator(should_clear_after_alloc=False)
        self._telling = t = ffi.new("fs_telling *")
        t.seed, t.sampling = chain.seed, chain.settings
        self._shortest, self._longest = SECONDS
        self._step_s = 0.0
        t.scratch = chain.scratch(executor.vocab)
        t.ends, t.n_ends = self._ends, len(ends)

    def tell(
        self, cache: Cache, text: Sequence[int], position: int, count: int, fresh: int = 1
    ) -> Told:
        """Up to `count` ids, at least one, that follow `text`.

        The cache holds what stands before the last `fresh` ids of `text`, `position` ids, and has
        room for these and for `count - 1` more. Raises Aborted, MemoryError, SamplingError; only
        before the first id.
        """
        ffi, _, _ = load()
        recent = self._chain.recent(text)
        known = text[-max(len(recent), fresh) :]
        count = min(count, MOST)
        ids = self._new("int32_t[]", len(known) + count)
        ids[0 : len(known)] = known
        chances = self._new("double[]", count)
        logits = self._new("float[]", self._executor.vocab)
        t = self._telling
        t.text, t.known, t.fresh, t.count, t.position = ids, len(known), fresh, count, position
        t.window = self._chain.sampling.repetition_window if recent else -1
        t.place, t.probability, t.logits = len(text), chances, logits
        t.seconds = min(max(self._shortest, ENOUGH * self._step_s), self._longest)
        self._executor.tell(cache, t)
        if fresh == 1:
            self._step_s = t.stepped / t.drawn
        drawn = zip(
            ffi.unpack(ids + len(known), t.drawn), ffi.unpack(chances, t.drawn), strict=True
        )
        choices = [Choice(i, p, ()) for i, p in drawn]
        return Told(choices, memoryview(ffi.buffer(logits)).cast("f"), t.stepped / t.drawn)


def burst_for(executor: Executor, chain: Chain, ends: frozenset[int]) -> Burst | None:
    """A Burst where both are the C kernels', else None."""
    if isinstance(executor, NativeExecutor) and isinstance(chain, NativeChain):
        return Burst(executor, chain, ends)
    return None
