"""The matmul kernels against NumPy that does the same arithmetic in the same order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.blocks import ggml, q5_0, tables
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.executors import native_library
from tests.models import random_tensor
from tests.native.steps import Floats, build, matmul, matmul_model
from tests.native.test_packing import any_blocks

BLOCK, SUPER = 32, 8  # weights, and blocks whose sums are added up as whole numbers
SUPERS = ("Q4_K", "Q5_K", "Q6_K")
NUMBERS = ("Q4_1", "Q5_0", "Q5_1", *SUPERS)
# levels in the power of two of the largest of eight scales
LEVELS = {"Q4_1": 1024, "Q5_0": 1024, "Q5_1": 512, "IQ4_NL": 127.5, "MXFP4": 1024}
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


def levels_of(d: Floats, power: float) -> tuple[NDArray[np.int64], Floats]:
    """Scales d [rows, up to 8] as whole numbers in units of 1 / power of the largest one's power of
    two, and these units [rows]."""
    most = np.maximum(np.abs(d).max(1, keepdims=True), np.float32(6e-8))
    one = np.ldexp(np.float32(0.5), np.frexp(most)[1])
    levels = np.rint(d * (np.float32(power) / one)).astype(np.int64)
    return levels, one[:, 0] / np.float32(power)


def emulate_blocks(
    q: NDArray[np.int64], d: Floats, x: Floats, power: float = 127.5, low: Floats | None = None
) -> Floats:
    """q [rows, blocks, 32], scales d, minima `low` [rows, blocks]: sums of eight blocks are exact
    integers, where their scales count as the whole numbers that they are nearest to."""
    xq, xs = quantise(x, SUPER * BLOCK)
    acc = np.zeros((len(x), len(q)), np.float32)
    for i in range(xs.shape[1]):
        eight = slice(i * SUPER, (i + 1) * SUPER)
        levels, unit = levels_of(d[:, eight], power)
        whole = (q[:, eight] * levels[..., None]).reshape(len(q), -1)
        total = (xq[:, i, : whole.shape[1]] @ whole.T).astype(np.float32)
        scale = xs[:, i, None]
        if low is None:
            acc = fma(total.astype(np.float64), (unit * scale).astype(np.float64), acc)
            continue
        rest = np.zeros_like(acc)
        for j, m in enumerate(low[:, eight].T):
            sums = xq[:, i, j * BLOCK : (j + 1) * BLOCK].sum(-1)
            rest = fma(sums[:, None].astype(np.float64), m.astype(np.float64), rest)
        y = fma(total.astype(np.float64), unit.astype(np.float64), rest)
        acc = fma(y.astype(np.float64), scale.astype(np.float64), acc)
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


def emulate_numbers(tensor: Tensor, x: Floats) -> Floats:
    """Types of LEVELS."""
    form, block = blocks.get(tensor.block), tensor.block
    assert isinstance(form, ggml.GgmlFormat)
    r, rows = tensor.data.reshape(-1).view(form.dtype), tensor.shape[0]
    q = q5_0.numbers(r) if "h" in form.dtype.fields else ggml.nibbles(r["q"])
    if block in ("IQ4_NL", "MXFP4"):
        q = tables.looked_up(tables.E2M1 if block == "MXFP4" else tables.UNEVEN, q)
    q = q.astype(np.int64).reshape(rows, -1, BLOCK) - 16 * (block == "Q5_0")
    d = np.ldexp(1.0, r["e"].astype(np.int64) - 128) if block == "MXFP4" else r["d"]
    d = d.astype(np.float32).reshape(rows, -1)
    low = r["m"].astype(np.float32).reshape(rows, -1) if block in ("Q4_1", "Q5_1") else None
    return emulate_blocks(q, d, x, LEVELS[block], low)


def supers_of(tensor: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Numbers times scales and minima [rows, n, 256]; what one of each is worth [rows, n]."""
    form = blocks.get(tensor.block)
    assert isinstance(form, ggml.GgmlFormat)
    r = tensor.data.view(form.dtype).reshape(-1)
    whole = r.copy()
    whole["d"] = 1
    if "dmin" in r.dtype.names:
        whole["dmin"] = 0  # leaves the numbers times their scales
    steps = form.unpack(whole)
    lows, dmin = np.zeros_like(steps), np.zeros(len(r), np.float32)
    if "dmin" in r.dtype.names:
        whole["d"], whole["dmin"] = 0, 1
        lows, dmin = -form.unpack(whole), r["dmin"].astype(np.float32)
    shape = (tensor.shape[0], -1, SUPER * BLOCK)
    q, n = (x.astype(np.int64).reshape(shape) for x in (steps, lows))
    d, dmin = (x.reshape(len(q), -1) for x in (r["d"].astype(np.float32), dmin))
    return q, n, d, dmin


def emulate_supers(tensor: Tensor, x: Floats) -> Floats:
    """Sums of 256 columns are exact integers, of the numbers and of the minima."""
    q, n, d, dmin = supers_of(tensor)
    xq, xs = quantise(x, SUPER * BLOCK)
    acc = np.zeros((len(x), len(q)), np.float32)
    for i in range(xs.shape[1]):
        total, rest = ((xq[:, i] @ a[:, i].T).astype(np.float32) for a in (q, n))
        scale = xs[:, i, None].astype(np.float64)
        if dmin.any():
            y = fma(total.astype(np.float64), d[:, i].astype(np.float64), rest * -dmin[:, i])
            acc = fma(y.astype(np.float64), scale, acc)
        else:
            factor = (d[:, i] * xs[:, i, None]).astype(np.float64)
            acc = fma(total.astype(np.float64), factor, acc)
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


