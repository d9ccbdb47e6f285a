"""What is wrong with a GGUF file is named: a fault of its header, its tensors, its metadata."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.engine.checkpoints import gguf_header, gguf_writer, open_checkpoint, read_file
from fireside.engine.errors import CheckpointError
from tests.gguf_models import CONFIG, VOCABULARY, model
from tests.model_files import gguf_file, small_vocabulary


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


# ---- what is wrong with a header


def parse(path: Path) -> gguf_header.Header:
    return gguf_header.parse(path, memoryview(read_file(path, 1 << 30)))


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
    ("llama.attention.head_count_kv", np.array([2, 1], np.int32), "differs from layer to layer"),
    ("llama.attention.key_length", 8, "value_length is 16, expected 8"),
    ("llama.attention.value_length", 8, "value_length is 8, expected 16"),
    ("llama.rope.dimension_count", 18, "from 2 to 16"),
    ("llama.rope.dimension_count", 7, "even"),
    ("llama.rope.freq_base", float("nan"), "freq_base is nan"),
    ("llama.rope.freq_base", "10000", "expected a number"),
    ("llama.attention.layer_norm_rms_epsilon", None, "epsilon is missing"),
    ("llama.attention.layer_norm_rms_epsilon", float("inf"), "epsilon is inf"),
    ("llama.context_length", 0, "context_length is 0"),
    ("llama.rope.scaling.type", "longrope", "rope.scaling.type is 'longrope'"),
    ("llama.rope.scaling.type", ["none"], "rope.scaling.type is an array of 1"),
    ("llama.expert_count", 8, "expert_used_count is missing"),
    ("llama.attention.sliding_window", -1, "sliding_window is -1"),
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
