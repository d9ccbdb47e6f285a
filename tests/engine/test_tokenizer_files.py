"""tokenizer.bin and tokenizer.model: what is read, and what is wrong with a file."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest

from fireside.engine.checkpoints.types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
)
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers import read_vocabulary
from fireside.engine.tokenizers.spm import SpmTokenizer
from tests.model_files import small_vocabulary, tokenizer_bin
from tests.tokenizer_parts import piece, protobuf, read_raw, varints


def test_tokenizer_bin_is_read(tmp_path: Path) -> None:
    expected = small_vocabulary()
    ours = read_raw(tokenizer_bin(expected), len(expected))
    assert ours.pieces == expected.pieces
    assert np.array_equal(ours.types, expected.types)
    assert np.array_equal(ours.scores, expected.scores)
    assert not ours.remove_extra_whitespaces


def test_an_early_tokenizer_bin_has_bytes_as_characters() -> None:
    expected = small_vocabulary()
    data = struct.pack("<I", 10)
    for i, known in enumerate(expected.pieces):
        text = chr(i - 3) if 3 <= i < 259 else known
        raw = text.replace("▁", " ").encode()
        data += struct.pack("<fI", float(expected.scores[i]), len(raw)) + raw
    ours = read_raw(data)
    assert ours.pieces == expected.pieces
    assert (ours.types[3:259] == BYTE).all()


BPE_MODEL = protobuf(2, protobuf(3, 2))
PIECES = piece("<unk>", 0, UNKNOWN) + piece("<s>", 0, CONTROL) + piece("</s>", 0, CONTROL)
PIECES += piece("▁a", -1) + piece("b", -2, NORMAL) + piece("<c>", -3, USER_DEFINED)


def test_a_model_with_defaults_only() -> None:
    ours = read_raw(PIECES + BPE_MODEL)
    assert ours.pieces == ("<unk>", "<s>", "</s>", "▁a", "b", "<c>")
    assert ours.types.tolist() == [2, 3, 3, 1, 1, 4]
    assert ours.scores.tolist() == [0, 0, 0, -1, -2, -3]
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (1, 2, 0)
    # what the format says where a file says nothing
    assert (ours.add_space_prefix, ours.remove_extra_whitespaces) == (True, True)
    assert SpmTokenizer(ours).encode("a<c>b", bos=False) == [3, 5, 4]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PIECES, "of type unigram"),
        (PIECES + protobuf(2, protobuf(3, 4)), "of type char"),
        (PIECES + BPE_MODEL + protobuf(3, protobuf(2, b"xyz")), "rules to normalise"),
        (PIECES + BPE_MODEL + protobuf(5, protobuf(2, b"xyz")), "rules to denormalise"),
        (PIECES + BPE_MODEL + protobuf(3, protobuf(5, 0)), "not escaped"),
        (PIECES + BPE_MODEL + protobuf(2, varints(24, 1)), "suffixes"),
    ],
)
def test_models_of_other_kinds_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        read_raw(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PIECES[:-1] + BPE_MODEL, "piece 5"),
        (PIECES + b"\x0a\x7f", "piece 6"),
        (PIECES + b"\x0b\x00", "wire type 3"),
        (PIECES + b"\x0a" + b"\xff" * 10, "no whole number"),
        (PIECES + piece("x", float("nan")) + BPE_MODEL, "has score nan"),
        (PIECES + piece("x", 0, 9) + BPE_MODEL, "type 9"),
        (PIECES + piece("") + BPE_MODEL, "piece ''"),
        (PIECES + protobuf(1, protobuf(1, b"\xff")) + BPE_MODEL, "piece 6 is not valid UTF-8"),
        (PIECES + PIECES + BPE_MODEL, "2 of them unknown"),
        (piece("<s>", 0, CONTROL) + BPE_MODEL, "0 of them unknown"),
    ],
)
def test_damaged_models_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_raw(data)


SMALL = tokenizer_bin(small_vocabulary())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"{\n}", "model is None, expected an object"),
        (b"Once upon a time", "not a tokenizer file"),
        (bytes(64), "not a tokenizer file"),
        (SMALL[:10], "not a tokenizer file"),
        (SMALL[:-1], "piece 285 has score"),
        (SMALL + b"1234", "ends within piece 286"),
        (struct.pack("<Ifi", 5, 0.0, -1), "length -1"),
        (struct.pack("<Ifi", 5, 0.0, 6) + bytes(6), "length 6"),
        (struct.pack("<Ifi", 5, float("nan"), 1) + b"a", "score nan"),
        (struct.pack("<Ifi", 5, 0.0, 2) + b"\xff\xfe" + struct.pack("<fi", 0, 0) * 3, "not UTF-8"),
        (struct.pack("<Ifi", 5, 0.0, 1) + b"a", "1 pieces, expected at least"),
    ],
)
def test_damaged_tokenizer_bins_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_raw(data)


def test_places_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_vocabulary(tmp_path / "tokenizer.bin")
    with pytest.raises(CheckpointError, match="a folder"):
        read_vocabulary(tmp_path)
    path = tmp_path / "empty.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        read_vocabulary(path)


def test_a_giant_is_not_read_as_a_tokenizer(tmp_path: Path) -> None:
    for beginning in (SMALL[:64], PIECES):
        path = tmp_path / "giant"
        with path.open("wb") as file:
            file.write(beginning)
            file.truncate(1 << 40)  # a sparse file: it takes no room
        start = time.perf_counter()
        with pytest.raises(CheckpointError, match="expected at most"):
            read_vocabulary(path)
        assert time.perf_counter() - start < 1
