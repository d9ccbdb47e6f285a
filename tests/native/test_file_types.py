"""Whole models whose weights stay as the file has them, alone and mixed."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import architectures, blocks
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.executors.native_library import instruction_sets
from fireside.engine.executors.numpy_executor import NumpyExecutor
from tests.formats_table import GGUF, Checked
from tests.gguf_models import VOCABULARY
from tests.models import random_checkpoint, random_tensor
from tests.native.steps import Floats, build

# of those that are only read, with a scale for weights of a usual size
ONLY_READ = {"Q2_K": 4e-3, "Q3_K": 1.2e-3, "IQ4_NL": 1e-3, "IQ4_XS": 3e-5, "MXFP4": 0}
TYPES = ("BF16", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "mixed", *ONLY_READ)
CONFIG = ModelConfig("llama", 256, 512, 2, 4, 2, len(VOCABULARY), 128, 64)
TOKENS = np.random.default_rng(7).integers(3, len(VOCABULARY), 24).astype(np.int32)
PEER = "FIRESIDE_LLAMA_CPP_PYTHON"  # a Python that has llama-cpp-python


def checkpoint_of(kind: str, tied: bool = False) -> Checkpoint:
    """A random model; mixed: as llama.cpp's Q4_K_M, where v, down and the classifier are Q6_K."""
    if kind in ONLY_READ:
        return random_blocks(kind, tied)
    checkpoint = random_checkpoint(CONFIG, 5, "Q4_K" if kind == "mixed" else kind, tied)
    if kind != "mixed":
        return checkpoint
    tensors = dict(checkpoint.tensors)
    for name, tensor in tensors.items():
        if "attn_v" in name or "ffn_down" in name or name == "output.weight":
            tensors[name] = random_tensor(name, tensor.to_float32(), "Q6_K")
    return Checkpoint(Path("mixed"), "random", "mixed", CONFIG, tensors, None)


def random_blocks(kind: str, tied: bool) -> Checkpoint:
    """A model whose matrices are random bytes, but for their scales."""
    rng = np.random.default_rng(5)
    checkpoint = random_checkpoint(CONFIG, 5, tied=tied)
    form = blocks.get(kind)
    at = {"Q2_K": 80, "Q3_K": 108}.get(kind, 0)
    tensors = dict(checkpoint.tensors)
    for name, tensor in tensors.items():
        if len(tensor.shape) == 1:
            continue
        data = rng.integers(0, 256, blocks.nbytes(form, tensor.count)).astype(np.uint8)
        records = data.reshape(-1, form.block_bytes)
        scales = (ONLY_READ[kind] * rng.uniform(0.5, 1.5, (len(records), 2))).astype(np.float16)
        if kind == "MXFP4":
            records[:, 0] = rng.integers(120, 124, len(records))
        else:
            count = 4 if kind == "Q2_K" else 2
            records[:, at : at + count] = scales.view(np.uint8)[:, :count]
        tensors[name] = replace(tensor, block=kind, data=data)
    return replace(checkpoint, tensors=tensors)


def logits(checkpoint: Checkpoint, piece: int, isa: str = "", threads: int = 1) -> Floats:
    """Of all TOKENS, `piece` of them at a time."""
    plan = architectures.get("llama").plan(checkpoint.config, checkpoint.tied)
    executor = build(plan, checkpoint, "none", isa, threads)
    cache = executor.new_cache(len(TOKENS))
    starts = range(0, len(TOKENS), piece)
    return np.concatenate([executor.step(cache, TOKENS[i : i + piece], i, "all") for i in starts])


@pytest.mark.parametrize("kind", TYPES)
def test_the_same_bits_however_it_is_computed(kind: str) -> None:
    checkpoint = checkpoint_of(kind)
    expected = logits(checkpoint, 1, "reference").tobytes()
    for isa in instruction_sets():
        assert logits(checkpoint, len(TOKENS), isa, 2).tobytes() == expected
    assert logits(checkpoint, 5, threads=3).tobytes() == expected
    assert logits(checkpoint, 1, threads=2).tobytes() == expected


@pytest.mark.parametrize("kind", TYPES)
def test_numpy_computes_the_same(kind: str) -> None:
    checkpoint = checkpoint_of(kind, tied=True)
    plan = architectures.get("llama").plan(checkpoint.config, True)
    numpy = NumpyExecutor(plan, checkpoint, "none", None)
    expected = numpy.step(numpy.new_cache(len(TOKENS)), TOKENS, 0, "all")
    # an activation that lies between two int8 may be rounded either way
    np.testing.assert_allclose(logits(checkpoint, 7), expected, atol=0.02 * np.abs(expected).max())


@pytest.mark.parametrize("kind", TYPES)
def test_a_model_takes_the_memory_of_its_file(kind: str) -> None:
    checkpoint = checkpoint_of(kind)
    plan = architectures.get("llama").plan(checkpoint.config, checkpoint.tied)
    # 27 weights, each of which begins on a page
    more = 1.2 if kind == "Q2_K" else 1.15
    assert build(plan, checkpoint).nbytes < more * checkpoint.nbytes + 27 * 4096


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_1"])
def test_what_other_types_left_is_not_seen(kind: str) -> None:
    """Rows that are no whole 256, behind wider ones whose sums lie there in another form."""
    config = replace(CONFIG, dim=96, hidden_dim=512, n_heads=2, n_kv_heads=2)
    checkpoint = random_checkpoint(config, 5, kind)
    tensors = dict(checkpoint.tensors)
    for name, tensor in tensors.items():
        if "ffn_down" in name:
            tensors[name] = random_tensor(name, tensor.to_float32(), "Q5_0")
    checkpoint = replace(checkpoint, tensors=tensors)
    expected = logits(checkpoint, 1, "reference")
    assert np.isfinite(expected).all()
    for isa in instruction_sets():
        assert logits(checkpoint, len(TOKENS), isa).tobytes() == expected.tobytes()


PEER_PROGRAM = """
import json, sys
import numpy as np
from llama_cpp import Llama
llama = Llama(sys.argv[1], n_ctx=64, n_batch=64, n_threads=1, logits_all=True, verbose=False)
llama.eval(json.loads(sys.argv[2]))
np.save(sys.argv[3], np.array(llama.scores[: llama.n_tokens], np.float32))
"""


@pytest.mark.skipif(PEER not in os.environ, reason=f"{PEER} does not say where llama.cpp is")
@pytest.mark.parametrize("kind", TYPES)
def test_llama_cpp_computes_about_the_same(tmp_path: Path, kind: str, checked: Checked) -> None:
    types = ("Q4_K", "Q6_K") if kind == "mixed" else (kind,)
    for block in types:
        checked(GGUF, "llama", "llama", block, "llama.cpp: logits, roughly")
    checkpoint = replace(checkpoint_of(kind), vocabulary=VOCABULARY)
    path, result = tmp_path / "model.gguf", tmp_path / "logits.npy"
    gguf_writer.write_checkpoint(path, checkpoint)
    command = [os.environ[PEER], "-c", PEER_PROGRAM, path, json.dumps(TOKENS.tolist()), result]
    subprocess.run(command, check=True, capture_output=True)
    ours, theirs = logits(checkpoint, len(TOKENS)), np.load(result)
    # it rounds activations in other blocks
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
