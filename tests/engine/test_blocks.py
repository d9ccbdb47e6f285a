from __future__ import annotations

import warnings

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.blocks.ggml import GgmlFormat
from fireside.engine.errors import UnsupportedError
from tests.formats_table import GGUF, Checked

QUANTISED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")  # gguf-py can write these
K_QUANTS = {"Q4_K": 0.075, "Q5_K": 0.038, "Q6_K": 0.019}  # relative error on a normal distribution
READ_ONLY = ("Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4")
RECORDS = (*QUANTISED, *K_QUANTS, *READ_ONLY)
WRITABLE = ("F32", "F16", "BF16", *QUANTISED, *K_QUANTS)
BLOCKS_OF_32 = arrays(
    np.float32,
    st.integers(1, 6).map(lambda n: (n, 32)),
    elements=st.floats(-60000, 60000, width=32),
)


def random_weights(rows: int = 300, columns: int = 96) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    weights = rng.standard_normal((rows, columns)) * rng.lognormal(0, 4, (rows, 1))
    weights[3] = 0  # a row whose scale is zero
    weights[4, :] = 2.5  # every weight is the largest
    weights[5, 1::2] *= -1
    return weights.astype(np.float32)


@pytest.mark.parametrize("name", QUANTISED)
def test_quantise_is_gguf_pys_byte_for_byte(name: str) -> None:
    weights = random_weights()
    expected = quants.quantize(weights, GGMLQuantizationType[name])
    assert np.array_equal(blocks.get(name).quantise(weights), expected.reshape(-1))


@pytest.mark.parametrize("name", QUANTISED)
@given(weights=BLOCKS_OF_32)
def test_quantise_is_gguf_pys_on_anything(name: str, weights: NDArray[np.float32]) -> None:
    with np.errstate(all="ignore"):
        expected = quants.quantize(weights, GGMLQuantizationType[name])
    assert np.array_equal(blocks.get(name).quantise(weights), expected.reshape(-1))


@pytest.mark.parametrize("name", RECORDS)
def test_dequantise_is_gguf_pys_value_for_value(name: str, checked: Checked) -> None:
    checked(GGUF, "any", "weights alone", name, "gguf-py: every value")
    block_format = blocks.get(name)
    assert isinstance(block_format, GgmlFormat)
    raw = np.random.default_rng(6).integers(0, 256, (999, block_format.block_bytes), np.uint8)
    records = raw.reshape(-1).view(block_format.dtype)
    for field in {"d", "dmin", "m"} & set(block_format.dtype.names or ()):
        records[field] = np.random.default_rng(7).standard_normal(999)  # no infinities, no NaN
    with np.errstate(all="ignore"):
        expected = quants.dequantize(raw, GGMLQuantizationType[name]).reshape(-1)
    actual = block_format.dequantise(raw.reshape(-1), expected.size)
    assert actual.dtype == np.float32
    assert np.array_equal(actual, expected)


@given(weights=BLOCKS_OF_32)
def test_brain_floats_are_gguf_pys(weights: NDArray[np.float32]) -> None:
    weights.reshape(-1)[:3] = np.inf, -np.inf, np.nan
    brain = blocks.get("BF16")
    data = brain.quantise(weights)
    assert np.array_equal(data, quants.quantize(weights, GGMLQuantizationType.BF16).reshape(-1))
    expected = quants.dequantize(data, GGMLQuantizationType.BF16)
    assert np.array_equal(brain.dequantise(data, weights.size), expected, equal_nan=True)


@pytest.mark.parametrize(("name", "bound"), K_QUANTS.items())
def test_k_quants_are_close_to_the_weights(name: str, bound: float) -> None:
    rng = np.random.default_rng(10)
    weights = (rng.standard_normal((64, 512)) * rng.lognormal(0, 2, (64, 1))).astype(np.float32)
    block_format = blocks.get(name)
    back = block_format.dequantise(block_format.quantise(weights), weights.size)
    off = np.sqrt(((back.reshape(weights.shape) - weights) ** 2).mean(1))
    assert (off / weights.std(1) < bound * 1.1).all()


@pytest.mark.parametrize("name", K_QUANTS)
def test_k_quants_of_what_they_can_hold_are_exact(name: str) -> None:
    block_format = blocks.get(name)
    for weights in (np.zeros(512), np.full(512, -1.0), np.tile([0.0, 1.0], 256)):
        back = block_format.dequantise(block_format.quantise(weights.astype(np.float32)), 512)
        np.testing.assert_allclose(back, weights, atol=2e-3)


