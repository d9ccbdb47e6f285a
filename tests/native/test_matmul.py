"""The matmul kernels against NumPy that does the same arithmetic in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.blocks import ggml, k_quants, q5_0
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.executors import native_library
from tests.models import random_tensor
from tests.native.steps import Floats, matmul

BLOCK, SUPER = 32, 8
NUMBERS = ("Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
SIZES = [
    (1, 16, 32),
    (1, 130, 96),
    (2, 33, 64),
    (5, 64, 32),
    (13, 100, 160),
    (40, 16, 288),
    (37, 50, 800),
]


def fma(a: NDArray[np.float64], b: NDArray[np.float64], c: Floats) -> Floats:
    """a * b + c, rounded once (but for the rarest ties: the sum is in double)."""
    return (a * b + c).astype(np.float32)


def emulate_float(weights: Floats, x: Floats) -> Floats:
    acc = np.zeros((len(x), len(weights)), np.float32)
    for k in range(weights.shape[1]):
        acc = fma(x[:, k, None].astype(np.float64), weights[:, k].astype(np.float64), acc)
    return acc


def quantise(x: Floats, group: int = BLOCK) -> tuple[NDArray[np.int64], Floats]:
    """x [n, columns] -> whole numbers [n, groups, group] and their scales [n, groups]."""
    blocks = np.pad(x, ((0, 0), (0, -x.shape[1] % group))).reshape(len(x), -1, group)
    largest = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 1e-30)
    scale = np.where(largest > 1e-30, largest / np.float32(127), np.float32(0))
    return np.rint(blocks * inverse).astype(np.int64), scale[..., 0]


def emulate_blocks(q: NDArray[np.int64], d: Floats, x: Floats) -> Floats:
    """q [rows, blocks, 32], d [rows, blocks]: whole sums of eight blocks are exact integers, where
    their scales count as the whole numbers that they are nearest to in units of 1 / 127.5 of the
    largest one's power of two."""
    xq, xs = quantise(x, SUPER * BLOCK)
    acc = np.zeros((len(x), len(q)), np.float32)
    for i in range(xs.shape[1]):
        scales = d[:, i * SUPER : (i + 1) * SUPER]
        most = np.maximum(np.abs(scales).max(1, keepdims=True), np.float32(6e-8))
        power = np.ldexp(np.float32(0.5), np.frexp(most)[1])
        levels = np.rint(scales * (np.float32(127.5) / power))
        weights = q[:, i * SUPER : (i + 1) * SUPER] * levels[..., None].astype(np.int64)
        whole = weights.reshape(len(q), -1)
        total = (xq[:, i, : whole.shape[1]] @ whole.T).astype(np.float32)
        unit = power[:, 0] / np.float32(127.5)
        acc = fma(total.astype(np.float64), (unit * xs[:, i, None]).astype(np.float64), acc)
    return acc


def unpack_file(data: NDArray[np.uint8], rows: int, block: str) -> tuple[NDArray[np.int64], Floats]:
    if block == "Q8_0":
        raw = data.reshape(rows, -1, 34)
        q = raw[..., 2:].view(np.int8).astype(np.int64)
    else:
        raw = data.reshape(rows, -1, 18)
        nibbles = raw[..., 2:]
        q = np.concatenate([nibbles & 15, nibbles >> 4], -1).astype(np.int64) - 8
    return q, np.ascontiguousarray(raw[..., :2]).view(np.float16)[..., 0].astype(np.float32)


