"""Weights into panels and back: nothing is lost, and quantising is ggml's to the byte."""

from __future__ import annotations

import os
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.engine import blocks
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError
from fireside.engine.executors import Quant, native_weights
from fireside.engine.executors.native_library import choose_isa, load
from fireside.engine.executors.native_weights import NativeWeights, pack, packed_kind, unpack
from fireside.engine.plan import MatMul, Plan, PlanBuilder
from tests.models import random_tensor
from tests.native.steps import Floats

NUMBERS = ("Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")  # packed as the file has them
ONLY_READ = ("Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4")  # these too
FORMATS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", *NUMBERS)
TYPES = {"Q8_0": gguf.GGMLQuantizationType.Q8_0, "Q4_0": gguf.GGMLQuantizationType.Q4_0}


def packed_weights(
    tensors: list[Tensor], quant: Quant, isa: str, threads: int = 1
) -> NativeWeights:
    """A stacked matrix after packing."""
    cols = tensors[0].shape[1]
    rows = sum(tensor.shape[0] for tensor in tensors)
    names = tuple(tensor.name for tensor in tensors)
    b = PlanBuilder()
    x, out = b.buffer("x", cols), b.buffer("out", rows)
    b.add(MatMul(names, x, out))
    plan = Plan(tuple(b.ops), out, 1, 1, 16, b.buffers)
    config = ModelConfig("llama", cols, 1, 1, 1, 1, rows, 16, 16)
    by_name = {tensor.name: tensor for tensor in tensors}
    checkpoint = Checkpoint(Path("test"), "test", "test", config, by_name, None)
    return pack(plan, checkpoint, quant, choose_isa(isa)[1], threads, None)


def packed_rows(tensors: list[Tensor], quant: Quant, isa: str, threads: int = 1) -> Floats:
    """The rows of a stacked matrix after packing, as floats."""
    weights = packed_weights(tensors, quant, isa, threads)
    groups = weights.groups.values()
    return np.concatenate([unpack(weights, packed, 0, packed.rows) for packed in groups])


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def any_blocks(seed: int, rows: int, cols: int, block: str) -> Tensor:
    """A tensor of random bytes, but for scales, which are halfs of all sizes and both signs."""
    rng = np.random.default_rng(seed)
    form = blocks.get(block)
    data = rng.integers(0, 256, blocks.nbytes(form, rows * cols)).astype(np.uint8)
    halfs = {
        **{"Q2_K": (80, 82), "Q3_K": (108,), "Q6_K": (208,), "MXFP4": ()},
        **dict.fromkeys(("Q8_0", "Q4_0", "Q5_0", "IQ4_NL", "IQ4_XS"), (0,)),
    }.get(block, (0, 2))
    records = data.reshape(-1, form.block_bytes)
    if block == "MXFP4":  # the powers of two that a half can hold
        records[:, 0] = rng.integers(128 - 24, 128 + 16, len(records))
    for at in halfs:
        exponents = rng.integers(-20, 6, len(records))
        scales = (rng.standard_normal(len(records)) * 2.0**exponents).astype(np.float16)
        records[:, at : at + 2] = scales[:, None].view(np.uint8)
    return Tensor("w", (rows, cols), block, data)


@pytest.mark.parametrize("block", FORMATS)
@pytest.mark.parametrize("rows", [1, 16, 50])
def test_packing_loses_nothing(isa: str, block: str, rows: int) -> None:
    tensor = random_tensor("w", normal(3, rows, 512), block)
    assert tensor.block == block
    np.testing.assert_array_equal(packed_rows([tensor], "none", isa), tensor.to_float32())


@pytest.mark.parametrize("block", ["Q8_0", "Q4_0", *NUMBERS, *ONLY_READ])
def test_any_blocks_are_kept(isa: str, block: str) -> None:
    tensor = any_blocks(1, 37, 768, block)
    np.testing.assert_array_equal(packed_rows([tensor], "none", isa), tensor.to_float32())


@pytest.mark.parametrize("block", [*FORMATS, *ONLY_READ])
def test_memory_is_about_that_of_the_file(block: str) -> None:
    tensor = any_blocks(2, 1024, 1024, block) if block[0] in "QIM" else None
    tensor = tensor or random_tensor("w", normal(2, 1024, 1024), block)
    weights = packed_weights([tensor], "none", "reference")
    more = 1.2 if block == "Q2_K" else 1.09 if block in ONLY_READ else 1.05
    assert tensor.nbytes <= weights.nbytes < more * tensor.nbytes


@pytest.mark.parametrize("cols", [1, 31, 36, 50])
@pytest.mark.parametrize("block", ["F32", "F16"])
def test_rows_of_any_length(isa: str, block: str, cols: int) -> None:
    tensor = random_tensor("w", normal(4, 37, cols), block)
    np.testing.assert_array_equal(packed_rows([tensor], "none", isa), tensor.to_float32())


