"""What a model will need is known before it is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireside.engine import Quant, load
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.config import ModelConfig
from fireside.engine.model import Need, weights_nbytes
from tests.model_files import small_vocabulary
from tests.models import random_checkpoint

CONFIG = ModelConfig("llama", 64, 96, 2, 4, 2, 320, 256, 16)


@pytest.mark.parametrize("kernels", ["native", "numpy"])
@pytest.mark.parametrize("quant", ["none", "f16", "q8", "q4"])
@pytest.mark.parametrize("block", ["F32", "F16", "Q8_0", "Q4_0"])
def test_the_need_is_what_is_taken_then(
    tmp_path: Path, kernels: str, quant: Quant, block: str
) -> None:
    path = tmp_path / "model.gguf"
    tensors = random_checkpoint(CONFIG, seed=1, tied=False).tensors
    gguf_writer.write(path, CONFIG, tensors, small_vocabulary(320), "model", block)
    told: list[Need] = []
    model = load(path, quant=quant, kernels=kernels, admit=told.append)
    (need,) = told
    assert need.weights == model.nbytes
    assert need.context == 256
    if kernels == "native":  # the best there is
        assert weights_nbytes(model.checkpoint)[quant] == model.nbytes
    tables = 24 * 1024  # of rope's angles, and whole pages
    assert model.executor.new_cache(256).nbytes <= 256 * need.cache_per_token + tables


def test_a_refusal_ends_the_loading_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tensors = random_checkpoint(CONFIG, seed=1).tensors
    gguf_writer.write(path, CONFIG, tensors, small_vocabulary(320), "model")

    def refuse(need: Need) -> None:
        raise MemoryError(need.weights)

    read: list[int] = []
    with pytest.raises(MemoryError):
        load(path, progress=lambda done, total: read.append(done), admit=refuse)
    assert read == []