def numbers_of(tensor: Tensor) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Whole numbers [rows, half blocks, 16], their scales and minima [rows, half blocks]."""
    rows, name = tensor.shape[0], tensor.block
    form = blocks.get(name)
    assert isinstance(form, ggml.GgmlFormat)
    r = tensor.data.view(form.dtype)
    low = np.zeros((len(r), 1))
    match name:
        case "Q4_1":
            q, scales, low = ggml.nibbles(r["q"]), np.ones((len(r), 1)), r["m"][:, None]
        case "Q5_0":
            q, scales = q5_0.numbers(r).astype(np.int64) - 16, np.ones((len(r), 1))
        case "Q5_1":
            q, scales, low = q5_0.numbers(r), np.ones((len(r), 1)), r["m"][:, None]
        case "Q6_K":
            whole = r.copy()
            whole["d"], whole["s"] = 1, 1  # leaves the numbers
            q, scales = form.unpack(whole), r["s"]
        case _:
            fifth = (
                r["h"][:, None] >> np.arange(8, dtype=np.uint8)[:, None] & 1
                if name == "Q5_K"
                else 0
            )
            q = k_quants.pairs(r["q"]) | (fifth << 4 if name == "Q5_K" else np.uint8(0))
            scales, minima = k_quants.six_bits(r["s"])
            low = -r["dmin"][:, None].astype(np.float32) * minima
    d = (r["d"][:, None].astype(np.float32) * scales).astype(np.float32)
    halves = form.block_size // 16
    d, low = (np.repeat(a, halves // a.shape[1], 1).reshape(rows, -1) for a in (d, low))
    return q.reshape(rows, -1, 16).astype(np.int64), d, low.astype(np.float32)


def emulate_numbers(tensor: Tensor, x: Floats) -> Floats:
    """A sum a block, or two where the halves have their own scales; then the minimum."""
    q, d, low = numbers_of(tensor)
    xq, xs = quantise(x)
    acc = np.zeros((len(x), len(q)), np.float32)
    for b in range(xs.shape[1]):
        two = [xq[:, b, i : i + 16] @ q[:, 2 * b + i // 16].T for i in (0, 16)]
        sums = enumerate(two if tensor.block == "Q6_K" else [two[0] + two[1]])
        for half, total in sums:
            factor = (d[:, 2 * b + half] * xs[:, b, None]).astype(np.float64)
            acc = fma(total.astype(np.float64), factor, acc)
        plain = (xq[:, b].sum(-1).astype(np.float32) * xs[:, b]).astype(np.float64)
        acc = fma(plain[:, None], low[:, 2 * b].astype(np.float64), acc)
    return acc


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("n", "rows", "cols"), [*SIZES, (3, 17, 1), (7, 50, 36), (1, 67, 50)])
@pytest.mark.parametrize("block", ["F32", "F16", "BF16"])
def test_floats(isa: str, block: str, n: int, rows: int, cols: int) -> None:
    weights, x = normal(1, rows, cols), normal(2, n, cols)
    stored = random_tensor("w", weights, block).to_float32()
    y = matmul(weights, x, block, isa)
    np.testing.assert_allclose(y, emulate_float(stored, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "rows", "cols"), SIZES)
@pytest.mark.parametrize("block", ["Q8_0", "Q4_0"])
def test_blocks(isa: str, block: str, n: int, rows: int, cols: int) -> None:
    weights, x = normal(1, rows, cols), normal(2, n, cols)
    q, d = unpack_file(random_tensor("w", weights, block).data, rows, block)
    y = matmul(weights, x, block, isa)
    np.testing.assert_allclose(y, emulate_blocks(q, d, x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n", "rows", "cols"), [(1, 130, 512), (2, 33, 256), (19, 50, 768)])
@pytest.mark.parametrize("block", NUMBERS)
def test_numbers(isa: str, block: str, n: int, rows: int, cols: int) -> None:
    weights, x = normal(1, rows, cols), normal(2, n, cols)
    tensor = random_tensor("w", weights, block)
    y = matmul(weights, x, block, isa)
    expected = emulate_numbers(tensor, x)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-5)
    plain = x @ tensor.to_float32().T
    assert np.abs(expected - plain).max() < 0.02 * np.abs(plain).max()  # it means the same


@pytest.mark.parametrize("block", ["Q8_0", "Q4_0", *NUMBERS])
def test_largest_sums_do_not_saturate(isa: str, block: str) -> None:
    weights = np.ones((32, 256), np.float32) * np.where(np.arange(32) % 2, 1, -1)[:, None]
    x = np.repeat(np.array([[1.0], [-1.0], [1.0]], np.float32), 256, 1)
    y = matmul(weights.astype(np.float32), x, block, isa)
    stored = random_tensor("w", weights.astype(np.float32), block).to_float32()
    # scales of Q8_0 and Q4_0 are rounded to levels, 64 at the least
    np.testing.assert_allclose(y, x @ stored.T, rtol=1e-2 if block in ("Q8_0", "Q4_0") else 1e-5)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    rows=st.integers(1, 90),
    cols=st.integers(1, 80),
    block=st.sampled_from(["F32", "F16", "BF16", "Q8_0", "Q4_0", *NUMBERS]),
    seed=st.integers(0, 2**31),
)
def test_every_instruction_set_gives_the_same_bits(
    n: int, rows: int, cols: int, block: str, seed: int
) -> None:
    size = blocks.get(block).block_size
    cols = -(-cols // size) * size
    weights, x = normal(seed, rows, cols), normal(seed + 1, n, cols)
    results = {
        name: matmul(weights, x, block, name).tobytes()
        for name in native_library.instruction_sets()
    }
    assert len(set(results.values())) == 1, results.keys()


def test_extreme_activations(isa: str) -> None:
    """Zeros, the smallest and the largest floats: no surprise and the same on every machine."""
    x = np.zeros((4, 64), np.float32)
    x[1], x[2, ::2], x[3] = 1e-38, 1e37, np.geomspace(1e-30, 1, 64)
    weights = normal(5, 40, 64)
    q, d = unpack_file(random_tensor("w", weights, "Q8_0").data, 40, "Q8_0")
    y = matmul(weights, x, "Q8_0", isa)
    np.testing.assert_allclose(y, emulate_blocks(q, d, x), rtol=1e-6, atol=1e-30)
