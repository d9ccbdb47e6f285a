"""A tiny random model, and the command that uses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireside.engine.checkpoints import gguf_writer
from fireside.engine.config import ModelConfig
from tests.command import Cli
from tests.model_files import small_vocabulary
from tests.models import random_checkpoint


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with a vocabulary of bytes and a few pieces; it babbles and never ends."""
    vocabulary = small_vocabulary(320)
    config = ModelConfig("llama", 64, 96, 2, 4, 2, len(vocabulary), 256, 16)
    checkpoint = random_checkpoint(config, seed=3)
    path = tmp_path_factory.mktemp("models") / "tiny.gguf"
    gguf_writer.write(path, config, checkpoint.tensors, vocabulary, "tiny")
    return path


@pytest.fixture
def cli(tmp_path: Path, tiny_model: Path) -> Cli:
    return Cli(tmp_path, tiny_model)