def test_stacked_weights_are_one_matrix(isa: str) -> None:
    parts = [
        random_tensor(f"w{i}", normal(i, rows, 64), "Q8_0") for i, rows in enumerate((5, 30, 7))
    ]
    whole = np.concatenate([part.to_float32() for part in parts])
    np.testing.assert_array_equal(packed_rows(parts, "none", isa, threads=3), whole)


def test_mixed_kinds_are_kept_apart(isa: str) -> None:
    """Each run of one kind is a matrix of its own, as the file has it."""
    kinds = ("Q4_K", "Q4_K", "Q6_K", "F16")
    parts = [random_tensor(f"w{i}", normal(i, 9 + i, 256), block) for i, block in enumerate(kinds)]
    weights = packed_weights(parts, "none", isa)
    assert list(weights.groups) == [("w0", "w1"), ("w2",), ("w3",)]
    assert weights.groups["w2",].kind == packed_kind(parts[2], "none")
    whole = np.concatenate([part.to_float32() for part in parts])
    np.testing.assert_array_equal(packed_rows(parts, "none", isa), whole)
    assert list(packed_weights(parts, "q8", isa).groups) == [("w0", "w1", "w2", "w3")]


@pytest.mark.parametrize("source", FORMATS)
@pytest.mark.parametrize(("quant", "block"), [("q8", "Q8_0"), ("q4", "Q4_0")])
def test_quantising_is_ggmls(isa: str, quant: Quant, block: str, source: str) -> None:
    tensor = random_tensor("w", normal(6, 40, 256) * np.geomspace(1e-3, 1e3, 40)[:, None], source)
    expected = gguf.quants.quantize(tensor.to_float32(), TYPES[block])
    if source == block:
        expected = tensor.data.reshape(40, -1)
    rows = gguf.quants.dequantize(expected, TYPES[block])
    np.testing.assert_array_equal(packed_rows([tensor], quant, isa, threads=2), rows)


@pytest.mark.parametrize("source", FORMATS)
def test_casting_to_halfs(isa: str, source: str) -> None:
    """To the nearest half, at most the largest one; what is a half already stays as it is."""
    weights = normal(6, 40, 256) * np.geomspace(1e-9, 1e5, 40)[:, None].astype(np.float32)
    tensor = random_tensor("w", weights if source[0] != "Q" else weights / 10, source)
    floats = tensor.to_float32()
    expected = floats.clip(-65504, 65504).astype(np.float16).astype(np.float32)
    if source == "F16":
        expected = floats
    np.testing.assert_array_equal(packed_rows([tensor], "f16", isa), expected)


@pytest.mark.parametrize("cols", [1, 31, 50])
def test_casting_rows_of_any_length(isa: str, cols: int) -> None:
    tensor = random_tensor("w", normal(7, 37, cols))
    expected = tensor.to_float32().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(packed_rows([tensor], "f16", isa), expected)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=32, max_size=32),
    quant=st.sampled_from(["q8", "q4"]),
)
def test_quantising_awkward_blocks(values: list[float], quant: Quant) -> None:
    weights = np.array([values], np.float32)
    kind = TYPES["Q8_0" if quant == "q8" else "Q4_0"]
    if 0 < np.abs(weights).max() < 1e-35:
        return  # the inverse of the scale is no number: nothing to agree on
    rows = gguf.quants.dequantize(gguf.quants.quantize(weights, kind), kind)
    for isa in ("reference", choose_isa()[0]):
        np.testing.assert_array_equal(packed_rows([random_tensor("w", weights)], quant, isa), rows)


@pytest.mark.parametrize("quant", ["q8", "q4"])
def test_a_short_last_block_is_filled_with_zeros(isa: str, quant: Quant) -> None:
    weights = normal(7, 20, 50)
    padded = np.zeros((20, 64), np.float32)
    padded[:, :50] = weights
    whole = packed_rows([random_tensor("w", padded)], quant, isa)
    short = packed_rows([random_tensor("w", weights)], quant, isa)
    np.testing.assert_array_equal(short, whole[:, :50])


def test_values_that_are_not_finite_do_no_harm(isa: str) -> None:
    weights = normal(8, 4, 64)
    weights[0, 3], weights[1, 40], weights[2] = np.nan, np.inf, 1e-42
    for quant in ("q8", "q4"):
        assert packed_rows([random_tensor("w", weights)], quant, isa).shape == weights.shape


def raw(tensors: list[Tensor], quant: Quant, isa: str, threads: int) -> bytes:
    """All bytes of what packing makes."""
    weights = packed_weights(tensors, quant, isa, threads)
    ffi, _, _ = load()
    return bytes(ffi.buffer(weights.data, weights.nbytes))


