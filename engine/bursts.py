"""Several tokens in one call into C: a step and a draw, again and again (native/telling.c).

Between two tokens of a fast model Python would take as long as the model does. What is drawn is
what drawing token by token would draw: each is a function of the seed and its place in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireside.engine.executors import Cache, Executor
from fireside.engine.executors.native import NativeExecutor
from fireside.engine.executors.native_library import load, pointer
from fireside.engine.samplers import Chain, Choice
from fireside.engine.samplers.native import NativeChain

SECONDS = 0.005  # of a burst: a reader sees no difference, an abort and the screen wait no longer
MOST = 64  # tokens of a burst


@dataclass(frozen=True)
class Told:
    """What a burst drew, the logits [vocab] before the last of it, the mean seconds of a step."""

    choices: list[Choice]
    logits: NDArray[np.float32]
    step_s: float


class Burst:
    """Goes on with texts of one executor, drawing with one chain, up to the ids `ends`."""

    def __init__(self, executor: NativeExecutor, chain: NativeChain, ends: frozenset[int]) -> None:
        self._executor = executor
        self._chain = chain
        self._ends = np.array(sorted(ends), np.int32)  # the C side holds on to its memory
        ffi, _, _ = load()
        self._telling = t = ffi.new("fs_telling *")
        t.seed, t.seconds, t.sampling = chain.seed, SECONDS, chain.settings
        t.scratch = chain.scratch(executor.vocab)
        t.ends, t.n_ends = pointer(self._ends, np.int32, self._ends.shape, "int32_t[]"), len(ends)

    def tell(self, cache: Cache, text: Sequence[int], position: int, count: int) -> Told:
        """Up to `count` ids, at least one, that follow `text`.

        The cache holds what stands before the last id of `text`, `position` ids, and then has room
        for `count` more. Raises Aborted, MemoryError, SamplingError; only before the first id.
        """
        recent = self._chain.recent(text)
        known = recent or text[-1:]
        count = min(count, MOST)
        ids = np.empty(len(known) + count, np.int32)
        ids[: len(known)] = known
        p = np.empty(count, np.float64)
        logits = np.empty(self._executor.vocab, np.float32)
        into = pointer(ids, np.int32, ids.shape, "int32_t[]")
        chances = pointer(p, np.float64, p.shape, "double[]")
        last = pointer(logits, np.float32, logits.shape, "float[]")
        t = self._telling
        t.text, t.known, t.count, t.position = into, len(known), count, position
        t.window = self._chain.sampling.repetition_window if recent else -1
        t.place, t.probability, t.logits = len(text), chances, last
        self._executor.tell(cache, t)
        drawn = zip(ids[len(known) :].tolist(), p.tolist(), strict=True)
        choices = [Choice(i, p, ()) for i, p in drawn][: t.drawn]
        return Told(choices, logits, t.stepped / t.drawn)


def burst_for(executor: Executor, chain: Chain, ends: frozenset[int]) -> Burst | None:
    """A Burst where both are the C kernels', else None."""
    if isinstance(executor, NativeExecutor) and isinstance(chain, NativeChain):
        return Burst(executor, chain, ends)
    return None
