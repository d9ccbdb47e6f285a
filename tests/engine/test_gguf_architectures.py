"""GGUF files of every architecture: what we write we read, and llama.cpp writes the same text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import architectures, convert, executors, load
from fireside.engine.checkpoints import gguf_writer, open_checkpoint
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, ContextOverflowError, UnsupportedError
from fireside.engine.executors.numpy_executor import NumpyExecutor
from tests.formats_table import GGUF, Checked
from tests.gguf_models import VOCABULARY
from tests.model_files import gguf_file
from tests.models import ARCHITECTURES, WINDOWS, random_checkpoint, random_tensor

PROMPT = [1, 262, 270, 281, 265, 290 % 288, 260, 275]
NEW = 24  # more than the windows of the models
# Logits of a prompt and of what is most probable after it. Runs in the peer's Python.
PEER = """
import json, sys
import llama_cpp, numpy as np
path, prompt, new = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
f32 = {"type_k": 0, "type_v": 0}
llm = llama_cpp.Llama(path, n_ctx=64, n_threads=1, logits_all=True, verbose=False, **f32)
tokens = list(prompt)
llm.eval(prompt)
for _ in range(new):
    tokens.append(int(np.argmax(llm.scores[llm.n_tokens - 1])))
    llm.eval(tokens[-1:])
np.save(sys.argv[4], np.array(llm.scores[: llm.n_tokens]))
print(json.dumps(tokens))
"""


def model(name: str, tied: bool = False) -> Checkpoint:
    """Random weights, larger where that brings out what soft caps and windows do."""
    checkpoint = random_checkpoint(ARCHITECTURES[name], 7, tied=tied)
    return replace(checkpoint, vocabulary=VOCABULARY, name="A small one")


def peer() -> str:
    """A Python that has llama_cpp; skips where there is none."""
    for python in (sys.executable, os.environ.get("FIRESIDE_PEER_PYTHON", "")):
        probe = [python, "-c", "import llama_cpp"]
        if python and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("llama_cpp is not importable (FIRESIDE_PEER_PYTHON names a Python that has it)")


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_what_we_write_we_read(tmp_path: Path, name: str, tied: bool) -> None:
    original = model(name, tied)
    gguf_writer.write_checkpoint(tmp_path / "model.gguf", original)
    opened = open_checkpoint(tmp_path / "model.gguf")
    rounded = {
        key: tuple(np.float32(getattr(original.config, key)).astype(float).tolist())
        for key in ("rope_factors", "long_factors")
    }
    assert opened.config == replace(original.config, **rounded)
    for key, expected in original.tensors.items():
        assert np.array_equal(opened.tensors[key].data, expected.data)


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_are_told_layer_by_layer(tmp_path: Path, name: str) -> None:
    original = random_checkpoint(WINDOWS[name], 7)
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, replace(original, vocabulary=VOCABULARY))
    opened = open_checkpoint(path)
    assert opened.config == original.config
    # a window that no text reaches is what converters copy of models that do not use theirs
    unused = {f"{name}.attention.sliding_window": 128}
    path.write_bytes(gguf_file(model(name), unused)[0])
    assert open_checkpoint(path).config == ARCHITECTURES[name]
    # what was read is carried as it was: truths stay truths
    convert.convert(opened, tmp_path / "again.gguf")
    again = open_checkpoint(tmp_path / "again.gguf")
    assert again.config == original.config
    pattern = again.metadata[f"{name}.attention.sliding_window_pattern"]
    assert isinstance(pattern, np.ndarray)
    assert pattern.dtype == bool


def test_factors_for_long_texts_are_chosen_by_the_context(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, model("phi3-long"))
    short, long = (load(path, kernels="numpy", context=context).config for context in (0, 33))
    assert (short.context_length, long.context_length) == (32, 128)
    assert short.rope_factors != long.rope_factors
    assert long.rope_factors == short.long_factors
    load(path, kernels="numpy", context=100).session(100)
    with pytest.raises(ContextOverflowError, match="100"):
        load(path, kernels="numpy").session(100)


def test_experts_each_in_a_tensor_of_its_own(tmp_path: Path) -> None:
    """As llama.cpp's first converters of Mixtral wrote them, quantised or not."""
    for block in ("F32", "Q8_0", "Q4_0"):
        whole = random_checkpoint(ARCHITECTURES["mixtral"], 7, block)
        tensors = dict(whole.tensors)
        for name in [name for name in tensors if "_exps" in name]:
            stack = tensors.pop(name)
            for i, part in enumerate(np.split(stack.data, stack.shape[0])):
                one = name.replace("_exps", f".{i}")
                tensors[one] = Tensor(one, stack.shape[1:], stack.block, part)
        old = replace(whole, tensors=tensors, vocabulary=VOCABULARY)
        path = tmp_path / "model.gguf"
        path.write_bytes(gguf_file(old)[0])
        opened = open_checkpoint(path)
        assert opened.tensors.keys() == whole.tensors.keys()
        np.testing.assert_array_equal(logits(opened, PROMPT), logits(whole, PROMPT))
        if "native" in executors.names() and not executors._REGISTRY["native"].why_not():
            plan = architectures.get("llama").plan(opened.config, True)
            runner = executors.choose("native").build(plan, opened, "none", 1, None, "f32")
            found = runner.step(runner.new_cache(64), np.array(PROMPT, np.int32), 0, "all")
            expected = logits(whole, PROMPT)
            np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
        del tensors["blk.1.ffn_up.2.weight"]
        path.write_bytes(gguf_file(replace(old, tensors=tensors))[0])
        with pytest.raises(CheckpointError, match=r"blk\.1\.ffn_up\.0\.weight and so on"):
            open_checkpoint(path)