@pytest.mark.parametrize("quant", ["none", "f16", "q8", "q4"])
@pytest.mark.parametrize("block", FORMATS)
@pytest.mark.parametrize("cols", [1, 32, 50, 352, 512])
def test_from_a_file_as_from_memory(
    tmp_path: Path, isa: str, cols: int, block: str, quant: Quant
) -> None:
    """Stacked tensors whose rows begin and end within panels; pieces smaller than a tensor."""
    parts = [
        random_tensor(f"w{i}", normal(i, rows, cols), block)
        for i, rows in enumerate((5, 700, 1, 16, 31))
    ]
    if any(part.block != block for part in parts):
        return  # rows that are no whole blocks
    path = tmp_path / "weights"
    path.write_bytes(b"head" + b"".join(part.data.tobytes() for part in parts))
    source, start, in_file = Source(path), 4, []
    for part in parts:
        in_file.append(FileTensor(part.name, part.shape, part.block, source, start))
        start += part.nbytes
    expected = raw(parts, quant, "reference", 1)
    assert raw(parts, quant, isa, 2) == expected
    assert raw(list(in_file), quant, isa, 3) == expected


def test_a_file_that_ends_too_early(tmp_path: Path) -> None:
    part = random_tensor("w", normal(1, 300, 64))
    path = tmp_path / "weights"
    path.write_bytes(part.data.tobytes())
    tensor = FileTensor("w", part.shape, "F32", Source(path), 0)
    os.truncate(path, part.nbytes - 1)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        packed_weights([tensor], "q8", choose_isa()[0], 2)


def test_a_file_that_is_written_to_meanwhile(tmp_path: Path) -> None:
    part = random_tensor("w", normal(1, 300, 64))
    path = tmp_path / "weights"
    path.write_bytes(part.data.tobytes())
    tensor = FileTensor("w", part.shape, "F32", Source(path), 0)
    os.utime(path, ns=(0, 0))
    with pytest.raises(CheckpointError, match="changed while it was read"):
        packed_weights([tensor], "q8", choose_isa()[0], 2)


def test_scales_of_mxfp4_that_no_half_holds(isa: str) -> None:
    """Below 2^-24 they are 0, above 2^15 that: weights nobody has. Quantised they are not lost."""
    tensor = any_blocks(4, 16, 64, "MXFP4")
    tensor.data.reshape(-1, 17)[:, 0] = np.resize([0, 1, 103, 104, 143, 144, 200, 240], 32)
    q = np.abs(tensor.to_float32().reshape(-1, 32))
    found = packed_rows([tensor], "none", isa).reshape(-1, 32)
    np.testing.assert_array_equal(found[3:5], tensor.to_float32().reshape(-1, 32)[3:5])
    assert (found[:3] == 0).all()
    assert (np.abs(found[5:8]) == q[5:8] / 2.0 ** np.array([[1], [57], [97]])).all()
    again = packed_rows([tensor], "q8", isa).reshape(-1, 32)
    step = q[5].max() / 127
    np.testing.assert_allclose(again[5], tensor.to_float32().reshape(-1, 32)[5], atol=step)


@pytest.mark.parametrize("block", ["Q8_0_V2", "Q4_1_V1"])
def test_other_formats_go_through_floats_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: str
) -> None:
    monkeypatch.setattr(native_weights, "PIECE", 1 << 15)  # 32 rows of 256
    size = blocks.nbytes(blocks.get(block), 100 * 256)
    data = np.random.default_rng(3).integers(0, 60, size).astype(np.uint8)
    path = tmp_path / "weights"
    path.write_bytes(data.tobytes())
    in_memory = Tensor("w", (100, 256), block, data)
    in_file = FileTensor("w", (100, 256), block, Source(path), 0)
    isa = choose_isa()[0]
    assert raw([in_file], "q8", isa, 2) == raw([in_memory], "q8", isa, 2)


@pytest.mark.parametrize("quant", ["none", "q4"])
def test_many_at_once_are_packed_as_one_after_another(
    monkeypatch: pytest.MonkeyPatch, isa: str, quant: Quant
) -> None:
    """Those that begin within a panel wait for what is before them in it."""
    rows = (16, 704, 32, 5, 11, 16, 48, 3, 1, 80)
    parts = [random_tensor(f"w{i}", normal(i, n, 352), "Q8_0") for i, n in enumerate(rows)]
    at_once = [raw(parts, quant, isa, threads) for threads in (1, 2, 3)]
    monkeypatch.setattr(native_weights, "AT_ONCE", -1)
    assert at_once == [raw(parts, quant, "reference", 1)] * 3


def test_of_many_at_once_the_file_that_fails_is_named(tmp_path: Path) -> None:
    tensors: list[Tensor] = []
    for i in range(4):
        part = random_tensor(f"w{i}", normal(i, 32, 64))
        path = tmp_path / f"part{i}"
        path.write_bytes(part.data.tobytes())
        tensors.append(FileTensor(part.name, part.shape, "F32", Source(path), 0))
    os.truncate(tmp_path / "part2", 100)
    for threads in (1, 3):
        with pytest.raises(CheckpointError, match="part2: the file changed while it was read"):
            packed_weights(tensors, "none", choose_isa()[0], threads)
