"""Folders of Hugging Face's against transformers itself, which also made them.

transformers runs in a process of its own: of this Python where it is installed, else of the one
that FIRESIDE_TRANSFORMERS_PYTHON names.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import architectures, executors
from fireside.engine.checkpoints import gguf_writer, open_checkpoint
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.executors import Executor
from tests import transformers_models
from tests.formats_table import GGUF, HUGGING_FACE, META, PYTORCH, Checked
from tests.transformers_models import MODELS

VARIABLE = "FIRESIDE_TRANSFORMERS_PYTHON"
TORCH = {"F32": "", "F16": "float16", "BF16": "bfloat16"}
LIMIT = 1e-3
NAMES = (*MODELS, "llama-torch", "gpt2-torch", "llama-meta", "llama2c.pt")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model, made once."""
    python = os.environ.get(VARIABLE, "")
    if not python and all(importlib.util.find_spec(m) for m in ("torch", "transformers")):
        python = sys.executable
    if not python:
        pytest.skip(f"transformers is not installed, and {VARIABLE} names no Python that has it")
    folder = tmp_path_factory.mktemp("transformers")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [python, transformers_models.__file__, str(folder), "all"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def kinds() -> list[str]:
    return [name for name in executors.names() if not executors.get(name).why_not()]


FORMATS = {
    "llama-torch": "PyTorch's pytorch_model.bin", "gpt2-torch": "PyTorch's, of before 1.6",
    "llama-meta": "two shards", "llama2c.pt": "llama2.c's training",
}  # fmt: skip
GREEDY = "transformers: 64 greedy tokens, logits within 0.001"


def opened(path: Path) -> Checkpoint:
    """A model as it is loaded for a context of 70 tokens."""
    checkpoint = open_checkpoint(path)
    return replace(checkpoint, config=checkpoint.config.for_context(70))


def runner_of(checkpoint: Checkpoint, executor: str) -> Executor:
    """What computes it, with nothing rounded that need not be."""
    architecture = architectures.get(checkpoint.config.architecture)
    plan = architecture.plan(checkpoint.config, checkpoint.tied)
    return executors.choose(executor).build(plan, checkpoint, "none", 1, None, "f32")


@pytest.mark.parametrize("executor", kinds())
@pytest.mark.parametrize("name", NAMES)
def test_as_transformers(models: Path, name: str, executor: str, checked: Checked) -> None:
    """The same 64 tokens, each the likeliest, and the same logits of the whole text."""
    checkpoint = opened(models / name)
    form = {"llama-meta": META, "llama2c.pt": PYTORCH}.get(name, HUGGING_FACE)
    checked(form, checkpoint.config.architecture, FORMATS.get(name, name), "F32", GREEDY)
    runner = runner_of(checkpoint, executor)
    expected = np.load(models / f"{name}.npz")
    ids = expected["prompt"].astype(np.int32).tolist()
    cache = runner.new_cache(128)
    logits = [runner.step(cache, np.array(ids, np.int32), 0, "all")]
    for _ in range(64):
        ids.append(int(logits[-1][-1].argmax()))
        logits.append(runner.step(cache, np.array(ids[-1:], np.int32), len(ids) - 1, "all"))
    found = np.concatenate(logits)
    wanted = expected["logits"]
    assert found.shape == wanted.shape
    assert ids[6:] == expected["greedy"].tolist()
    assert np.abs(found - wanted).max() < LIMIT


@pytest.mark.parametrize("kind", ["F16", "BF16"])
@pytest.mark.parametrize("name", MODELS)
def test_half_the_bytes_are_the_same_model(
    models: Path, name: str, kind: str, checked: Checked
) -> None:
    """The weights are numbers that F16 and BF16 can hold."""
    checkpoint = opened(models / f"{name}.{TORCH[kind]}")
    matrices = {t.block for t in checkpoint.tensors.values() if len(t.shape) > 1}
    assert matrices == {kind}
    checked(HUGGING_FACE, checkpoint.config.architecture, name, kind, GREEDY)
    compare(models, name, runner_of(checkpoint, kinds()[0]))


def compare(models: Path, name: str, runner: Executor) -> None:
    """Logits of the whole text at once, and what is likeliest after each token."""
    expected = np.load(models / f"{name}.npz")
    ids = np.append(expected["prompt"], expected["greedy"]).astype(np.int32)
    found = runner.step(runner.new_cache(128), ids, 0, "all")
    assert np.abs(found - expected["logits"]).max() < LIMIT
    assert found[5:-1].argmax(-1).tolist() == expected["greedy"].tolist()


REFUSED = {
    "llama-yarn": "rope_magnitude", "qwen3-moe-plain": "normalise_experts",
    "gemma2-odd": "attention_scale", "gemma3-odd": "attention_scale",
    "smollm3-odd": "rope_layers", "gpt-neox-odd": "activation",
}  # fmt: skip


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize("name", [name for name in MODELS if name not in REFUSED])
def test_as_transformers_by_way_of_gguf(
    models: Path, tmp_path: Path, name: str, kind: str, checked: Checked
) -> None:
    source = models / (name if kind == "F32" else f"{name}.{TORCH[kind]}")
    gguf_writer.write_checkpoint(tmp_path / "x.gguf", open_checkpoint(source))
    checkpoint = opened(tmp_path / "x.gguf")
    checked(GGUF, checkpoint.config.architecture, name, kind, GREEDY)
    compare(models, name, runner_of(checkpoint, kinds()[0]))


@pytest.mark.parametrize("name", REFUSED)
def test_what_gguf_cannot_hold(models: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UnsupportedError, match=REFUSED[name]):
        gguf_writer.write_checkpoint(tmp_path / "x.gguf", open_checkpoint(models / name))


def test_what_a_folder_is_told_to_be(models: Path) -> None:
    checkpoint = open_checkpoint(models / "llama")
    assert checkpoint.format.startswith("Hugging Face (safetensors, ")
    assert checkpoint.name == "llama"
    assert checkpoint.vocabulary is None
    assert checkpoint.metadata["config.model_type"] == "llama"
    assert checkpoint.metadata["generation.eos_token_id"] == 2
    same = (models / "llama" / "config.json", models / "llama" / "model.safetensors.index.json")
    shard = next((models / "llama").glob("model-00001-*.safetensors"))
    for path in (*same, shard, models / "qwen2" / "model.safetensors"):
        assert open_checkpoint(path).tensors.keys() == open_checkpoint(path.parent).tensors.keys()
    torch = open_checkpoint(models / "gpt2-torch" / "pytorch_model.bin")
    assert "PyTorch" in torch.format


def change(folder: Path, copy: Path, **values: object) -> Path:
    """A copy of a folder whose config.json says something else."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    config = json.loads((folder / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | values))
    return copy


def test_a_config_json_of_earlier_versions(models: Path, tmp_path: Path) -> None:
    """Rope's base and what stretches it had keys of their own before transformers 5."""
    for name in ("llama-3.1", "llama-linear", "llama-yarn", "phi3-longrope", "gpt-neox"):
        expected = open_checkpoint(models / name).config
        rope = json.loads((models / name / "config.json").read_text())["rope_parameters"]
        theta = rope.pop("rope_theta")
        values = {"rope_parameters": None, "rope_theta": theta, "rope_scaling": rope}
        if name == "gpt-neox":
            share = rope.pop("partial_rotary_factor")
            values = {"rope_parameters": None, "rotary_emb_base": theta, "rotary_pct": share}
        assert open_checkpoint(change(models / name, tmp_path / name, **values)).config == expected
    expected = open_checkpoint(models / "gemma3").config
    values = {"rope_parameters": None, "rope_theta": 1e6, "rope_local_base_freq": 1e4}
    values |= {"layer_types": None, "sliding_window_pattern": 6}
    assert open_checkpoint(change(models / "gemma3", tmp_path / "g", **values)).config == expected


def test_what_cannot_be_honoured_is_refused(models: Path, tmp_path: Path) -> None:
    for name, values in (
        ("llama", {"model_type": "bert"}),
        ("llama", {"hidden_act": "relu2"}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        ("llama", {"quantization_config": {"quant_method": "gptq"}}),
        ("llama", {"num_hidden_layers": 3}),
        ("mistral", {"layer_types": ["chunked_attention"] * 4}),
        ("qwen3-moe", {"mlp_only_layers": [1]}),
        ("qwen3-moe", {"decoder_sparse_step": 2}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("llama", {"attention_bias": True}),
        ("llama", {"num_hidden_layers": 5}),
        ("llama", {"tie_word_embeddings": True, "num_attention_heads": 3}),
        ("llama", {"hidden_size": "64"}),
        ("llama", {"vocab_size": 0}),
        ("smollm3", {"no_rope_layers": [1]}),
        ("phi3-longrope", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]}}),
        ("gpt-neox", {"num_attention_heads": 2, "hidden_size": 32}),
    ):
        unsound = {"attention_bias", "hidden_size", "vocab_size", "no_rope_layers"} & values.keys()
        unsound |= {"tie_word_embeddings"} & values.keys()
        unsound |= {"num_hidden_layers"} if values.get("num_hidden_layers") == 5 else set()
        kind = CheckpointError if unsound or name == "phi3-longrope" else UnsupportedError
        with pytest.raises(kind) as caught:
            open_checkpoint(change(models / name, tmp_path / "copy", **values))
        assert str(tmp_path) in str(caught.value)
        assert str(caught.value).isprintable()
