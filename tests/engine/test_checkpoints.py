from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.engine import checkpoints
from fireside.engine.checkpoints import open_checkpoint
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError
from tests.model_files import llama2c
from tests.models import random_checkpoint
from tests.shared import SHARED, needs_shared

CONFIGS = {
    # dim, hidden, layers, heads, kv heads, vocab, context, head_dim
    "plain": ModelConfig("llama", 64, 96, 2, 4, 4, 80, 32, 16),
    "grouped": ModelConfig("llama", 96, 128, 3, 6, 2, 100, 7, 16),
    "multi-query": ModelConfig("llama", 64, 172, 2, 8, 1, 66, 16, 8),
    "odd": ModelConfig("llama", 36, 50, 2, 6, 3, 67, 9, 6),
    "one of each": ModelConfig("llama", 2, 1, 1, 1, 1, 1, 1, 2),
}
STORIES = "fixtures/stories260K"


def written(folder: Path, checkpoint: Checkpoint, version: int, group_size: int = 0) -> Path:
    path = folder / f"v{version}.bin"
    path.write_bytes(llama2c(checkpoint, version, group_size))
    return path


@pytest.mark.parametrize("shape", CONFIGS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("version", [0, 1])
def test_llama2c_floats_come_back(tmp_path: Path, shape: str, tied: bool, version: int) -> None:
    original = random_checkpoint(CONFIGS[shape], 1, tied=tied)
    opened = open_checkpoint(written(tmp_path, original, version))
    assert opened.config == CONFIGS[shape]
    assert opened.format == f"llama2.c v{version}"
    assert (opened.name, opened.tied, opened.vocabulary) == (f"v{version}", tied, None)
    assert opened.tensors.keys() == original.tensors.keys()
    for name, tensor in original.tensors.items():
        assert opened.tensors[name].shape == tensor.shape
        assert np.array_equal(opened.tensors[name].to_float32(), tensor.to_float32())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("shape", "group_size"),
    [("plain", 64), ("grouped", 32), ("multi-query", 32), ("odd", 4), ("odd", 1), ("odd", 12)],
)
def test_llama2c_groups_come_back(tmp_path: Path, shape: str, group_size: int, tied: bool) -> None:
    config = replace(CONFIGS[shape], vocab_size=72) if group_size == 12 else CONFIGS[shape]
    original = random_checkpoint(config, 2, tied=tied)
    opened = open_checkpoint(written(tmp_path, original, 2, group_size))
    assert opened.config == config
    assert opened.metadata["group_size"] == group_size
    for name, tensor in original.tensors.items():
        expected, actual = tensor.to_float32(), opened.tensors[name].to_float32()
        if len(tensor.shape) == 1:
            assert np.array_equal(actual, expected)
        else:
            # groups run over row ends, so the error is bounded by the whole tensor's largest
            assert np.abs(actual - expected).max() <= np.abs(expected).max() / 127 / 2 * 1.01
            assert opened.tensors[name].block == f"Q8_GROUP{group_size}"


def test_tensors_are_read_when_asked_for_and_never_kept(tmp_path: Path) -> None:
    path = written(tmp_path, random_checkpoint(CONFIGS["plain"], 3), 1)
    tensors = list(open_checkpoint(path).tensors.values())
    for tensor in tensors:
        first, second = tensor.data, tensor.data
        assert first.nbytes == tensor.nbytes
        assert not first.flags.writeable
        assert np.array_equal(first, second)
        assert not np.shares_memory(first, second)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_a_file_cut_short_after_it_was_opened(tmp_path: Path) -> None:
    path = written(tmp_path, random_checkpoint(CONFIGS["plain"], 3), 1)
    tensors = list(open_checkpoint(path).tensors.values())
    os.truncate(path, path.stat().st_size - 1)
    assert tensors[0].data.nbytes == tensors[0].nbytes
    last = max(tensors, key=lambda tensor: tensor.start)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        _ = last.data


