"""Model files small enough to load in a moment; what they write is nonsense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.model_files import llama2c, small_vocabulary, tokenizer_bin
from tests.models import SHAPES, random_checkpoint

VOCABULARY = 320


def write_tiny(folder: Path, name: str = "tiny.bin", version: int = 0, seed: int = 1) -> Path:
    """A llama2.c file in `folder`, with its tokenizer beside it; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(SHAPES["plain"], vocab_size=VOCABULARY, context_length=256)
    path = folder / name
    path.write_bytes(llama2c(random_checkpoint(config, seed), version))
    (folder / "tokenizer.bin").write_bytes(tokenizer_bin(small_vocabulary(VOCABULARY)))
    return path
