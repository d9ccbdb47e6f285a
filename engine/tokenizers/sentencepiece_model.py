"""sentencepiece's tokenizer.model, read off the protobuf wire format.

(google/sentencepiece, sentencepiece_model.proto; protobuf.dev/programming-guides/encoding)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fireside.engine.checkpoints import read_file
from fireside.engine.checkpoints.types import BYTE, CONTROL, NORMAL, UNKNOWN, Vocabulary
from fireside.engine.errors import CheckpointError, UnsupportedError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4 are long obsolete

# Field numbers of the messages
PIECES, TRAINER, NORMALIZER, DENORMALIZER = 1, 2, 3, 5
PIECE, SCORE, TYPE = 1, 2, 3
MODEL_TYPE, SUFFIX, BOS_PIECE, EOS_PIECE = 3, 24, 46, 47
CHARSMAP, DUMMY_PREFIX, REMOVE_EXTRA, ESCAPE = 2, 3, 4, 5

MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "char"}
BPE = 2

MAX_PIECES = 1 << 19  # Gemma has half as many

Value = int | bytes


class WireError(ValueError):
    """The bytes are no protobuf message."""


def varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """The number at `position` and the position behind it."""
    number = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7
        if shift > 63:
            break
    raise WireError(f"no whole number at {position}")


def fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, Value]]:
    """Number and value of each field of the message in data[position:end].

    Values are int (varints and fixed numbers as unsigned bits) or bytes.
    """
    left = MAX_PIECES
    while position < end:
        left -= 1
        if left < 0:
            raise WireError(f"more than {MAX_PIECES:,} fields")
        key, position = varint(data, position, end)
        number, wire = key >> 3, key & 7
        value: Value
        if wire == VARINT:
            value, position = varint(data, position, end)
        elif wire == BYTES:
            length, position = varint(data, position, end)
            if length > end - position:
                raise WireError(f"field {number} at {position} goes beyond the end")
            value = data[position : position + length]
            position += length
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            if size > end - position:
                raise WireError(f"field {number} at {position} goes beyond the end")
            value = int.from_bytes(data[position : position + size], "little")
            position += size
        else:
            raise WireError(f"field {number} at {position} has wire type {wire}")
        yield number, value


def recognises(head: bytes) -> bool:
    """Whether a file begins with a piece: a message (field 1) whose first field is a string."""
    try:
        length, position = varint(head, 1, min(len(head), 11))
    except WireError:
        return False
    return head[:1] == b"\x0a" and head[position : position + 1] == b"\x0a" and length > 2


def read(path: Path, limit: int) -> Vocabulary:
    """The vocabulary of a BPE tokenizer.model of at most `limit` bytes.

    UnsupportedError for models of other kinds.
    """
    data = read_file(path, limit)
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    specs: dict[int, dict[int, Value]] = {TRAINER: {}, NORMALIZER: {}, DENORMALIZER: {}}
    try:
        for number, value in fields(data, 0, len(data)):
            if number == PIECES and isinstance(value, bytes):
                piece, score, kind = read_piece(value)
                pieces.append(piece)
                scores.append(score)
                types.append(kind)
            elif number in specs and isinstance(value, bytes):
                specs[number].update(fields(value, 0, len(value)))
    except UnicodeDecodeError:
        raise CheckpointError(
            f"{path}: piece {len(pieces)} is not valid UTF-8", "the file is damaged"
        ) from None
    except WireError as error:
        raise CheckpointError(
            f"{path}: piece {len(pieces)} or what follows: {error}",
            "the file is cut short, damaged or no tokenizer.model",
        ) from None
    refuse_variants(path, specs)
    if len(pieces) < 2 or types.count(UNKNOWN) != 1:
        raise CheckpointError(
            f"{path}: {len(pieces)} pieces, {types.count(UNKNOWN)} of them unknown; expected two or"
            " more and one",
            "the file is damaged",
        )
    return vocabulary(pieces, scores, types, specs)


def read_piece(message: bytes) -> tuple[str, float, int]:
    """Text, score and type of a piece."""
    piece, score, kind = "", 0.0, NORMAL
    for number, value in fields(message, 0, len(message)):
        if number == PIECE and isinstance(value, bytes):
            piece = value.decode()
        elif number == SCORE and isinstance(value, int):
            (score,) = struct.unpack("<f", (value & 0xFFFFFFFF).to_bytes(4, "little"))
        elif number == TYPE and isinstance(value, int):
            kind = value
    if not piece or score != score or not NORMAL <= kind <= BYTE:
        raise WireError(f"piece {piece!r} has score {score} and type {kind}")
    return piece, score, kind


def refuse_variants(path: Path, specs: dict[int, dict[int, Value]]) -> None:
    """UnsupportedError for what this version cannot tokenise the same way."""
    trainer, normalizer = specs[TRAINER], specs[NORMALIZER]
    model_type = trainer.get(MODEL_TYPE, 1)
    if model_type != BPE:
        name = MODEL_TYPES.get(model_type, model_type) if isinstance(model_type, int) else "damaged"
        raise UnsupportedError(
            f"{path}: a sentencepiece model of type {name}", "this version reads BPE models"
        )
    for fault, present in (
        ("rules to normalise characters", bool(normalizer.get(CHARSMAP))),
        ("rules to denormalise characters", bool(specs[DENORMALIZER].get(CHARSMAP))),
        ("spaces that are not escaped", not normalizer.get(ESCAPE, 1)),
        ("spaces as suffixes of words", bool(trainer.get(SUFFIX, 0))),
    ):
        if present:
            raise UnsupportedError(
                f"{path}: a sentencepiece model with {fault}",
                "this version reads models trained with --normalization_rule_name=identity",
            )


def vocabulary(
    pieces: list[str], scores: list[float], types: list[int], specs: dict[int, dict[int, Value]]
) -> Vocabulary:
    """What was read, as plain data; BOS and EOS are found by name, as sentencepiece does."""
    trainer, normalizer = specs[TRAINER], specs[NORMALIZER]

    def control(field: int, default: bytes) -> int:
        name = trainer.get(field, default)
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else ""
        index = pieces.index(text) if text in pieces else -1
        return index if index >= 0 and types[index] == CONTROL else -1

    bos_id = control(BOS_PIECE, b"<s>")
    return Vocabulary(
        kind="spm",
        pieces=tuple(pieces),
        scores=np.array(scores, np.float32),
        types=np.array(types, np.int32),
        bos_id=bos_id,
        eos_id=control(EOS_PIECE, b"</s>"),
        unk_id=types.index(UNKNOWN),
        add_bos=bos_id >= 0,
        add_space_prefix=bool(normalizer.get(DUMMY_PREFIX, 1)),
        remove_extra_whitespaces=bool(normalizer.get(REMOVE_EXTRA, 1)),
    )
