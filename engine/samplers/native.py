"""The sampler chain in C (native/sampler.c): the same choices as chain.py, for large vocabularies.

The two agree but where a sum of probabilities lies within a float's rounding of a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence

from fireside.engine.errors import not_finite
from fireside.engine.hints import Any, cast
from fireside.engine.samplers.chain import Chain, Choice, LogitsRow, uniform
from fireside.engine.samplers.parameters import Sampling


class NativeChain(Chain):
    """A Chain whose `choose` is one call into C. One thread at a time."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        from fireside.engine.executors import native_library

        super().__init__(sampling, seed)
        self._ffi, self._lib, _ = native_library.load()
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
        row: LogitsRow,
        history: Sequence[int],
        position: int,
        alternatives: int = 0,
    ) -> Choice:
        """See Chain.choose."""
        ffi, view = self._ffi, memoryview(cast("memoryview[float]", row))
        if view.format != "f" or view.ndim != 1 or not view.c_contiguous:
            raise RuntimeError(f"expected contiguous float32, got {view.format} {view.shape}")
        vocab = len(view)
        recent = self.recent(history)
        alternatives = min(alternatives, vocab)
        ids = ffi.new("int32_t[]", 1 + alternatives)
        p = ffi.new("double[]", 1 + alternatives)
        failed = self._lib.fs_sample(
            ffi.from_buffer("float[]", view),
            vocab,
            self.settings,
            ffi.new("int32_t[]", list(recent)),
            len(recent),
            uniform(self.seed, position),
            alternatives,
            ids,
            p,
            self.scratch(vocab),
        )
        if failed:
            raise not_finite()
        return Choice(ids[0], p[0], tuple(zip(list(ids)[1:], list(p)[1:], strict=True)))
