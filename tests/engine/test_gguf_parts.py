"""GGUF models in several files, cut by gguf-py."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from fireside.engine.checkpoints import open_checkpoint
from fireside.engine.errors import CheckpointError
from tests.gguf_models import CONFIG, VOCABULARY, model
from tests.model_files import gguf_file


def write_parts(folder: Path, per_file: int = 5, alone: bool = False) -> list[Path]:
    """A small model in files of `per_file` tensors; alone: the first has only the metadata."""
    writer = gguf.GGUFWriter(
        folder / "m.gguf", "llama", split_max_tensors=per_file, small_first_shard=alone
    )
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(VOCABULARY.pieces))
    writer.add_token_scores(VOCABULARY.scores.tolist())
    writer.add_token_types(VOCABULARY.types.tolist())
    for name, tensor in model(tied=False).tensors.items():
        writer.add_tensor(name, tensor.to_float32())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("m-*.gguf"))


@pytest.mark.parametrize("alone", [False, True])
def test_all_parts_make_one_model(tmp_path: Path, alone: bool) -> None:
    parts = write_parts(tmp_path, alone=alone)
    assert len(parts) == 5 + alone
    opened = open_checkpoint(parts[0])
    assert opened.config == CONFIG
    assert opened.vocabulary is not None
    for name, expected in model(tied=False).tensors.items():
        assert np.array_equal(opened.tensors[name].to_float32(), expected.to_float32())


def fault(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    return caught.value


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    parts[2].unlink()
    assert "m-00003-of-00005.gguf is missing" in fault(parts[0]).message
    parts[4].unlink()
    assert "m-00003-of-00005.gguf and 1 more is missing" in fault(parts[0]).message


def test_a_later_part_names_the_first(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    error = fault(parts[1])
    assert "part 2 of 5" in error.message
    assert error.hint == "open m-00001-of-00005.gguf"


def test_a_part_keeps_its_name(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    renamed = parts[0].rename(tmp_path / "model.gguf")
    assert "part 1 of 5 of a model, but not called so" in fault(renamed).message
    swapped = parts[1].rename(tmp_path / "m-00001-of-00005.gguf")
    assert "part 2 of 5 of a model, but not called so" in fault(swapped).message


def test_parts_of_different_models_are_not_mixed(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    third = parts[2].read_bytes()
    (tmp_path / "other").mkdir()
    other = write_parts(tmp_path / "other", 4)
    parts[2].write_bytes(other[2].read_bytes())
    assert "split.count is 6, expected 5" in fault(parts[0]).message
    parts[2].write_bytes(parts[3].read_bytes())
    assert "split.no is 3, expected 2" in fault(parts[0]).message
    parts[2].write_bytes(gguf_file(model())[0])
    assert "split.no is missing" in fault(parts[0]).message
    parts[2].write_bytes(third.replace(b"split.no", b"spilt.no"))
    assert "split.no is missing" in fault(parts[0]).message
    changed = parts[0].read_bytes().replace(b"split.tensors.count", b"split.tensors.coumt")
    parts[0].write_bytes(changed)  # then nothing says how many there are
    parts[2].write_bytes(third)
    assert open_checkpoint(parts[0]).config == CONFIG


def test_tensors_are_counted_and_there_once(tmp_path: Path) -> None:
    parts = write_parts(tmp_path)
    whole = parts[0].read_bytes()
    key = b"split.tensors.count" + (5).to_bytes(4, "little")
    at = whole.index(key) + len(key)
    parts[0].write_bytes(whole[:at] + (22).to_bytes(4, "little") + whole[at + 4 :])
    assert "parts hold 21 tensors, expected 22" in fault(parts[0]).message
    parts[0].write_bytes(whole)
    key_of = b"blk.1.attn_q.weight"
    there = next(part for part in parts if key_of in part.read_bytes())
    assert there != parts[0]
    there.write_bytes(there.read_bytes().replace(key_of, b"blk.0.attn_q.weight"))
    assert "blk.0.attn_q.weight is in another part too" in fault(parts[0]).message


@pytest.mark.parametrize("cut", [3, 100, -1])
def test_a_part_cut_short_is_named(tmp_path: Path, cut: int) -> None:
    parts = write_parts(tmp_path)
    parts[3].write_bytes(parts[3].read_bytes()[:cut])
    assert str(parts[3]) in fault(parts[0]).message
