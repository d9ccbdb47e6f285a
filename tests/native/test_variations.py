"""What architectures have beside Llama's, in C: NumPy's numbers, and the same bits however cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from fireside.engine import architectures
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.executors import KV, Quant, native_library
from fireside.engine.executors.native_lowering import Lowering
from fireside.engine.executors.native_weights import plan_layout
from fireside.engine.executors.numpy_executor import NumpyExecutor
from tests.models import VARIATIONS, random_checkpoint, random_tensor
from tests.native.steps import KINDS, Floats, in_pieces, llama, tokens_for

N = 90  # more than a page of the cache


@pytest.mark.parametrize("name", VARIATIONS)
@pytest.mark.parametrize("tied", [True, False])
def test_agrees_with_numpy(isa: str, name: str, tied: bool) -> None:
    config = VARIATIONS[name]
    checkpoint = random_checkpoint(config, 1, tied=tied)
    tokens = tokens_for(config.vocab_size, N)
    plan = architectures.get("llama").plan(config, tied)
    oracle = NumpyExecutor(plan, checkpoint, "none", None, "f32")
    expected = oracle.step(oracle.new_cache(N), tokens, 0, "all")
    logits = in_pieces(llama(checkpoint, isa=isa, kv="f32"), tokens, N)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "types", [("Q8_0", "Q5_0", "Q4_0"), ("F32", "Q8_0", "Q4_0"), ("Q5_0", "F16", "Q8_0")]
)
def test_experts_of_several_types(types: tuple[str, str, str]) -> None:
    """Gate and up read the same numbers, rounded for each as its type wants them."""
    config = VARIATIONS["experts"]
    checkpoint = random_checkpoint(config, 3)
    tensors = dict(checkpoint.tensors)
    for name, tensor in checkpoint.tensors.items():
        for part, block in zip(("gate", "up", "down"), types, strict=True):
            if f"ffn_{part}_exps" in name:
                tensors[name] = random_tensor(name, tensor.to_float32(), block)
    checkpoint = replace(checkpoint, tensors=tensors)
    tokens = tokens_for(config.vocab_size, 20)
    plan = architectures.get("llama").plan(config, True)
    oracle = NumpyExecutor(plan, checkpoint, "none", None, "f32")
    expected = oracle.step(oracle.new_cache(20), tokens, 0, "all")
    logits = in_pieces(llama(checkpoint, kv="f32"), tokens, 20)
    # a number between two int8 may be rounded either way: 1e-2 is far below what a wrong scale does
    np.testing.assert_allclose(logits, expected, atol=1e-2 * np.abs(expected).max())


@pytest.mark.parametrize("name", VARIATIONS)
@pytest.mark.parametrize(("quant", "block", "kv"), KINDS)
def test_same_bits_however_it_is_cut(name: str, quant: Quant, block: str, kv: KV) -> None:
    config = VARIATIONS[name]
    checkpoint = random_checkpoint(config, 2, block)
    tokens = tokens_for(config.vocab_size, N)
    expected = None
    for isa in native_library.instruction_sets():
        for threads in (1, 3):
            executor = llama(checkpoint, quant, isa, threads, kv)
            for size in (N, 7, 1):
                logits = in_pieces(executor, tokens, size)
                expected = logits if expected is None else expected
                assert logits.tobytes() == expected.tobytes(), (isa, threads, size)


@pytest.mark.parametrize("name", VARIATIONS)
@pytest.mark.parametrize("quant", ["none", "q8"])
def test_rows_that_are_a_threads_own(name: str, quant: Quant) -> None:
    """With many rows a thread goes through a layer with some of them, the last not a whole tile."""
    config = VARIATIONS[name]
    checkpoint = random_checkpoint(config, 2)
    tokens = tokens_for(config.vocab_size, 109)
    expected = in_pieces(llama(checkpoint, quant), tokens, 10)
    for threads in (2, 3):
        executor = llama(checkpoint, quant, threads=threads)
        assert in_pieces(executor, tokens, 109).tobytes() == expected.tobytes(), threads


def test_a_batch_has_the_bits_of_each_alone() -> None:
    for name in ("soft caps, windows", "experts", "all biases"):
        config = VARIATIONS[name]
        executor = llama(random_checkpoint(config, 3), "q8", threads=2)
        texts = [tokens_for(config.vocab_size, n) for n in (1, 40, 2, 1, 70)]
        parts = [(executor.new_cache(80), text, 0) for text in texts]
        together = executor.step_batch(parts)
        for text, logits in zip(texts, together, strict=True):
            alone = executor.step(executor.new_cache(80), text, 0, "last")
            assert alone.tobytes() == logits.tobytes(), name


def test_a_windowed_layer_reads_nothing_before_its_window() -> None:
    """What lies there may be anything: whole pages before the window are not even touched."""
    config = replace(VARIATIONS["long window, own rope"], windowed_layers=(True, True), window=30)
    executor = llama(random_checkpoint(config, 4), kv="f32")
    tokens = tokens_for(config.vocab_size, 200)
    cache, other = executor.new_cache(200), executor.new_cache(200)
    executor.step(cache, tokens, 0, "none")
    executor.step(other, np.concatenate([tokens[:60][::-1], tokens[60:]]), 0, "none")
    # two layers of 30: what comes before the last 60 positions is out of sight
    last = executor.step(cache, tokens[-1:], 199, "last")
    assert executor.step(other, tokens[-1:], 199, "last").tobytes() == last.tobytes()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_token_reads_the_experts_that_it_uses_and_no_other(threads: int) -> None:
    config = replace(VARIATIONS["odd experts"], n_layers=1)
    checkpoint = random_checkpoint(config, 5)
    token = tokens_for(config.vocab_size, 1)

    def logits(tensors: Mapping[str, Tensor]) -> Floats:
        executor = llama(replace(checkpoint, tensors=tensors), threads=threads)
        return executor.step(executor.new_cache(1), token, 0, "last")

    expected, used = logits(checkpoint.tensors), 0
    for e in range(config.n_experts):
        poisoned = dict(checkpoint.tensors)
        for part in ("gate", "up", "down"):
            tensor = checkpoint.tensors[f"blk.0.ffn_{part}_exps.weight"]
            weights = tensor.to_float32().copy()
            weights[e] = np.nan
            poisoned[tensor.name] = random_tensor(tensor.name, weights)
        used += logits(poisoned).tobytes() != expected.tobytes()
    assert used == config.n_experts_used


def test_there_is_nothing_beyond_a_table_of_positions() -> None:
    config = VARIATIONS["gelu, not gated"]
    executor = llama(random_checkpoint(config, 6))
    tokens = tokens_for(config.vocab_size, config.learned_positions + 1)
    cache = executor.new_cache(len(tokens))
    executor.step(cache, tokens[:-1], 0, "none")
    with pytest.raises(RuntimeError, match="positions"):
        executor.step(cache, tokens[-1:], config.learned_positions, "last")


def test_neighbours_fuse() -> None:
    """Operations a layer: the norms, biases and activations between matmuls cost no barrier."""
    fewest = {
        "head norms": 5,
        "all biases": 5,
        "gelu, not gated": 5,
        "parallel": 6,  # the second norm sees what the first did
        "soft caps, windows": 7,  # two norms behind, which add
        "experts": 7,  # a norm of its own, the router, the experts, an addition
    }
    for name, count in fewest.items():
        config = VARIATIONS[name]
        plan = architectures.get("llama").plan(config, True)
        checkpoint = random_checkpoint(config, 1)
        ops = Lowering(plan, plan_layout(plan, checkpoint, "none")).ops
        outside = 3 + (config.logit_softcap > 0)
        assert len(ops) == outside + count * config.n_layers, name
