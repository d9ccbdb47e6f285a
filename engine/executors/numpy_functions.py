"""The small functions of the NumPy executor: activations, soft caps, norms. Float32 in and out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fireside.engine.config import Activation

Array = NDArray[np.float32]
GELU = np.float32(2 * np.sqrt(2 / np.pi))  # twice the factor of Hendrycks and Gimpel's tanh
# Abramowitz and Stegun 7.1.26: erf within 1.5e-7
ERF_P = np.float32(0.3275911)
ERF = [np.float32(a) for a in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)]


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x)."""
    with np.errstate(over="ignore"):  # exp(-x) = inf gives the right 0
        out: Array = np.float32(1) / (np.float32(1) + np.exp(-x))
    return out


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    out: Array = np.float32(2) * sigmoid(np.float32(2) * x) - np.float32(1)
    return out


def erf(x: Array) -> Array:
    """The error function."""
    t = np.float32(1) / (np.float32(1) + ERF_P * np.abs(x))
    p = np.zeros_like(x)
    for a in ERF:
        p = p * t + a
    out: Array = np.copysign(np.float32(1) - p * t * np.exp(-x * x), x)
    return out


def activate(kind: Activation, x: Array) -> Array:
    """SiLU, GELU or GELU's approximation by tanh. (Hendrycks and Gimpel 2016)"""
    if kind == "silu":
        out: Array = x * sigmoid(x)
    elif kind == "gelu":
        out = np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(np.sqrt(0.5))))
    else:
        out = x * sigmoid(GELU * (x + np.float32(0.044715) * x * x * x))
    return out


def softcap(x: Array, cap: float) -> Array:
    """cap * tanh(x / cap); x itself where cap is 0."""
    return np.float32(cap) * tanh(x / np.float32(cap)) if cap else x


def rms_norm(row: Array, weight: Array, eps: float) -> Array:
    """One vector [width], or the vectors [n, width]."""
    mean = np.einsum("...i,...i->...", row, row)[..., None] / np.float32(row.shape[-1])
    out: Array = row / np.sqrt(mean + np.float32(eps)) * weight
    return out


def layer_norm(row: Array, weight: Array, bias: Array | None, eps: float) -> Array:
    """One vector [width]."""
    centred = row - row.mean(dtype=np.float32)
    variance = np.dot(centred, centred) / np.float32(len(row))
    out: Array = centred / np.sqrt(variance + np.float32(eps)) * weight
    return out if bias is None else out + bias


def choose_experts(router: Array, used: int, normalise: bool) -> tuple[NDArray[np.intp], Array]:
    """(which experts, with which weights) of one row's router logits [n_experts]."""
    weights = np.exp(router - router.max())
    weights /= weights.sum()
    chosen = np.argsort(-weights, kind="stable")[:used]
    picked: Array = weights[chosen]
    return chosen, picked / picked.sum() if normalise else picked
