"""Types of files into one another in C: NumPy's bytes, on every instruction set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.engine import CheckpointError, UnsupportedError, blocks
from fireside.engine.blocks import native
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.executors.native_library import choose_isa
from tests.native.steps import Floats

TYPES = sorted(native.WRITTEN)
F32 = blocks.get("F32")


@pytest.fixture
def chosen(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C runs on that instruction set."""
    monkeypatch.setattr(native, "instruction_set", lambda: choose_isa(isa)[1])


def some_weights() -> Floats:
    """Blocks of all sizes, of one sign, of one value, with zeros, and less than a stretch more."""
    rng = np.random.default_rng(1)
    count = 300
    rows = rng.standard_normal((count, 256)) * 10 ** rng.uniform(-4, 3, (count, 1))
    rows[0], rows[1], rows[2] = 0, 1, -2.5
    rows[3], rows[4] = np.abs(rows[3]), -np.abs(rows[4])
    rows[5, :40], rows[6, 100:] = 0, 0
    rows[7] = rng.integers(-3, 4, 256)
    return np.concatenate([rows.reshape(-1), rng.standard_normal(256)]).astype(np.float32)


def through_numpy(stored: str, block: str, data: blocks.Bytes, count: int) -> bytes:
    return blocks.get(block).quantise(blocks.get(stored).dequantise(data, count)).tobytes()


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("block", TYPES)
def test_quantising_is_numpys_to_the_byte(block: str) -> None:
    weights = some_weights()
    form = blocks.get(block)
    found = native.converted(F32, form, weights.size, weights.view(np.uint8), 0)
    assert found.tobytes() == form.quantise(weights).tobytes()


@pytest.mark.parametrize("block", TYPES)
@pytest.mark.parametrize("stored", TYPES)
def test_every_type_from_every_type(stored: str, block: str) -> None:
    weights = some_weights()[: 40 * 256]
    data = blocks.get(stored).quantise(weights)
    found = native.converted(blocks.get(stored), blocks.get(block), weights.size, data, 0)
    assert found.tobytes() == through_numpy(stored, block, data, weights.size)


@pytest.mark.parametrize("stored", sorted(native.READ - native.WRITTEN))
def test_from_types_that_are_only_read(stored: str) -> None:
    count = 30 * 256
    size = blocks.nbytes(blocks.get(stored), count)
    data = np.random.default_rng(3).integers(0, 60, size).astype(np.uint8)  # scales are numbers
    if stored == "MXFP4":
        data.reshape(-1, 17)[:, 0] += 90
    for block in ("F32", "Q8_0"):
        found = native.converted(blocks.get(stored), blocks.get(block), count, data, 0)
        assert found.tobytes() == through_numpy(stored, block, data, count)
    assert not native.known(F32, blocks.get(stored))
    with pytest.raises(UnsupportedError):
        native.converted(F32, blocks.get(stored), 256, np.zeros(1024, np.uint8), 0)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=32, max_size=32),
    block=st.sampled_from(["Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]),
)
def test_awkward_blocks(values: list[float], block: str) -> None:
    weights = np.tile(np.array(values, np.float32), 8)
    if 0 < np.abs(weights[weights != 0]).min(initial=1) < 1e-15:
        return  # squares and inverses of numbers that are none
    form = blocks.get(block)
    found = native.converted(F32, form, 256, weights.view(np.uint8), 0)
    assert form.dequantise(found, 256).tobytes() == (
        form.dequantise(form.quantise(weights), 256).tobytes()
    )


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize("block", TYPES)
def test_weights_that_are_not_finite_do_no_harm(block: str) -> None:
    weights = some_weights()[: 8 * 256]
    weights[5], weights[300], weights[600:650], weights[1100] = np.nan, np.inf, 1e-42, -np.inf
    found = native.converted(F32, blocks.get(block), weights.size, weights.view(np.uint8), 0)
    rest = slice(3 * 256 if block != "F32" else 0, 4 * 256)  # a block without them
    expected = blocks.get(block).quantise(weights[rest])
    start = blocks.nbytes(blocks.get(block), rest.start)
    assert found[start : start + expected.size].tobytes() == expected.tobytes()


def test_from_a_file(tmp_path: Path) -> None:
    weights = np.random.default_rng(2).standard_normal(200_000 // 256 * 256).astype(np.float32)
    path = tmp_path / "weights"
    path.write_bytes(b"head" + weights.tobytes())
    tensor = FileTensor("w", weights.shape, "F32", Source(path), 4)
    form = blocks.get("Q5_K")
    half = weights.size // 512 * 256
    parts = [native.converted(F32, form, half, tensor, 0)]
    parts.append(native.converted(F32, form, weights.size - half, tensor, 4 * half))
    assert np.concatenate(parts).tobytes() == form.quantise(weights).tobytes()
    os.truncate(path, 4 * weights.size)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        native.converted(F32, form, weights.size, tensor, 0)


def test_weights_that_are_no_whole_blocks_are_refused() -> None:
    with pytest.raises(UnsupportedError):
        native.converted(F32, blocks.get("Q4_K"), 255, np.zeros(4 * 255, np.uint8), 0)
