"""Conversion: what is written is the same model, in the types that were asked for."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import (
    CheckpointError,
    FiresideError,
    UnsupportedError,
    blocks,
    load,
    open_checkpoint,
    reference,
)
from fireside.engine.blocks import native
from fireside.engine.checkpoints import derived, gguf_writer, llama2c_writer, pieces
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.convert import TYPES, convert
from fireside.engine.tokenizers import from_vocabulary, read_vocabulary
from tests import model_files
from tests.model_files import small_vocabulary
from tests.models import SHAPES, VARIATIONS, random_checkpoint
from tests.shared import SHARED, needs_shared

STORIES = "fixtures/stories260K"
WIDE = replace(SHAPES["plain"], dim=256, hidden_dim=512, n_heads=8, n_kv_heads=4, head_dim=32)
TEXT = "Once upon a time there was a fox"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE", 1024)


def wide(tied: bool = True) -> Checkpoint:
    vocabulary = small_vocabulary(300)
    config = replace(WIDE, vocab_size=len(vocabulary))
    return replace(random_checkpoint(config, 1, tied=tied), vocabulary=vocabulary, name="Wide")


def written(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The same in a file, so that its tensors are read from one."""
    gguf_writer.write_checkpoint(folder / "source.gguf", checkpoint)
    return open_checkpoint(folder / "source.gguf")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", TYPES)
def test_types(kind: str, tied: bool, tmp_path: Path) -> None:
    source = written(wide(tied), tmp_path)
    path = tmp_path / "out.gguf"
    seen: list[tuple[int, int]] = []
    convert(source, path, kind=kind, threads=2, progress=lambda *both: seen.append(both))
    result = open_checkpoint(path)
    classifier = "token_embd.weight" if tied else "output.weight"
    for name, tensor in result.tensors.items():
        expected = kind if len(tensor.shape) > 1 else "F32"
        if name == classifier and kind not in ("F32", "F16", "BF16", "Q8_0"):
            expected = "Q6_K"
        assert tensor.block == expected, name
        weights = source.tensors[name].to_float32().reshape(-1)
        assert tensor.data.tobytes() == blocks.get(expected).quantise(weights).tobytes()
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert 0.9 < seen[-1][0] / seen[-1][1] <= 1
    pure = tmp_path / "pure.gguf"
    convert(source, pure, kind=kind, pure=True, threads=1)
    assert open_checkpoint(pure).tensors[classifier].block == kind
    assert result.vocabulary is not None
    assert source.vocabulary is not None
    assert result.vocabulary.pieces == source.vocabulary.pieces


def test_threads_and_kernels_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = written(wide(), tmp_path)
    for threads in (1, 3):
        convert(source, tmp_path / f"{threads}.gguf", kind="Q4_K", threads=threads)
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "3.gguf").read_bytes()
    monkeypatch.setattr(native, "instruction_set", lambda: None)
    convert(source, tmp_path / "numpy.gguf", kind="Q4_K")
    assert (tmp_path / "1.gguf").read_bytes() == (tmp_path / "numpy.gguf").read_bytes()


@pytest.mark.parametrize(
    ("kind", "instead"), [("Q4_K", "Q5_0"), ("Q5_K", "Q5_1"), ("Q6_K", "Q8_0"), ("Q4_0", "Q4_0")]
)
def test_rows_that_are_no_whole_blocks(kind: str, instead: str, tmp_path: Path) -> None:
    source = random_checkpoint(SHAPES["grouped"], 1)  # rows of 96 and 128
    convert(source, tmp_path / "a.gguf", kind=kind)
    assert open_checkpoint(tmp_path / "a.gguf").tensors["blk.0.attn_q.weight"].block == instead
    odd = random_checkpoint(SHAPES["odd"], 1)  # of 36 and 50
    convert(odd, tmp_path / "b.gguf", kind=kind)
    assert open_checkpoint(tmp_path / "b.gguf").tensors["blk.0.attn_q.weight"].block == "F16"


def test_types_stay_where_none_is_asked_for(tmp_path: Path) -> None:
    source = random_checkpoint(SHAPES["plain"], 1, "Q4_0")
    halves = {
        name: replace(t, block="BF16", data=blocks.get("BF16").quantise(t.to_float32()))
        for name, t in source.tensors.items()
        if len(t.shape) == 1
    }
    source = replace(source, tensors={**source.tensors, **halves})
    convert(source, tmp_path / "a.gguf")
    for name, tensor in open_checkpoint(tmp_path / "a.gguf").tensors.items():
        assert tensor.block == ("F32" if name in halves else "Q4_0")
        assert (tensor.to_float32() == source.tensors[name].to_float32()).all()


