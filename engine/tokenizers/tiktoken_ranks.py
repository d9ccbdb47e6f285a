"""Llama 3's own tokenizer.model: a line for each piece, its bytes in base64 and its rank.

(openai/tiktoken, load.py; meta-llama/llama-models, tokenizer.py for the special tokens.) The pieces
are merged by the ranks of what comes of it. The file has no special tokens: they follow behind.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np

from fireside.engine.checkpoints import read_file
from fireside.engine.checkpoints.bpe import Bpe
from fireside.engine.checkpoints.gguf_pretokenizers import RECIPES
from fireside.engine.checkpoints.types import CONTROL, NORMAL, Vocabulary
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers.steps import CHARACTERS

LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) (\d{1,7})\r?\n")
LLAMA3_PIECES = 128_000
SPECIALS = 256  # special tokens of Llama 3
NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}


def recognises(head: bytes) -> bool:
    """Whether a file begins with such a line, of rank 0."""
    match = LINE.match(head)
    return match is not None and int(match[2]) == 0


def read(path: Path, limit: int) -> Vocabulary:
    """The vocabulary of a tokenizer.model of Llama 3, 3.1, 3.2 or 3.3."""
    data = read_file(path, limit)
    if (count := data.count(b"\n")) > 2 * LLAMA3_PIECES:
        raise UnsupportedError(f"{path}: a tiktoken file with {count:,} pieces")
    pieces: list[str] = []
    for i, line in enumerate(data.splitlines(keepends=True)):
        match = LINE.fullmatch(line if line.endswith(b"\n") else line + b"\n")
        try:
            if match is None or int(match[2]) != i:
                raise ValueError
            raw = base64.b64decode(match[1], validate=True)
        except ValueError:
            raise CheckpointError(
                f"{path}: line {i + 1} is {line[:40]!r}, expected a piece in base64 and {i}",
                "the file is cut short, damaged or no tokenizer.model",
            ) from None
        pieces.append("".join(map(CHARACTERS.__getitem__, raw)))
    if len(pieces) != LLAMA3_PIECES:
        raise UnsupportedError(
            f"{path}: a tiktoken file with {len(pieces):,} pieces",
            f"this version knows that of Llama 3, with {LLAMA3_PIECES:,}; a tokenizer.json is read"
            " for every model",
        )
    return with_specials(pieces)


def with_specials(pieces: list[str]) -> Vocabulary:
    """The pieces of a file and Llama 3's special tokens."""
    first = len(pieces)
    reserved = iter(range(SPECIALS))
    specials = [
        NAMED.get(i) or f"<|reserved_special_token_{next(reserved)}|>" for i in range(SPECIALS)
    ]
    count = first + SPECIALS
    recipe = RECIPES["llama-bpe"]
    return Vocabulary(
        kind="bpe",
        pieces=(*pieces, *specials),
        scores=np.zeros(count, np.float32),
        types=np.where(np.arange(count) < first, NORMAL, CONTROL).astype(np.int32),
        bos_id=first,
        eos_id=first + 1,
        unk_id=-1,
        add_bos=True,
        add_space_prefix=False,
        end_ids=(first + 8, first + 9),
        bpe=Bpe(None, (), recipe.steps, ignore_merges=recipe.ignore_merges),
    )