@pytest.mark.parametrize(("version", "group_size"), [(0, 0), (1, 0), (2, 32)])
def test_the_size_must_be_exact(tmp_path: Path, version: int, group_size: int) -> None:
    data = llama2c(random_checkpoint(CONFIGS["plain"], 4), version, group_size)
    path = tmp_path / "model.bin"
    for wrong in (data[:-1], data[:-4], data + b"\0", data + b"\0" * 4, data[:300]):
        path.write_bytes(wrong)
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(path)
        assert f"{len(wrong):,} bytes, expected {len(data):,}" in str(caught.value)
        assert str(path) in str(caught.value)


V1 = llama2c(random_checkpoint(CONFIGS["plain"], 5), 1)
FIELD_AT = {name: 8 + 4 * i for i, name in enumerate(("dim", "hidden_dim", "n_layers", "n_heads"))}
FIELD_AT |= {"n_kv_heads": 24, "vocab_size": 28, "seq_len": 32}


@pytest.mark.parametrize("field", FIELD_AT)
@pytest.mark.parametrize("value", [0, -1, -(2**31), 2**31 - 1])
def test_a_number_out_of_range_is_named(tmp_path: Path, field: str, value: int) -> None:
    data = bytearray(V1)
    struct.pack_into("<i", data, FIELD_AT[field], value)
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"{field} is {value}, expected"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("at", "form", "value", "message"),
    [
        (4, "i", 3, "llama2.c version 3"),
        (4, "i", -1, "llama2.c version -1"),
        (8, "i", 63, "multiple of n_heads"),
        (20, "i", 64, "head size is 1"),
        (24, "i", 3, "multiple of n_kv_heads"),
        (36, "B", 2, "shared_classifier is 2"),
    ],
)
def test_what_is_wrong_with_a_header(
    tmp_path: Path, at: int, form: str, value: int, message: str
) -> None:
    data = bytearray(V1)
    struct.pack_into("<" + form, data, at, value)
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("group_size", "message"),
    [(0, "group_size"), (-4, "group_size"), (2**31 - 1, "group_size"), (7, "whole groups of 7")],
)
def test_group_sizes_that_cannot_be(tmp_path: Path, group_size: int, message: str) -> None:
    data = bytearray(llama2c(random_checkpoint(CONFIGS["plain"], 6), 2, 32))
    struct.pack_into("<i", data, 37, group_size)
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def test_the_early_order_of_version_2_is_refused(tmp_path: Path) -> None:
    """All values, then all scales: same header, same size, other places."""
    config = CONFIGS["grouped"]
    data = llama2c(random_checkpoint(config, 7), 2, 32)
    norms_end = 256 + 4 * config.dim * (2 * config.n_layers + 1)
    values, scales, position = b"", b"", norms_end
    opened_shapes = random_checkpoint(config, 7).tensors.values()
    counts = [t.count for t in opened_shapes if len(t.shape) == 2]
    embedding, *rest = counts
    kinds = len(rest) // config.n_layers
    by_kind = [rest[i * kinds + k] for k in range(kinds) for i in range(config.n_layers)]
    for count in (embedding, *by_kind):
        values += data[position : position + count]
        scales += data[position + count : position + count + count // 8]
        position += count + count // 8
    assert position == len(data)
    path = tmp_path / "model.bin"
    path.write_bytes(data[:norms_end] + values + scales)
    with pytest.raises(CheckpointError, match="no sound scales"):
        open_checkpoint(path)


@given(
    heads=st.integers(1, 4),
    per_group=st.integers(1, 3),
    half_head=st.integers(1, 5),
    hidden=st.integers(1, 40),
    layers=st.integers(1, 3),
    vocab=st.integers(1, 50),
    context=st.integers(1, 9),
    tied=st.booleans(),
    version=st.sampled_from([0, 1, 2]),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_shape_is_read_back(
    tmp_path: Path, heads: int, per_group: int, half_head: int, hidden: int, layers: int,
    vocab: int, context: int, tied: bool, version: int,
) -> None:  # fmt: skip
    n_heads, head_dim = heads * per_group, 2 * half_head
    config = ModelConfig(
        "llama", n_heads * head_dim, hidden, layers, n_heads, heads, vocab, context, head_dim
    )
    original = random_checkpoint(config, 8, tied=tied)
    opened = open_checkpoint(written(tmp_path, original, version, 2))
    assert opened.config == config
    assert opened.tied == tied
    for name, tensor in original.tensors.items():
        atol = 0 if version < 2 else float(np.abs(tensor.to_float32()).max()) / 120
        np.testing.assert_allclose(
            opened.tensors[name].to_float32(), tensor.to_float32(), rtol=0, atol=atol
        )


@needs_shared(STORIES)
def test_the_three_versions_of_stories260k_hold_the_same_weights() -> None:
    folder = SHARED / STORIES
    v0 = open_checkpoint(folder / "stories260K.bin")
    v1 = open_checkpoint(folder / "stories260K_v1.bin")
    v2 = open_checkpoint(folder / "stories260K_q80_group64.bin")
    assert v0.config == v1.config == v2.config
    assert v0.config == ModelConfig("llama", 64, 172, 5, 8, 4, 512, 512, 8)
    assert (v0.format, v1.format, v2.format) == tuple(f"llama2.c v{i}" for i in range(3))
    assert v0.parameters == 260_032
    for name, tensor in v0.tensors.items():
        weights = tensor.to_float32()
        assert np.array_equal(weights, v1.tensors[name].to_float32()), name
        distance = np.abs(weights - v2.tensors[name].to_float32()).max()
        assert distance <= np.abs(weights).max() / 127 / 2 * 1.01, name


# ---- what is no model at all


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.bin: no such file"):
        open_checkpoint(tmp_path / "nowhere.bin")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder, not a model file"):
        open_checkpoint(tmp_path)


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="cannot be read"):
        open_checkpoint(tmp_path / "file" / "model.bin")


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_paths_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path / name)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    with pytest.raises(CheckpointError, match="empty"):
        open_checkpoint(tmp_path / "model.bin")


