"""ggml's Llama files of before GGUF, made here byte by byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants

from fireside.engine import blocks, load
from fireside.engine.checkpoints import gguf_writer, open_checkpoint
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers import read_vocabulary
from tests.formats_table import LEGACY, Checked
from tests.gguf_models import CONFIG, VOCABULARY, model
from tests.model_files import LEGACY_BLOCKS, ggml_legacy, legacy_block
from tests.models import random_tensor

KINDS = ["ggml", "ggmf 1", "ggjt 1", "ggjt 2", "ggjt 3"]
QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def by_gguf_py(tensor: Tensor) -> np.ndarray:
    """The values of a tensor of today's types."""
    kind = GGMLQuantizationType[tensor.block]
    data = tensor.data
    if kind == GGMLQuantizationType.F32:
        return data.view(np.float32).reshape(tensor.shape)
    raw = data.view(np.float16) if kind == GGMLQuantizationType.F16 else data
    return quants.dequantize(raw.reshape(tensor.shape[0], -1), kind).reshape(tensor.shape)


def opened(tmp_path: Path, kind: str, block: str = "F32") -> tuple[Checkpoint, Checkpoint]:
    original = model(block=block, tied=False)
    path = tmp_path / "model.bin"
    path.write_bytes(ggml_legacy(original, kind))
    return open_checkpoint(path), original


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", ["F32", "F16"])
def test_floats_are_read_from_every_version(
    tmp_path: Path, kind: str, block: str, checked: Checked
) -> None:
    checked(LEGACY, "llama", kind, block, "gguf-py: every value")
    checkpoint, original = opened(tmp_path, kind, block)
    assert checkpoint.config == replace(CONFIG, context_length=2048, norm_eps=5e-6)
    assert checkpoint.format == ("ggml" if kind == "ggml" else kind.replace(" ", " v"))
    assert checkpoint.tensors.keys() == original.tensors.keys()
    for name, expected in original.tensors.items():
        assert np.array_equal(checkpoint.tensors[name].data, expected.data)
        assert np.array_equal(expected.to_float32(), by_gguf_py(expected))


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("block", QUANTISED)
def test_every_version_has_its_own_blocks(
    tmp_path: Path, kind: str, block: str, checked: Checked
) -> None:
    """The weights are those of today's blocks, whose scales were written in f32."""
    checked(LEGACY, "llama", kind, block, "gguf-py: every value")
    checkpoint, original = opened(tmp_path, kind, block)
    sizes = {name: t.nbytes for name, t in original.tensors.items()}
    changed = False
    for name, expected in original.tensors.items():
        actual = checkpoint.tensors[name]
        assert np.array_equal(actual.to_float32(), by_gguf_py(expected))
        changed |= actual.nbytes != sizes[name]
    old_scales = kind != "ggjt 3" and not block.startswith("Q5")
    assert changed == old_scales


@pytest.mark.parametrize("name", sorted(set(LEGACY_BLOCKS.values())))
def test_old_blocks_by_their_definition(name: str) -> None:
    """Weight by weight, from the bytes."""
    block_format = blocks.get(name)
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, block_format.block_bytes * 50, np.uint8)
    one = data.reshape(50, -1)
    half = name.startswith("Q5")
    scale = rng.standard_normal((50, 2)).astype("<f2" if half else "<f4")
    has_low = "_1_" in name
    head = scale[:, : 1 + has_low].view(np.uint8)
    one[:, : head.shape[1]] = head
    expected = legacy_block(name, one, scale.astype(np.float32))
    np.testing.assert_array_equal(block_format.dequantise(data, 1600), expected.reshape(-1))
    with pytest.raises(UnsupportedError, match="only reads"):
        block_format.quantise(np.zeros(32, np.float32))


def test_the_vocabulary_is_that_of_the_file(tmp_path: Path) -> None:
    checkpoint, _ = opened(tmp_path, "ggjt 3")
    vocabulary = checkpoint.vocabulary
    assert vocabulary is not None
    assert vocabulary.pieces == VOCABULARY.pieces
    assert np.array_equal(vocabulary.scores, VOCABULARY.scores)
    assert np.array_equal(vocabulary.types, VOCABULARY.types)
    again = read_vocabulary(tmp_path / "model.bin")
    assert again.pieces == VOCABULARY.pieces


def test_without_scores_there_is_no_vocabulary(tmp_path: Path) -> None:
    checkpoint, _ = opened(tmp_path, "ggml")
    assert checkpoint.vocabulary is None
    with pytest.raises(UnsupportedError, match="no scores"):
        read_vocabulary(tmp_path / "model.bin")


@pytest.mark.parametrize("block", ["F32", "Q4_0", "Q8_0"])
def test_it_tells_the_same_story_as_gguf(tmp_path: Path, block: str) -> None:
    checkpoint, _ = opened(tmp_path, "ggjt 1", block)
    values = {name: as_floats(t) for name, t in checkpoint.tensors.items()}
    path = tmp_path / "same.gguf"
    gguf_writer.write_checkpoint(path, replace(checkpoint, tensors=values))
    texts = []
    for source in (tmp_path / "model.bin", path):
        loaded = load(source, threads=1)
        session = loaded.session(64)
        texts.append(session.sync(loaded.encode("once upon a time")).tobytes())
    assert texts[0] == texts[1]


def as_floats(tensor: Tensor) -> Tensor:

    return random_tensor(tensor.name, tensor.to_float32(), "F32")


def fault(tmp_path: Path, data: bytes) -> CheckpointError:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return caught.value


def test_what_is_refused(tmp_path: Path) -> None:
    c = model(tied=False)
    quantised = model(block="Q4_0", tied=False)
    good = ggml_legacy(c, "ggjt 3")
    tied = {name: t for name, t in c.tensors.items() if name != "output.weight"}
    cases = {
        "ggjt version 4": b"tjgg\x04\0\0\0" + good[8:],
        "ggmf version 2": b"fmgg\x02\0\0\0" + good[8:],
        "is quantised, in a file without a version": ggml_legacy(quantised, "ggml"),
        "output.weight is missing": ggml_legacy(replace(c, tensors=tied), "ggjt 3"),
        "n_rot is 15, expected 16": good[:28] + (15).to_bytes(4, "little") + good[32:],
        "n_vocab is 2, expected 3": good[:8] + (2).to_bytes(4, "little") + good[12:],
        "is no part of a Llama": good.replace(
            b"layers.1.ffn_norm.weight", b"layers.1.ffn_nirm.weight"
        ),
        "is there twice": good.replace(b"layers.1.ffn_norm.weight", b"layers.0.ffn_norm.weight"),
        "ends within": good[:200],
        "needs": good[:-1],
    }
    for message, data in cases.items():
        assert message in fault(tmp_path, data).message, message
