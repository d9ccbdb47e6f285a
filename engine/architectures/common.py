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