@pytest.mark.skipif(os.name != "posix", reason="named pipes and /dev are POSIX")
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="not a regular file"):
            open_checkpoint(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads anything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(V1)
    path.chmod(0)
    with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"Once upon a time there was a file that was no model.", "this version reads"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
        (b"\0" * 1000, "this version reads"),
        (b"\xff" * 1000, "this version reads"),
        (b"ak", "this version reads"),
    ],
)
def test_files_of_other_kinds(tmp_path: Path, content: bytes, hint: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a model file of a known format") as caught:
        open_checkpoint(path)
    assert hint in caught.value.hint


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "story.gguf"
    path.write_bytes(V1)
    assert open_checkpoint(path).format == "llama2.c v1"


def test_a_new_format_is_an_entry_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints.names()  # a reader is imported when it is asked for: now all of them are
    monkeypatch.setattr(checkpoints, "_REGISTRY", dict(checkpoints._REGISTRY))
    model = random_checkpoint(CONFIGS["plain"], 9)
    ours = checkpoints.Format("folders", lambda path, head: path.is_dir(), lambda path: model)
    checkpoints.register(ours)
    assert open_checkpoint(tmp_path) is model
    assert checkpoints.names()[-1] == "folders"
    with pytest.raises(RuntimeError, match="twice"):
        checkpoints.register(ours)


@pytest.mark.parametrize("change", ["missing", "shape", "extra"])
def test_the_weights_must_be_those_of_the_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    model = random_checkpoint(CONFIGS["plain"], 10)
    tensors = dict(model.tensors)
    norm = tensors["output_norm.weight"]
    if change == "missing":
        del tensors["output_norm.weight"]
    elif change == "shape":
        tensors["output_norm.weight"] = replace(norm, shape=(65,))
    else:
        tensors["blk.0.attn_q.bias"] = norm
    model = replace(model, tensors=tensors)
    monkeypatch.setattr(checkpoints, "_REGISTRY", {})
    checkpoints.register(checkpoints.Format("folders", lambda *_: True, lambda _: model))
    expected = UnsupportedError if change == "extra" else CheckpointError
    name = "blk.0.attn_q.bias" if change == "extra" else "output_norm.weight"
    with pytest.raises(expected, match=name):
        open_checkpoint(tmp_path)