@pytest.mark.parametrize("name", READ_ONLY)
def test_formats_that_are_only_read_say_so(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"stored as {name}"):
        blocks.get(name).quantise(np.ones(256, np.float32))


@pytest.mark.parametrize("name", QUANTISED)
def test_more_blocks_than_are_worked_on_at_once(name: str) -> None:
    weights = np.random.default_rng(7).standard_normal(32 * 40_000).astype(np.float32)
    block_format = blocks.get(name)
    whole = block_format.quantise(weights)
    parts = np.concatenate([block_format.quantise(part) for part in np.split(weights, 10)])
    assert np.array_equal(whole, parts)


@pytest.mark.parametrize(("name", "step"), [("Q8_0", 1 / 127), ("Q4_0", 1 / 8)])
def test_error_is_within_a_step(name: str, step: float) -> None:
    weights = random_weights()
    block_format = blocks.get(name)
    back = block_format.dequantise(block_format.quantise(weights), weights.size)
    rows = weights.reshape(-1, 32)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    # generous: half a step, plus the rounding of the scale to half precision, which is coarse
    # for the tiniest
    assert (np.abs(back.reshape(rows.shape) - rows) <= largest * step * 1.02 + 1e-5).all()


def test_float32_is_a_view_and_exact() -> None:
    weights = random_weights()
    data = blocks.get("F32").quantise(weights)
    back = blocks.get("F32").dequantise(data, weights.size)
    assert np.array_equal(back, weights.reshape(-1))
    assert np.shares_memory(back, data)


def test_float16_widens_exactly_and_overflows_quietly() -> None:
    weights = np.array([1.5, -0.0, 65504, 1e6, 1e-8], np.float32)
    back = blocks.get("F16").dequantise(blocks.get("F16").quantise(weights), 5)
    assert back.tolist() == [1.5, -0.0, 65504, np.inf, 0]


@pytest.mark.parametrize("group_size", [1, 4, 43, 64])
def test_groups_hold_values_then_scales(group_size: int) -> None:
    block_format = blocks.get(f"Q8_GROUP{group_size}")
    weights = np.random.default_rng(8).standard_normal(group_size * 5).astype(np.float32)
    weights[:group_size] = 0
    data = block_format.quantise(weights)
    assert len(data) == blocks.nbytes(block_format, weights.size) == weights.size + 5 * 4
    scales = data[weights.size :].view("<f4")
    assert scales[0] == 0
    largest = np.abs(weights).reshape(5, -1).max(axis=1)
    np.testing.assert_allclose(scales, largest / 127, rtol=1e-6)
    back = block_format.dequantise(data, weights.size)
    assert np.abs(back - weights).max() <= largest.max() / 127 / 2 * 1.001


@pytest.mark.parametrize("name", [*blocks.names(), "Q8_GROUP4"])
def test_any_bytes_are_some_weights_without_a_warning(name: str) -> None:
    block_format = blocks.get(name)
    raw = np.random.default_rng(9).integers(0, 256, block_format.block_bytes * 5000, np.uint8)
    count = 5000 * block_format.block_size
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert block_format.dequantise(raw, count).shape == (count,)


def test_quantise_leaves_its_argument_alone() -> None:
    weights = random_weights(256)
    before = weights.copy()
    for name in (*WRITABLE, "Q8_GROUP32"):
        blocks.get(name).quantise(weights[:, :64])
    assert np.array_equal(weights, before)


def test_registry() -> None:
    assert set(blocks.names()) == {*WRITABLE, *READ_ONLY}
    for name in blocks.names():
        block_format = blocks.get(name)
        assert blocks.by_ggml_type(block_format.ggml_type) is block_format
        ggml = GGMLQuantizationType[name]
        assert block_format.ggml_type == ggml.value
    with pytest.raises(RuntimeError, match="twice"):
        blocks.register(blocks.get("F32"))
    for unknown in ("Q9_9", "Q8_GROUP", "Q8_GROUP0", "Q8_GROUP-1", "Q8_GROUP9999999999"):
        with pytest.raises(UnsupportedError, match="unknown tensor type"):
            blocks.get(unknown)
    with pytest.raises(UnsupportedError, match="whole"):
        blocks.nbytes(blocks.get("Q8_0"), 33)