def logits(checkpoint: Checkpoint, tokens: list[int]) -> np.ndarray:
    config = checkpoint.config.for_context(64)  # the peer's
    plan = architectures.get(config.architecture).plan(config, checkpoint.tied)
    executor = NumpyExecutor(plan, checkpoint, "none", None, "f32")
    ids = np.array(tokens, np.int32)
    return executor.step(executor.new_cache(64), ids, 0, "all")


@pytest.mark.parametrize("block", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_llama_cpp_says_the_same(tmp_path: Path, name: str, block: str, checked: Checked) -> None:
    path = tmp_path / "model.gguf"
    gguf_writer.write_checkpoint(path, model(name, tied=name.startswith("gemma")), block)
    exact = block == "F32"
    oracle = "llama.cpp: " + ("24 greedy tokens, logits within 1%" if exact else "logits, roughly")
    checked(GGUF, ARCHITECTURES[name].architecture, name, block, oracle)
    compare(path, exact)


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_yarn_is_llama_cpps(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.gguf"
    scaling = {"type": "yarn", "factor": 4.0, "original_context_length": 32}
    changes: dict[str, object] = {
        f"{name}.rope.scaling.{key}": value for key, value in scaling.items()
    }
    path.write_bytes(gguf_file(model(name), changes)[0])
    config = open_checkpoint(path).config
    assert len(set(config.rope_factors)) > 2
    assert config.rope_magnitude > 1.1
    compare(path)


def compare(path: Path, exact: bool = True) -> None:
    """llama.cpp's logits and greedy tokens beside ours; roughly where it rounds activations."""
    python, scores = peer(), path.with_name("scores.npy")
    command = [python, "-c", PEER, str(path), json.dumps(PROMPT), str(NEW), str(scores)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    tokens = json.loads(done.stdout.splitlines()[-1])
    ours, theirs = logits(open_checkpoint(path), tokens), np.load(scores)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99
    if not exact:
        return
    assert np.abs(ours - theirs).max() < 0.01 * np.abs(theirs).max()
    assert ours[len(PROMPT) - 1 : -1].argmax(-1).tolist() == tokens[len(PROMPT) :]


@pytest.mark.parametrize("name", ["llama", "smollm3", "mixtral", "linear"])
def test_rope_by_halves_is_put_in_ggufs_order(tmp_path: Path, name: str) -> None:
    """The rows of a model as Hugging Face has it: written in another order, the same logits."""
    original = model(name)
    bias = replace(original.config, rope_style="half", qkv_bias=True)
    half = replace(random_checkpoint(bias, 8), vocabulary=VOCABULARY)
    gguf_writer.write_checkpoint(tmp_path / "model.gguf", half)
    opened = open_checkpoint(tmp_path / "model.gguf")
    assert opened.config == replace(bias, rope_style="interleaved")
    expected = logits(half, PROMPT)
    np.testing.assert_allclose(logits(opened, PROMPT), expected, atol=1e-5 * np.abs(expected).max())
    gguf_writer.write_checkpoint(tmp_path / "q8.gguf", half, "Q8_0")
    whole = logits(random_quantised(half, bias), PROMPT)
    quantised = logits(open_checkpoint(tmp_path / "q8.gguf"), PROMPT)
    np.testing.assert_allclose(quantised, whole, atol=1e-5 * np.abs(whole).max())


def random_quantised(checkpoint: Checkpoint, config: ModelConfig) -> Checkpoint:
    tensors = {
        name: random_tensor(name, tensor.to_float32(), "F32" if len(tensor.shape) == 1 else "Q8_0")
        for name, tensor in checkpoint.tensors.items()
    }
    return replace(checkpoint, config=config, tensors=tensors)


REFUSED: list[tuple[str, dict[str, object], str]] = [
    ("llama", {"llama.rope.scaling.type": "longrope"}, "rope.scaling.type is 'longrope'"),
    ("llama", {"llama.rope.scaling.yarn_ext_factor": 0.5}, "yarn_ext_factor is 0.5"),
    ("llama", {"llama.rope.scaling.factor": 2.0}, "scaling.factor is 2.0"),
    ("llama", {"llama.attention.causal": False}, "causal is False"),
    ("llama", {"llama.attention.max_alibi_bias": 8.0}, "max_alibi_bias is 8.0"),
    ("llama", {"llama.residual_scale": 0.2}, "residual_scale is 0.2"),
    ("llama", {"llama.logit_scale": 0.2}, "logit_scale is 0.2"),
    ("mixtral", {"llama.expert_shared_count": 1}, "expert_shared_count is 1"),
    ("qwen3moe", {"qwen3moe.expert_gating_func": 2}, "expert_gating_func is 2"),
    ("qwen3moe", {"qwen3moe.expert_used_count": 7}, "expert_used_count is 7"),
    ("qwen2", {"qwen2.attention.sliding_window": 64}, "sliding_window is 64"),
    ("phi3", {"phi3.rope.scaling.type": "yarn2"}, "yarn2"),
    ("qwen3", {"qwen3.attention.head_count_kv": np.array([2, 1, 2])}, "differs from layer"),
    ("gemma3", {"gemma3.attention.sliding_window_pattern": "x"}, "sliding_window_pattern"),
    ("gptneox", {"gptneox.use_parallel_residual": 1}, "use_parallel_residual"),
    ("gpt2", {"gpt2.attention.layer_norm_epsilon": None}, "layer_norm_epsilon is missing"),
]


@pytest.mark.parametrize(("name", "changes", "message"), REFUSED)
def test_what_cannot_be_honoured_is_refused(
    tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_file(model(name), changes)[0])
    with pytest.raises((UnsupportedError, CheckpointError), match=message):
        open_checkpoint(path)


def test_numbers_for_each_layer_may_be_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    changes = {"qwen3.attention.head_count_kv": np.array([2, 2, 2], np.int32)}
    path.write_bytes(gguf_file(model("qwen3"), changes)[0])
    assert open_checkpoint(path).config == ARCHITECTURES["qwen3"]


def test_tensors_that_nobody_would_use_are_refused(tmp_path: Path) -> None:
    c = model("llama")
    for name in ("blk.0.attn_q_norm.weight", "blk.1.attn_k.bias"):
        tensors = {**c.tensors, name: random_tensor(name, np.ones(32, np.float32))}
        path = tmp_path / "model.gguf"
        path.write_bytes(gguf_file(replace(c, tensors=tensors))[0])
        with pytest.raises(UnsupportedError, match=name):
            open_checkpoint(path)


@pytest.mark.parametrize("wrong", [np.zeros(8), np.full(8, np.nan), np.ones(7)])
def test_factors_of_rope_are_checked(tmp_path: Path, wrong: np.ndarray) -> None:
    c = model("llama")
    tensor: Tensor = random_tensor("rope_freqs.weight", wrong.astype(np.float32))
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_file(replace(c, tensors={**c.tensors, tensor.name: tensor}))[0])
    with pytest.raises(CheckpointError, match="rope_freqs"):
        open_checkpoint(path)
