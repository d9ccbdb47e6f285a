"""What a person can set about sampling: one record with checked ranges."""

from __future__ import annotations

import math

from fireside.engine.errors import SamplingError
from fireside.engine.hints import Any, Literal
from fireside.engine.records import record

PenaltyForm = Literal["divide", "power"]
"""divide: a repeated token's logit is divided by the penalty if positive, multiplied if negative
(llama.cpp; values above 1 penalise). power: it is multiplied by penalty ** count (rllama; values
below 1 penalise a positive logit)."""


@record
class Sampling:
    """Parameters of the sampler chain; the defaults of the fields switch a stage off.

    Temperature 0 is greedy: the most likely token after the penalties. The random number of a
    token depends on (seed, position of the token in the text) alone, so that a story does not
    depend on how it was cut into generations. Seed None draws one.
    """

    temperature: float = 0.8
    top_k: int = 0  # keep the k most likely; 0 = off
    top_p: float = 0.95  # keep the fewest that reach this share (Holtzman et al. 2019); 1 = off
    min_p: float = 0.05  # keep those at least this share of the most likely; 0 = off
    typical_p: float = 1.0  # locally typical sampling (Meister et al. 2022); 1 = off
    repetition_penalty: float = 1.0  # 1 = off
    repetition_window: int = 64  # last tokens the penalties look at; 0 = all of the text
    penalty_form: PenaltyForm = "divide"
    presence_penalty: float = 0.0  # subtracted once from a token that occurred; 0 = off
    frequency_penalty: float = 0.0  # subtracted for every occurrence; 0 = off
    seed: int | None = None

    def __post_init__(self) -> None:
        _check(self, "temperature", 0, 100)
        _check(self, "top_k", 0, 2**31 - 1)
        _check(self, "top_p", 0, 1)
        _check(self, "min_p", 0, 1)
        _check(self, "typical_p", 0, 1)
        _check(self, "repetition_penalty", 0, 100)
        _check(self, "repetition_window", 0, 2**31 - 1)
        _check(self, "presence_penalty", -100, 100)
        _check(self, "frequency_penalty", -100, 100)
        if self.penalty_form == "divide" and self.repetition_penalty == 0:
            raise SamplingError("repetition_penalty must be above 0 in the form 'divide'")
        if self.penalty_form not in ("divide", "power"):
            raise SamplingError(f"penalty_form is {self.penalty_form!r}: choose divide or power")
        if self.seed is not None and not 0 <= self.seed < 2**64:
            raise SamplingError(f"seed is {self.seed}: it must be from 0 to 2^64 - 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(vars(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sampling:
        """The inverse of to_dict; an unknown key is an error that lists the known ones."""
        known = list(cls.__annotations__)
        for key in values:
            if key not in known:
                raise SamplingError(
                    f"unknown sampler setting {key!r}", f"known: {', '.join(known)}"
                )
        try:
            return cls(**values)
        except TypeError as error:
            raise SamplingError(f"a sampler setting has the wrong type: {error}") from None


def _check(sampling: Sampling, name: str, low: float, high: float) -> None:
    value = getattr(sampling, name)
    if not (math.isfinite(value) and low <= value <= high):
        raise SamplingError(f"{name} is {value}: it must be from {low:g} to {high:g}")