@pytest.mark.parametrize("n", [1, 20])
def test_negative_scales(isa: str, n: int) -> None:
    """ggml gives Q8_0 none, but a file may have them, and -128 beside them."""
    rows, cols = 40, 544
    weights, x = normal(1, rows, cols), normal(2, n, cols)
    plan, checkpoint = matmul_model(weights, x, "Q8_0")
    file_blocks = checkpoint.tensors["w"].data.reshape(-1, 34)
    file_blocks[::5, 1] ^= 0x80
    file_blocks[::3, 2::7] = 0x80
    q, d = unpack_file(file_blocks, rows, "Q8_0")
    assert (d.min() < 0, q.min()) == (True, -128)
    executor = build(plan, checkpoint, "none", isa)
    y = executor.step(executor.new_cache(n), np.arange(n, dtype=np.int32), 0, "all")
    np.testing.assert_allclose(y, emulate_blocks(q, d, x), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("n", "rows", "cols"), [(1, 130, 512), (2, 33, 256), (19, 50, 768)])
@pytest.mark.parametrize("block", NUMBERS)
def test_numbers(isa: str, block: str, n: int, rows: int, cols: int) -> None:
    weights, x = normal(1, rows, cols), normal(2, n, cols)
    tensor = random_tensor("w", weights, block)
    y = matmul(weights, x, block, isa)
    expected = (emulate_supers if block in SUPERS else emulate_numbers)(tensor, x)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-5)
    plain = x @ tensor.to_float32().T
    assert np.abs(expected - plain).max() < 0.02 * np.abs(plain).max()  # it means the same


@pytest.mark.parametrize(
    ("n", "rows", "cols"), [(1, 130, 512), (2, 33, 256), (19, 50, 768), (150, 40, 512)]
)
@pytest.mark.parametrize("block", ["Q2_K", "Q3_K", "IQ4_XS", *SUPERS])
def test_any_numbers_and_scales(isa: str, block: str, n: int, rows: int, cols: int) -> None:
    """All bits of a file random: the largest numbers meet the largest scales, of either sign."""
    tensor, x = any_blocks(6, rows, cols, block), normal(2, n, cols)
    x[0] = np.where(x[0] < 0, -1, 1)
    y = matmul(tensor, x, block, isa)
    expected = emulate_supers(tensor, x)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("n", "rows", "cols"), [(1, 130, 544), (2, 33, 32), (19, 50, 768), (150, 40, 96), (13, 20, 320)]
)
@pytest.mark.parametrize("block", LEVELS)
def test_any_numbers_and_levels(isa: str, block: str, n: int, rows: int, cols: int) -> None:
    """The same for types with a scale for each block, whose rows may end anywhere in eight."""
    tensor, x = any_blocks(6, rows, cols, block), normal(2, n, cols)
    x[0] = np.where(x[0] < 0, -1, 1)
    y = matmul(tensor, x, block, isa)
    expected = emulate_numbers(tensor, x)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("numbers", [0x00, 0x77, 0xFF])
@pytest.mark.parametrize("block", LEVELS)
def test_largest_levels_do_not_saturate(isa: str, block: str, numbers: int) -> None:
    """All weights of a row and all activations as large as they can be, of either sign."""
    form = blocks.get(block)
    data = np.full((32, 256 // 32, form.block_bytes), numbers, np.uint8)
    for i in range(32):
        scale = np.array([1.999, -1.999][i % 2], np.float16)
        data[i, :, : 1 if block == "MXFP4" else 2] = 127 if block == "MXFP4" else scale.view("2u1")
        if block in ("Q4_1", "Q5_1"):
            data[i, :, 2:4] = (scale * [1, -1][i // 2 % 2]).view("2u1")
    tensor = Tensor("w", (32, 256), block, data.reshape(-1))
    x = np.ones((20, 256), np.float32) * np.where(np.arange(20) % 2, 1, -1)[:, None]
    y = matmul(tensor, x.astype(np.float32), block, isa)
    plain = x @ tensor.to_float32().T
    np.testing.assert_allclose(y, plain, rtol=3e-3, atol=1e-3 * np.abs(plain).max())
    np.testing.assert_array_equal(y, matmul(tensor, x.astype(np.float32), block, "reference"))


def test_scales_of_mxfp4_are_kept(isa: str) -> None:
    """Powers of two down to the 1024th of the largest of eight: products are what they are."""
    tensor, x = any_blocks(3, 40, 512, "MXFP4"), normal(2, 20, 512)
    records = tensor.data.reshape(-1, 17)
    records[:, 0] = np.random.default_rng(4).integers(117, 128, len(records))
    records[::8, 0] = 127
    xq, xs = quantise(x, SUPER * BLOCK)
    rounded = (xq * xs[..., None].astype(np.float64)).reshape(x.shape)
    exact = rounded @ tensor.to_float32().T
    y = matmul(tensor, x, "MXFP4", isa)
    np.testing.assert_allclose(y, exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


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
    cols=st.integers(1, 400),
    block=st.sampled_from(["F32", "F16", "BF16", "Q8_0", "Q4_0", *NUMBERS, "IQ4_NL", "MXFP4"]),
    seed=st.integers(0, 2**31),
)
def test_every_instruction_set_gives_the_same_bits(
    n: int, rows: int, cols: int, block: str, seed: int
) -> None:
    size = blocks.get(block).block_size
    cols = -(-cols // size) * size
    weights: Floats | Tensor = normal(seed, rows, cols)
    if block in ("IQ4_NL", "MXFP4"):
        weights = any_blocks(seed, rows, cols, block)
    x = normal(seed + 1, n, cols)
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