def test_metadata_of_gguf_files_goes_along(tmp_path: Path) -> None:
    c = wide()
    more = {
        "general.author": "Somebody",
        "general.tags": ["a", "b"],
        "general.numbers": np.array([1, 2], "<i8"),
        "general.alignment": 32,
        "tokenizer.chat_template": "{{ messages }}",
    }
    gguf_writer.write(tmp_path / "a.gguf", c.config, c.tensors, c.vocabulary, "A", None, more)
    source = open_checkpoint(tmp_path / "a.gguf")
    convert(source, tmp_path / "b.gguf", kind="Q8_0")
    result = open_checkpoint(tmp_path / "b.gguf")
    assert result.metadata["general.author"] == "Somebody"
    assert list(result.metadata["general.tags"]) == ["a", "b"]  # type: ignore[call-overload]
    assert result.metadata["general.numbers"].tolist() == [1, 2]  # type: ignore[attr-defined]
    assert result.metadata["general.file_type"] == 7
    assert result.vocabulary is not None
    assert result.vocabulary.chat_template == "{{ messages }}"
    other = replace(source, vocabulary=c.vocabulary)
    convert(other, tmp_path / "c.gguf", own_tokenizer=False)
    assert "tokenizer.chat_template" not in open_checkpoint(tmp_path / "c.gguf").metadata


