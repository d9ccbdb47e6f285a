"""Ways of telling: named settings of the sampler chain."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fireside.app.settings import Settings
from fireside.engine import Sampling


@dataclass(frozen=True)
class Preset:
    """A name and the values it stands for; the seed and the penalty's window are left alone."""

    name: str
    sampling: Sampling


PRESETS = (
    Preset("storyteller", Settings().sampling),
    Preset("careful", Sampling(temperature=0.5, top_p=0.9, min_p=0.1, repetition_penalty=1.05)),
    Preset(
        "fairy tale",
        Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, repetition_penalty=1.1),
    ),
    Preset("wild", Sampling(temperature=1.25, top_p=1.0, min_p=0.08, repetition_penalty=1.1)),
    Preset("likeliest", Sampling(temperature=0.0, top_p=1.0, min_p=0.0)),
)


def applied(preset: Preset, sampling: Sampling) -> Sampling:
    """The preset's values with what a preset does not touch."""
    return replace(
        preset.sampling,
        seed=sampling.seed,
        repetition_window=sampling.repetition_window,
        penalty_form=sampling.penalty_form,
    )


def matching(sampling: Sampling) -> Preset | None:
    """The preset that these values are, if they are one."""
    return next((p for p in PRESETS if applied(p, sampling) == sampling), None)
