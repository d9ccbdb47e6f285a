"""Reading GGUF: files of gguf-py's and of our own writer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from fireside.engine import blocks
from fireside.engine.checkpoints import gguf_header, gguf_writer, open_checkpoint
from fireside.engine.checkpoints.pieces import Task
from fireside.engine.checkpoints.types import CONTROL, Vocabulary
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers import read_vocabulary
from tests.formats_table import GGUF, Checked
from tests.gguf_models import CONFIG, CONFIGS, VOCABULARY, model
from tests.models import random_checkpoint
from tests.shared import SHARED, needs_shared


def assert_same_vocabulary(a: Vocabulary | None, b: Vocabulary | None) -> None:
    assert a is not None
    assert b is not None
    for field in fields(Vocabulary):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(left, right), field.name


# ---- round trips


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("block", ["F32", "F16", "Q8_0", "Q4_0"])
def test_what_we_write_we_read(tmp_path: Path, name: str, tied: bool, block: str) -> None:
    original = model(name, block, tied)
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, original)
    opened = open_checkpoint(path)
    assert (opened.format, opened.name) == ("GGUF v3", "A small one")
    assert opened.config == original.config
    assert opened.tied == tied
    assert_same_vocabulary(opened.vocabulary, VOCABULARY)
    assert opened.tensors.keys() == original.tensors.keys()
    for key, expected in original.tensors.items():
        actual = opened.tensors[key]
        assert (actual.shape, actual.block) == (expected.shape, expected.block)
        assert np.array_equal(actual.data, expected.data)
        assert not actual.data.flags.writeable


@pytest.mark.parametrize("block", ["F32", "F16", "Q8_0", "Q4_0"])
def test_gguf_py_reads_what_we_write(tmp_path: Path, block: str) -> None:
    original = model("plain", block)
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, original)
    reader = gguf.GGUFReader(path)
    assert [t.name for t in reader.tensors] == list(original.tensors)
    for actual in reader.tensors:
        expected = original.tensors[actual.name]
        assert actual.tensor_type.name == expected.block
        assert tuple(reversed(actual.shape.tolist())) == expected.shape
        assert np.array_equal(actual.data.reshape(-1).view(np.uint8), expected.data)
    contents = {key: field.contents() for key, field in reader.fields.items()}
    assert contents["general.architecture"] == "llama"
    assert contents["llama.embedding_length"] == 64
    assert contents["llama.rope.freq_base"] == 10000.0
    assert contents["tokenizer.ggml.tokens"] == list(VOCABULARY.pieces)
    assert np.array_equal(contents["tokenizer.ggml.scores"], VOCABULARY.scores)
    assert contents["tokenizer.ggml.token_type"] == VOCABULARY.types.tolist()
    assert contents["tokenizer.ggml.add_space_prefix"] is True


@pytest.mark.parametrize("name", blocks.names())
def test_every_type_in_a_file_of_gguf_py(tmp_path: Path, name: str, checked: Checked) -> None:
    checked(GGUF, "llama", "llama", name, "gguf-py: writes the file, every value")
    config = replace(CONFIG, dim=256, hidden_dim=512, head_dim=64)
    kind, size = gguf.GGMLQuantizationType[name], gguf.GGML_QUANT_SIZES
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in gguf_writer.describe(config, "", []).items():
        if key.startswith("llama."):
            (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(key, value)
    rng = np.random.default_rng(4)
    values: dict[str, np.ndarray] = {}
    for key, tensor in random_checkpoint(config, 3).tensors.items():
        if len(tensor.shape) == 1:
            values[key] = tensor.to_float32()
            writer.add_tensor(key, values[key])
            continue
        width = tensor.shape[1] // size[kind][0] * size[kind][1]
        raw = rng.integers(0, 256, (tensor.shape[0], width), np.uint8)
        with np.errstate(all="ignore"):
            values[key] = raw.view("<f4") if name == "F32" else gguf.dequantize(raw, kind)
        writer.add_tensor(key, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = open_checkpoint(path)
    assert {t.block for t in opened.tensors.values() if len(t.shape) > 1} == {name}
    for key, expected in values.items():
        with np.errstate(all="ignore"):
            found = opened.tensors[key].to_float32()
        np.testing.assert_array_equal(found, expected.reshape(found.shape), key)


@pytest.mark.parametrize("alignment", [8, 32, 256])
def test_we_read_what_gguf_py_writes(tmp_path: Path, alignment: int) -> None:
    original = model(tied=False)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(alignment)
    writer.add_name("By gguf-py")
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
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_float64("some.float", 0.1)
    writer.add_int64("some.integer", -5)
    for name, expected in original.tensors.items():
        writer.add_tensor(name, expected.to_float32())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = open_checkpoint(path)
    assert opened.name == "By gguf-py"
    assert opened.config == CONFIG
    assert_same_vocabulary(opened.vocabulary, VOCABULARY)
    for name, expected in original.tensors.items():
        assert np.array_equal(opened.tensors[name].to_float32(), expected.to_float32())
    assert opened.metadata["some.numbers"].tolist() == [1, 2, 3]  # type: ignore[attr-defined]
    assert (opened.metadata["some.float"], opened.metadata["some.integer"]) == (0.1, -5)


@pytest.mark.parametrize("block", ["F16", "Q8_0", "Q4_0"])
def test_matrices_are_quantised_on_the_way(tmp_path: Path, block: str) -> None:
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, model(), block)
    opened = open_checkpoint(path)
    expected = model(block=block)
    for name, actual in opened.tensors.items():
        assert actual.block == ("F32" if "norm" in name else block)
        assert np.array_equal(actual.data, expected.tensors[name].data)
    kinds = {"F16": 1, "Q8_0": 7, "Q4_0": 2}
    assert opened.metadata["general.file_type"] == kinds[block]


def test_rows_that_are_no_whole_blocks_become_f16(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, model("odd"), "Q8_0")
    opened = open_checkpoint(path)
    assert {t.block for t in opened.tensors.values()} == {"F16", "F32"}


def test_a_vocabulary_keeps_what_is_unusual(tmp_path: Path) -> None:
    types = VOCABULARY.types.copy()
    types[280:284] = CONTROL
    pieces = [*VOCABULARY.pieces[:280], "<|im_end|>", "<a>", "<b>", *VOCABULARY.pieces[283:]]
    unusual = replace(
        VOCABULARY,
        pieces=tuple(pieces),
        types=types,
        bos_id=-1,
        eos_id=5,
        unk_id=3,
        add_bos=False,
        add_space_prefix=False,
        end_ids=(280, 281, 282),
        remove_extra_whitespaces=True,
    )
    path = tmp_path / "vocabulary.gguf"
    gguf_writer.write(path, CONFIG, {}, unusual)
    assert_same_vocabulary(read_vocabulary(path), unusual)


def test_further_metadata_is_carried(tmp_path: Path) -> None:
    further: dict[str, object] = {
        "story.author": "Ünïcödé",
        "story.numbers": np.arange(5, dtype=np.int16),
        "story.names": ["a", "", "ß"],
        "story.large": 1 << 40,
        "story.below": -7,
        "story.far": -(1 << 40),
        "story.half": 0.5,
        "story.yes": True,
        "general.name": "Renamed",
    }
    path = tmp_path / "model.gguf"
    c = model()
    gguf_writer.write(path, c.config, c.tensors, None, "First", metadata=further)
    opened = open_checkpoint(path)
    assert (opened.name, opened.vocabulary) == ("Renamed", None)
    for key, value in further.items():
        found = opened.metadata[key]
        if isinstance(found, gguf_header.StringArray):
            assert list(found) == found[:] == [found[i] for i in range(3)] == value
            assert found[-1] == "ß"
        else:
            assert np.array_equal(np.asarray(found), np.asarray(value))


# ---- the writer's own failures


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"old")
    calls = 0

    def full(self: gguf_writer.Entry) -> Iterator[Task]:
        def task() -> np.ndarray:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise OSError(28, "No space left on device")
            return np.zeros(self.nbytes, np.uint8)

        yield task

    monkeypatch.setattr(gguf_writer.Entry, "tasks", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        gguf_writer.write_checkpoint(path, model())
    assert calls >= 3  # a few are made ahead
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: gguf_writer.Entry) -> Iterator[Task]:
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_writer.Entry, "tasks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        gguf_writer.write_checkpoint(tmp_path / "model.gguf", model())
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_be_written_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, model())
    opened = open_checkpoint(path)
    gguf_writer.write_checkpoint(path, opened, "Q8_0")
    again = open_checkpoint(path)
    assert again.tensors["token_embd.weight"].block == "Q8_0"
    assert np.array_equal(
        opened.tensors["output_norm.weight"].data, again.tensors["output_norm.weight"].data
    )


def test_no_folder_to_write_to(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        gguf_writer.write_checkpoint(tmp_path / "no" / "model.gguf", model())


def test_what_gguf_cannot_hold(tmp_path: Path) -> None:
    c = model()
    path = tmp_path / "model.gguf"
    capped = replace(c, config=replace(CONFIG, logit_scale=0.5))
    groups = replace(c, tensors=model(block="Q8_GROUP32").tensors)
    ends = replace(c, vocabulary=replace(VOCABULARY, end_ids=(5, 6, 7)))
    for wrong, message in (
        (capped, "logit_scale is 0.5"),
        (groups, "Q8_GROUP32"),
        (ends, "3 tokens"),
    ):
        with pytest.raises(UnsupportedError, match=message):
            gguf_writer.write_checkpoint(path, wrong)
    for value in (object(), 1 << 70, [1, 2], np.zeros((2, 2))):
        with pytest.raises(UnsupportedError, match=r"story\.x"):
            gguf_writer.write(path, CONFIG, {}, None, metadata={"story.x": value})
    assert list(tmp_path.iterdir()) == []


# ---- real files


@needs_shared("fixtures/vocab")
def test_a_vocabulary_alone_is_no_model_but_a_tokenizer() -> None:
    path = SHARED / "fixtures/vocab/ggml-vocab-llama-spm.gguf"
    with pytest.raises(CheckpointError, match="holds no tensors"):
        open_checkpoint(path)
    vocabulary = read_vocabulary(path, 32000)
    assert vocabulary.pieces[:4] == ("<unk>", "<s>", "</s>", "<0x00>")
    assert vocabulary.add_bos
    assert vocabulary.add_space_prefix
    byte_level = read_vocabulary(SHARED / "fixtures/vocab/ggml-vocab-gpt-2.gguf", 50257)
    assert (byte_level.kind, byte_level.bos_id, byte_level.add_bos) == ("bpe", 50256, False)


def test_a_large_vocabulary_opens_at_once(tmp_path: Path) -> None:
    pieces = [f"piece{i}" for i in range(128_000)]
    path = tmp_path / "large.gguf"
    metadata = {
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.merges": [f"{p} {p}" for p in pieces] * 2,
        "tokenizer.ggml.scores": np.zeros(len(pieces), np.float32),
        "tokenizer.ggml.model": "llama",
    }
    gguf_writer.write(path, CONFIG, {}, None, metadata=metadata)
    best = 1e9
    for _ in range(3):
        start = time.perf_counter()
        vocabulary = read_vocabulary(path)
        best = min(best, time.perf_counter() - start)
    assert vocabulary.pieces == tuple(pieces)
    assert best < 0.5
