"""Hugging Face's folders: config.json, weights in safetensors or torch files, a tokenizer."""

from __future__ import annotations

from pathlib import Path

from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.errors import UnsupportedError


def is_weights(path: Path) -> bool:
    """Whether it is called as Hugging Face's files of torch are."""
    return path.name.startswith("pytorch_model")


def read(path: Path) -> Checkpoint:
    """Open a folder, or the one that a file of weights lies in."""
    raise UnsupportedError(f"{path}: a folder of Hugging Face's")
