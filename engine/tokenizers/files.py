"""Tokenizer files: which kind one is, by its content, and llama2.c's tokenizer.bin."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from fireside.engine.checkpoints import (
    ggml_legacy,
    gguf_header,
    gguf_vocabulary,
    read_file,
    read_head,
)
from fireside.engine.checkpoints.source import Source
from fireside.engine.checkpoints.types import BYTE, CONTROL, NORMAL, UNKNOWN, Vocabulary
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers import hugging_face, sentencepiece_model, tiktoken_ranks
from fireside.engine.tokenizers.sentencepiece_model import MAX_PIECES
from fireside.engine.tokenizers.spm import SPACE, byte_pieces

MAX_PIECE = 1 << 12  # bytes of a piece of tokenizer.bin (Llama 2's longest has 27)
MAX_FILE = 1 << 24  # bytes of a tokenizer file (Gemma's has four million)
NAMES = ("tokenizer.json", "tokenizer.model", "tokenizer.bin")  # in a folder, the best first
HINT = "give a tokenizer.json, a tokenizer.model, a tokenizer.bin of llama2.c or a GGUF"


def read_vocabulary(path: Path, vocab_size: int | None = None) -> Vocabulary:
    """Read a tokenizer file, by content, or that of a folder.

    tokenizer.json (Hugging Face), tokenizer.model (sentencepiece, or Llama 3's), tokenizer.bin
    (llama2.c), or a GGUF's or an older ggml file's. `vocab_size` is what the model expects:
    CheckpointError where the file has another number; a tokenizer.json may have fewer, the rest are
    unused.
    """
    path = Path(path)
    head = read_head(path)
    if not head:
        return read_tokenizer_folder(path, vocab_size)
    if head.startswith(gguf_header.MAGIC):
        vocabulary = read_gguf(path)
    elif ggml_legacy.recognises(path, head):
        vocabulary = ggml_legacy.read_vocabulary(path)
    elif sentencepiece_model.recognises(head):
        vocabulary = sentencepiece_model.read(path, MAX_FILE)
    elif head.lstrip()[:1] == b"{":
        vocabulary = hugging_face.pad(hugging_face.read(path), vocab_size or 0)
    elif tiktoken_ranks.recognises(head):
        vocabulary = tiktoken_ranks.read(path, MAX_FILE)
    else:
        vocabulary = read_tokenizer_bin(path, head)
    return checked(path, vocabulary, vocab_size)


def checked(path: Path, vocabulary: Vocabulary, vocab_size: int | None) -> Vocabulary:
    """`vocabulary`, if it has as many tokens as the model expects."""
    if vocab_size is not None and len(vocabulary) != vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(vocabulary)} tokens, the model {vocab_size}",
            "choose the tokenizer that belongs to the model",
        )
    return vocabulary


def read_tokenizer_folder(path: Path, vocab_size: int | None = None) -> Vocabulary:
    """The tokenizer in a model's folder, with what tokenizer_config.json and the like add to it.

    A tokenizer.json that this version cannot do gives way to a tokenizer.model beside it.
    """
    refused: UnsupportedError | None = None
    for name in NAMES:
        if not (path / name).is_file():
            continue
        try:
            vocabulary = read_vocabulary(path / name, None)
        except UnsupportedError as error:
            refused = refused or error
            continue
        if name != "tokenizer.json":
            vocabulary = hugging_face.with_neighbours(vocabulary, path)
        return checked(path / name, hugging_face.pad(vocabulary, vocab_size or 0), vocab_size)
    if refused is not None:
        raise refused
    raise CheckpointError(f"{path}: a folder without a tokenizer", HINT)


def read_gguf(path: Path) -> Vocabulary:
    """The vocabulary in a GGUF file, with weights or without."""
    header = gguf_header.read_header(Source(path))
    vocabulary = gguf_vocabulary.read_vocabulary(path, header.metadata)
    if vocabulary is None:
        raise CheckpointError(f"{path}: holds no tokenizer", HINT)
    return vocabulary


def read_tokenizer_bin(path: Path, head: bytes) -> Vocabulary:
    """llama2.c's tokenizer.bin: the longest piece's bytes, then score, length, bytes of each piece.

    It tells neither the types of its pieces nor which are special: as in run.c 0 is unknown, 1 BOS
    and 2 EOS. It has plain spaces, no space prefix flag (there always is one), and bytes as
    "<0x0A>"; exports of its first weeks have the bytes as the characters of those numbers.
    """
    longest = int.from_bytes(head[:4], "little")
    if not 0 < longest <= MAX_PIECE or len(head) < 12:
        raise CheckpointError(f"{path}: not a tokenizer file of a known kind", HINT)
    raw, scores = parse_tokenizer_bin(path, read_file(path, MAX_FILE), longest)
    if len(raw) < 3:
        raise CheckpointError(f"{path}: {len(raw)} pieces, expected at least <unk>, <s> and </s>")
    try:
        pieces = [piece.decode() for piece in raw]
    except UnicodeDecodeError as error:
        raise UnsupportedError(
            f"{path}: piece {bytes(error.object)!r} is not UTF-8",
            "a byte-level tokenizer is not read by this version",
        ) from None
    if pieces[3:259] == [chr(i) for i in range(256)]:
        pieces[3:259] = [f"<0x{i:02X}>" for i in range(256)]
    pieces = ["<unk>", "<s>", "</s>"] + [piece.replace(" ", SPACE) for piece in pieces[3:]]
    types = np.where(byte_pieces(pieces), BYTE, NORMAL).astype(np.int32)
    types[:3] = UNKNOWN, CONTROL, CONTROL
    return Vocabulary("spm", tuple(pieces), np.array(scores, np.float32), types)


def parse_tokenizer_bin(path: Path, data: bytes, longest: int) -> tuple[list[bytes], list[float]]:
    """Pieces, of at most `longest` bytes, and scores of a tokenizer.bin, as they are."""
    raw: list[bytes] = []
    scores: list[float] = []
    entry = struct.Struct("<fi").unpack_from
    position = 4
    while position < len(data):
        if position + 8 > len(data):
            raise CheckpointError(
                f"{path}: ends within piece {len(raw)}", "the file is cut short: copy it again"
            )
        score, length = entry(data, position)
        start = position + 8
        position = start + length
        if not 0 <= length <= longest or position > len(data) or score != score:
            raise CheckpointError(
                f"{path}: piece {len(raw)} has score {score} and length {length}, expected a number"
                f" and 0 to {min(longest, len(data) - start)}",
                "the file is cut short, damaged or no tokenizer.bin",
            )
        raw.append(data[start:position])
        scores.append(score)
        if len(raw) > MAX_PIECES:
            raise CheckpointError(f"{path}: more than {MAX_PIECES:,} pieces", HINT)
    return raw, scores
