"""Reading GGUF: files of gguf-py's and of our own writer, and what is wrong with a file."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.engine.checkpoints import gguf_header, gguf_writer, open_checkpoint, read_file
from fireside.engine.checkpoints.types import CONTROL, Checkpoint, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers import read_vocabulary
from tests.model_files import gguf_file, small_vocabulary
from tests.models import random_checkpoint
from tests.shared import SHARED, needs_shared

VOCABULARY = small_vocabulary(288)
# dim, hidden, layers, heads, kv heads, vocab, context, head_dim
CONFIG = ModelConfig("llama", 64, 96, 2, 4, 2, len(VOCABULARY), 128, 16)
CONFIGS = {
    "plain": CONFIG,
    "odd": replace(CONFIG, dim=36, hidden_dim=50, n_heads=6, n_kv_heads=3, head_dim=6),
    "wide heads": replace(CONFIG, head_dim=32, rope_dim=8, rope_theta=5e5, norm_eps=1e-6),
}


def model(name: str = "plain", block: str = "F32", tied: bool = True) -> Checkpoint:
    checkpoint = random_checkpoint(CONFIGS[name], 1, block, tied)
    return replace(checkpoint, vocabulary=VOCABULARY, name="A small one")


def assert_same_vocabulary(a: Vocabulary | None, b: Vocabulary | None) -> None:
    assert a is not None
    assert b is not None
    for field in fields(Vocabulary):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(left, right), field.name


def entry(key: str, kind: int, value: bytes) -> bytes:
    raw = key.encode()
    return struct.pack("<Q", len(raw)) + raw + struct.pack("<I", kind) + value


def string(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw


def file_of(
    entries: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    tail: bytes = b"",
    version: int = 3,
) -> bytes:
    entries, tensors = entries or [], tensors or []
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries))
    data = header + b"".join(entries) + b"".join(tensors)
    return data.ljust(-(-len(data) // 32) * 32, b"\0") + tail


def tensor(name: str, sizes: tuple[int, ...], kind: int, offset: int) -> bytes:
    return string(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def failure(tmp_path: Path, data: bytes, reader: Callable[[Path], object]) -> CheckpointError:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        reader(path)
    assert str(path) in caught.value.message
    return caught.value


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

    def full(self: gguf_writer.Entry) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        return np.zeros(self.nbytes, np.uint8)

    monkeypatch.setattr(gguf_writer.Entry, "data", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        gguf_writer.write_checkpoint(path, model())
    assert calls == 3
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: gguf_writer.Entry) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_writer.Entry, "data", interrupted)
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
    half = replace(c, config=replace(CONFIG, rope_style="half"))
    groups = replace(c, tensors=model(block="Q8_GROUP32").tensors)
    ends = replace(c, vocabulary=replace(VOCABULARY, end_ids=(5, 6, 7)))
    for wrong, message in ((half, "rope style"), (groups, "Q8_GROUP32"), (ends, "3 tokens")):
        with pytest.raises(UnsupportedError, match=message):
            gguf_writer.write_checkpoint(path, wrong)
    for value in (object(), 1 << 70, [1, 2], np.zeros((2, 2))):
        with pytest.raises(UnsupportedError, match=r"story\.x"):
            gguf_writer.write(path, CONFIG, {}, None, metadata={"story.x": value})
    assert list(tmp_path.iterdir()) == []


# ---- what is wrong with a header


def parse(path: Path) -> gguf_header.Header:
    data = np.frombuffer(read_file(path, 1 << 30), np.uint8)
    return gguf_header.parse(path, data)


TYPE = struct.Struct("<I")
HEADER_FAULTS = {
    "the magic": (b"GGUG" + bytes(20), "not a GGUF file"),
    "version 1": (file_of(version=1), "GGUF version 1"),
    "version 4": (file_of(version=4), "GGUF version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "big-endian"),
    "tensor count": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 63, 0), "the number of tensors"),
    "entry count": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 40), "number of metadata entries"),
    "cut off": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1), "the length of key 0"),
    "key length": (file_of([struct.pack("<Q", 1 << 62)]), "the length of key 0"),
    "key": (file_of([entry("a", 4, bytes(4)), string(b"\xff\xfe") + bytes(8)]), "not valid UTF-8"),
    "terminal": (file_of([entry("\x1b[2Ja", 4, bytes(4))]), "printable"),
    "twice": (file_of([entry("a", 4, bytes(4))] * 2), "a is there twice"),
    "value type": (file_of([entry("a.b", 13, bytes(64))]), "a.b has value type 13"),
    "element type": (
        file_of([entry("a.b", 9, struct.pack("<IQ", 13, 1) + bytes(64))]),
        "a.b has element type 13",
    ),
    "boolean": (file_of([entry("a.b", 7, b"\x02")]), "a.b is 2, expected 0 or 1"),
    "string length": (
        file_of([entry("a.b", 8, struct.pack("<Q", 1 << 60))]),
        "the length of a.b is",
    ),
    "string": (file_of([entry("a.b", 8, string(b"\xc3("))]), "a.b is not valid UTF-8"),
    "array length": (
        file_of([entry("a.b", 9, struct.pack("<IQ", 4, 1 << 61))]),
        "the length of a.b is",
    ),
    "array beyond the end": (
        file_of([entry("a.b", 9, struct.pack("<IQ", 12, 60))]),
        "a.b needs 480 bytes",
    ),
    "too many strings": (
        file_of([entry("a.b", 9, struct.pack("<IQ", 8, 1 << 50))]),
        "the length of a.b is",
    ),
    "strings beyond the end": (
        file_of([entry("a.b", 9, struct.pack("<IQQ", 8, 1, 1 << 63) + bytes(32))]),
        "a string of a.b goes beyond",
    ),
    "nested too deep": (
        file_of([entry("a.b", 9, struct.pack("<IQ", 9, 1) * 100 + bytes(64))]),
        "nests arrays deeper",
    ),
    "alignment 0": (file_of([entry("general.alignment", 4, TYPE.pack(0))]), "power of two"),
    "alignment 24": (file_of([entry("general.alignment", 4, TYPE.pack(24))]), "power of two"),
    "alignment 4": (file_of([entry("general.alignment", 4, TYPE.pack(4))]), "power of two"),
    "alignment huge": (file_of([entry("general.alignment", 4, TYPE.pack(1 << 31))]), "power"),
    "alignment text": (file_of([entry("general.alignment", 8, string("32"))]), "power of two"),
    "no dimensions": (file_of(None, [tensor("t", (), 0, 0)]), "t has 0 dimensions"),
    "five dimensions": (file_of(None, [tensor("t", (1,) * 5, 0, 0)]), "t has 5 dimensions"),
    "size 0": (file_of(None, [tensor("t", (4, 0), 0, 0)]), "t has a size of 0"),
    "size huge": (file_of(None, [tensor("t", (1 << 63,), 0, 0)]), "a size of tensor t"),
    "offset": (file_of(None, [tensor("t", (8,), 0, 8)], bytes(64)), "expected a multiple of 32"),
    "offset huge": (file_of(None, [tensor("t", (8,), 0, 1 << 62)]), "the offset of tensor t"),
    "same names": (file_of(None, [tensor("t", (8,), 0, 0)] * 2, bytes(64)), "t is there twice"),
    "tensor cut off": (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + string("t"),
        "dimensions of tensor t needs",
    ),
}


@pytest.mark.parametrize("fault", HEADER_FAULTS)
def test_a_fault_of_the_header_is_named(tmp_path: Path, fault: str) -> None:
    data, message = HEADER_FAULTS[fault]
    assert message in failure(tmp_path, data, parse).message


TENSOR_FAULTS = {
    "beyond the end": ([tensor("t", (8,), 0, 64)], "t needs 32 bytes"),
    "product": ([tensor("t", (1 << 40, 1 << 40, 1 << 40, 1 << 40), 0, 0)], "t needs"),
    "overlap": (
        [tensor("t", (16,), 0, 0), tensor("u", (8,), 0, 32)],
        "tensors t and u overlap",
    ),
    "IQ2_S": ([tensor("t", (256,), 22, 0)], "tensor t is of type IQ2_S"),
    "removed": ([tensor("t", (256,), 4, 0)], "tensor t is of type number 4"),
    "unknown": ([tensor("t", (256,), 0xFFFFFFFF, 0)], "tensor t is of type number 4294967295"),
    "part of a block": ([tensor("t", (48, 2), 8, 0)], "t has rows of 48"),
}


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_a_fault_of_a_tensor_is_named(tmp_path: Path, fault: str) -> None:
    tensors, message = TENSOR_FAULTS[fault]
    assert message in failure(tmp_path, file_of(None, tensors, bytes(64)), open_checkpoint).message


def test_nested_arrays_are_read(tmp_path: Path) -> None:
    inner = struct.pack("<IQ2H", 2, 2, 7, 8)
    path = tmp_path / "model.gguf"
    path.write_bytes(file_of([entry("a.b", 9, struct.pack("<IQ", 9, 2) + inner + inner)]))
    value = parse(path).metadata["a.b"]
    assert isinstance(value, list)
    assert [part.tolist() for part in value] == [[7, 8], [7, 8]]


def test_version_2_is_read_as_version_3(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, model())
    data = bytearray(path.read_bytes())
    data[4] = 2
    path.write_bytes(data)
    opened = open_checkpoint(path)
    assert opened.format == "GGUF v2"
    assert opened.config == CONFIG


# ---- what is wrong with the metadata of a model


def changed(tmp_path: Path, change: dict[str, object]) -> CheckpointError:
    """The error of a good file whose metadata is changed; None takes an entry away."""
    return failure(tmp_path, gguf_file(model(), change)[0], open_checkpoint)


TOKENS, TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
METADATA_FAULTS: list[tuple[str, object, str]] = [
    ("general.architecture", None, "architecture ''"),
    ("general.architecture", "mamba", "architecture 'mamba'"),
    ("general.architecture", 7, "expected a text"),
    ("llama.block_count", None, "llama.block_count is missing"),
    ("llama.block_count", 0, "llama.block_count is 0"),
    ("llama.block_count", 3, "tensor blk.2."),
    ("llama.block_count", 1, "tensor blk.1."),
    ("llama.block_count", 1 << 31, "expected a whole number from 1 to 4096"),
    ("llama.block_count", 2.0, "expected a whole number"),
    ("llama.block_count", True, "expected a whole number"),
    ("llama.embedding_length", -64, "llama.embedding_length is -64"),
    ("llama.embedding_length", 32, "has shape"),
    ("llama.feed_forward_length", ["96"], "an array of 1"),
    ("llama.attention.head_count", 0, "head_count is 0"),
    ("llama.attention.head_count", 3, "expected a multiple of"),
    ("llama.attention.head_count_kv", 5, "expected a whole number from 1 to 4"),
    ("llama.attention.head_count_kv", np.array([2, 2], np.int32), "an array of 2"),
    ("llama.attention.key_length", 8, "value_length is 16, expected 8"),
    ("llama.attention.value_length", 8, "value_length is 8, expected 16"),
    ("llama.rope.dimension_count", 18, "from 2 to 16"),
    ("llama.rope.dimension_count", 7, "even"),
    ("llama.rope.freq_base", float("nan"), "freq_base is nan"),
    ("llama.rope.freq_base", "10000", "expected a number"),
    ("llama.attention.layer_norm_rms_epsilon", None, "epsilon is missing"),
    ("llama.attention.layer_norm_rms_epsilon", float("inf"), "epsilon is inf"),
    ("llama.context_length", 0, "context_length is 0"),
    ("llama.rope.scaling.type", "yarn", "rope.scaling.type is 'yarn'"),
    ("llama.rope.scaling.type", ["none"], "rope.scaling.type is an array of 1"),
    ("llama.expert_count", 8, "expert_count is 8"),
    ("llama.attention.sliding_window", 4096, "sliding_window is 4096"),
    ("tokenizer.ggml.model", "bert", "tokenizer.ggml.model is 'bert'"),
    (TOKENS, None, "tokens is missing"),
    (TOKENS, [], "tokens is missing or empty"),
    (TOKENS, "abc", "expected an array of texts"),
    (TOKENS, list(VOCABULARY.pieces)[:-1], "has 288 entries, expected 287"),
    ("tokenizer.ggml.scores", None, "scores is missing"),
    ("tokenizer.ggml.scores", np.zeros(288, np.int32), "expected an array of numbers"),
    ("tokenizer.ggml.scores", np.full(288, np.nan, np.float32), "not a number"),
    (TYPES, np.full(288, 9, np.int32), "beyond 0 to 6"),
    (TYPES, np.full(288, -1, np.int32), "beyond 0 to 6"),
    ("tokenizer.ggml.bos_token_id", 288, "bos_token_id is 288"),
    ("tokenizer.ggml.bos_token_id", np.zeros(3, np.int32), "an array of 3"),
    ("tokenizer.ggml.add_bos_token", 1, "expected true or false"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "message"), METADATA_FAULTS)
def test_a_fault_of_the_metadata_is_named(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    assert message in changed(tmp_path, {key: value}).message


def test_fewer_pieces_than_the_model_has_tokens(tmp_path: Path) -> None:
    smaller = dict(gguf_writer.describe_vocabulary(small_vocabulary(287)))
    assert "has 287 entries, expected 288" in changed(tmp_path, smaller).message


@given(st.dictionaries(st.text(max_size=9), st.one_of(
    st.booleans(), st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=30),
    st.floats(width=32, allow_nan=False), st.lists(st.text(max_size=5), max_size=4),
), max_size=5))  # fmt: skip
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_metadata_comes_back_or_is_refused(tmp_path: Path, metadata: dict[str, object]) -> None:
    path = tmp_path / "any.gguf"
    gguf_writer.write(path, CONFIG, {}, None, metadata=metadata)
    if not all(key.isprintable() for key in metadata):
        with pytest.raises(CheckpointError):
            parse(path)
        return
    if "general.alignment" not in metadata:
        found = parse(path).metadata
        for key, value in metadata.items():
            actual = found[key]
            if isinstance(value, float):  # comes as its shortest decimal
                assert np.float32(str(actual)) == np.float32(value)
            elif isinstance(actual, gguf_header.StringArray):
                assert list(actual) == value
            else:
                assert actual == value


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
