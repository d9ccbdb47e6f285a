"""The sampler chain in C (native/sampler.c): the same choices as chain.py, for large vocabularies.

The two agree but where a sum of probabilities lies within a float's rounding of a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fireside.engine.arrays import np
from fireside.engine.errors import not_finite
from fireside.engine.samplers.chain import Chain, Choice, uniform
from fireside.engine.samplers.parameters import Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NativeChain(Chain):
    """A Chain whose `choose` is one call into C. One thread at a time."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        from fireside.engine.executors import native_library

        super().__init__(sampling, seed)
        self._ffi, self._lib, _ = native_library.load()
        self._pointer = native_library.pointer
        self.settings = self._ffi.new("fs_sampling *")
        s, c = sampling, self.settings
        c.temperature, c.top_k, c.top_p = s.temperature, s.top_k, s.top_p
        c.min_p, c.typical_p = s.min_p, s.typical_p
        c.repetition, c.power = s.repetition_penalty, s.penalty_form == "power"
        c.presence, c.frequency = s.presence_penalty, s.frequency_penalty
        self._scratch = self._ffi.NULL
        self._vocab = 0

    def scratch(self, vocab: int) -> Any:
        """Memory that fs_sample needs for a vocabulary."""
        if vocab != self._vocab:
            self._scratch = self._ffi.new("char[]", self._lib.fs_sample_scratch(vocab))
            self._vocab = vocab
        return self._scratch

    def choose(
        self,
        logits: NDArray[np.float32],
        history: Sequence[int],
        position: int,
        alternatives: int = 0,
    ) -> Choice:
        """See Chain.choose."""
        vocab = len(logits)
        recent = np.array(self.recent(history), np.int32)
        alternatives = min(alternatives, vocab)
        ids = np.empty(1 + alternatives, np.int32)
        p = np.empty(1 + alternatives, np.float64)
        failed = self._lib.fs_sample(
            self._pointer(logits, np.float32, (vocab,), "float[]"),
            vocab,
            self.settings,
            self._pointer(recent, np.int32, recent.shape, "int32_t[]"),
            len(recent),
            uniform(self.seed, position),
            alternatives,
            self._pointer(ids, np.int32, ids.shape, "int32_t[]"),
            self._pointer(p, np.float64, p.shape, "double[]"),
            self.scratch(vocab),
        )
        if failed:
            raise not_finite()
        best = tuple(zip(ids[1:].tolist(), p[1:].tolist(), strict=True))
        return Choice(int(ids[0]), float(p[0]), best)
