"""tokenizer.model files, made by hand a field at a time."""

from __future__ import annotations

import struct
from pathlib import Path

from fireside.engine.checkpoints.types import Vocabulary
from fireside.engine.tokenizers import read_vocabulary


def read_raw(raw: bytes, vocab_size: int | None = None) -> Vocabulary:
    """What `read_vocabulary` makes of a file with these bytes."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer"
        path.write_bytes(raw)
        return read_vocabulary(path, vocab_size)


def protobuf(number: int, value: bytes | int) -> bytes:
    """One field of a message, lengths below 128."""
    if isinstance(value, int):
        return (
            bytes([number << 3 & 127]) + bytes([value]) if number < 16 else varints(number, value)
        )
    return bytes([number << 3 | 2]) + bytes([len(value)]) + value


def varints(number: int, value: int) -> bytes:
    return bytes([number << 3 & 127 | 128, number >> 4]) + bytes([value])


def piece(text: str, score: float = 0.0, kind: int | None = None) -> bytes:
    message = protobuf(1, text.encode()) + b"\x15" + struct.pack("<f", score)
    return protobuf(1, message + (b"" if kind is None else protobuf(3, kind)))