@pytest.mark.parametrize("form", ["gguf", "llama2c-v0", "llama2c-v2"])
def test_rope_in_halves_is_put_in_order(form: str, tmp_path: Path) -> None:
    config = replace(SHAPES["grouped"], rope_style="half")
    source = random_checkpoint(config, 3)
    path = tmp_path / "out"
    convert(source, path, form, threads=2)
    result = open_checkpoint(path)
    assert result.config.rope_style == "interleaved"
    tokens = [1, 50, 7, 99, 3, 3, 20]
    before, after = (
        reference.forward(c.config, {n: t.to_float32() for n, t in c.tensors.items()}, tokens)
        for c in (source, result)
    )
    assert np.abs(before - after).max() < (0.2 if form == "llama2c-v2" else 1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("version", [0, 2])
def test_llama2c_files(version: int, tied: bool, tmp_path: Path) -> None:
    source = random_checkpoint(SHAPES["grouped"], 4, tied=tied)  # width 96: groups of 32
    convert(source, tmp_path / "out.bin", f"llama2c-v{version}", threads=2)
    data = (tmp_path / "out.bin").read_bytes()
    expected = model_files.llama2c(source, version, 32)
    if version == 0:  # the tables of rope: zeros there
        c = source.config
        size = 4 * c.context_length * c.head_dim
        end = len(expected) - (0 if tied else 4 * c.vocab_size * c.dim)
        tables = np.frombuffer(data[end - size : end], "<f4").reshape(2, c.context_length, -1)
        assert tables[0, 0].tolist() == [1] * (c.head_dim // 2)
        np.testing.assert_allclose((tables**2).sum(0), 1, atol=1e-6)
        data = data[: end - size] + bytes(size) + data[end:]
    assert data == expected


@pytest.mark.parametrize(
    "change",
    [{"norm_eps": 1e-6}, {"rope_theta": 5e5}, {"rope_dim": 8}, {"head_dim": 32}],
)
def test_llama2c_refuses_other_models(change: dict[str, float], tmp_path: Path) -> None:
    source = random_checkpoint(replace(SHAPES["plain"], **change), 1)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedError, match=f"whose {next(iter(change))} is"):
        convert(source, tmp_path / "out.bin", "llama2c-v0")
    biased = random_checkpoint(VARIATIONS["biases of q, k, v"], 1)
    with pytest.raises(UnsupportedError, match="qkv_bias"):
        convert(biased, tmp_path / "out.bin", "llama2c-v0")
    assert list(tmp_path.iterdir()) == []


@needs_shared(STORIES)
def test_llama2cs_own_files(tmp_path: Path) -> None:
    folder = SHARED / STORIES
    first = open_checkpoint(folder / "stories260K.bin")
    convert(first, tmp_path / "v2.bin", "llama2c-v2")
    assert (tmp_path / "v2.bin").read_bytes() == (
        folder / "stories260K_q80_group64.bin"
    ).read_bytes()
    convert(first, tmp_path / "v0.bin", "llama2c-v0")
    own, ours = (
        np.frombuffer(path.read_bytes(), "<f4")
        for path in (folder / "stories260K.bin", tmp_path / "v0.bin")
    )
    assert own.shape == ours.shape
    differ = np.flatnonzero(own != ours)  # the tables of rope alone, by a rounding
    c = first.config
    assert differ.size == 0 or differ.min() >= len(own) - c.context_length * c.head_dim
    np.testing.assert_allclose(own[7:], ours[7:], atol=1e-4)


@needs_shared(STORIES)
@pytest.mark.parametrize("name", ["stories260K.bin", "stories260K_q80_group64.bin"])
def test_the_story_stays_the_same(name: str, tmp_path: Path) -> None:
    vocabulary = read_vocabulary(SHARED / STORIES / "tok512.bin")
    source = replace(open_checkpoint(SHARED / STORIES / name), vocabulary=vocabulary)
    convert(source, tmp_path / "a.gguf", kind="F32")
    expected = {n: t.to_float32() for n, t in source.tensors.items()}
    result = load(tmp_path / "a.gguf")
    assert all(
        (tensor.to_float32() == expected[n]).all()
        for n, tensor in result.checkpoint.tensors.items()
    )
    assert result.encode(TEXT) == from_vocabulary(vocabulary).encode(TEXT)


def test_tokenizer_bin_reads_as_it_was(tmp_path: Path) -> None:
    vocabulary = small_vocabulary(300)
    data = llama2c_writer.tokenizer_bin(vocabulary)
    assert data == model_files.tokenizer_bin(vocabulary)
    (tmp_path / "tokenizer.bin").write_bytes(data)
    again = read_vocabulary(tmp_path / "tokenizer.bin")
    assert from_vocabulary(again).encode(TEXT) == from_vocabulary(vocabulary).encode(TEXT)
    with pytest.raises(UnsupportedError, match=r"tokenizer\.bin cannot hold"):
        llama2c_writer.tokenizer_bin(replace(vocabulary, add_bos=False))


def test_tensors_that_are_computed(tmp_path: Path) -> None:
    source = wide()
    matrix = source.tensors["blk.0.ffn_up.weight"]
    turned = derived.transposed(
        replace(
            matrix,
            shape=matrix.shape[::-1],
            data=matrix.to_float32().T.copy().view(np.uint8).reshape(-1),
        ),
        matrix.name,
    )
    made = replace(source, tensors={**source.tensors, matrix.name: turned})
    for name, checkpoint in (("a", source), ("b", made)):
        convert(checkpoint, tmp_path / name, kind="Q5_K", threads=2)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_giving_up_leaves_nothing(tmp_path: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise EnoughError

    for form in ("gguf", "llama2c-v0"):
        with pytest.raises(EnoughError):
            convert(wide(), tmp_path / "out", form, threads=2, progress=stop)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["gguf", "llama2c-v2"])
def test_a_full_disk_is_told_before(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 100_000))
    with pytest.raises(FiresideError, match="GB are free"):
        convert(wide(), tmp_path / "out", form)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_shrinks_is_told(tmp_path: Path) -> None:
    source = written(wide(), tmp_path)
    path = tmp_path / "source.gguf"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match="changed while it was read"):
        convert(source, tmp_path / "out.gguf", kind="Q8_0", threads=2)
    assert [p.name for p in tmp_path.iterdir()] == ["source.gguf"]


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No read of a tensor in a file is longer than a piece; C reads less at a time."""
    monkeypatch.setattr(native, "instruction_set", lambda: None)
    source = written(wide(), tmp_path)
    longest: list[int] = []
    before: Callable[..., blocks.Bytes] = pieces.read_part

    def spy(tensor: pieces.FileTensor, start: int, size: int) -> blocks.Bytes:
        longest.append(size)
        return before(tensor, start, size)

    monkeypatch.setattr(pieces, "read_part", spy)
    convert(source, tmp_path / "out.gguf", kind="Q4_K")
    assert max(longest) == 4 * pieces.PIECE
    assert sum(longest) == source.nbytes
