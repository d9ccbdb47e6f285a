"""What the files of this package share."""

from __future__ import annotations

import math


def llama3_factors(
    theta: float, rotary_dim: int, factor: float, low: float, high: float, original: int
) -> tuple[float, ...]:
    """Divisors of rope's frequencies, [rotary_dim / 2], as Llama 3.1 stretches its context.

    Waves longer than original / low positions turn `factor` times slower, those shorter than
    original / high as before, and those between in part. (meta-llama/llama-models, model.py)
    """
    factors = []
    for i in range(0, rotary_dim, 2):
        turns = original * theta ** (-i / rotary_dim) / (2 * math.pi)  # within `original`
        kept = min(1.0, max(0.0, (turns - low) / (high - low)))
        factors.append(1 / (kept + (1 - kept) / factor))
    return tuple(factors)


def yarn_factors(
    theta: float, rotary_dim: int, factor: float, fast: float, slow: float, original: int
) -> tuple[float, ...]:
    """Divisors of rope's frequencies, [rotary_dim / 2], by YaRN. (Peng et al. 2023)

    Pairs that turn more than `fast` times within `original` positions stay, those that turn less
    than `slow` times go `factor` times slower, and between them it goes in a line by their number.
    """

    def pair(turns: float) -> float:
        wave = original / (turns * 2 * math.pi)
        return rotary_dim * math.log(wave) / (2 * math.log(theta))

    first = max(math.floor(pair(fast)), 0)
    last = min(math.ceil(pair(slow)), rotary_dim - 1)
    span = max(last - first, 0.001)
    slowed = (min(1.0, max(0.0, (i - first) / span)) for i in range(rotary_dim // 2))
    return tuple(1 / (s / factor + 1 - s) for s in slowed)
