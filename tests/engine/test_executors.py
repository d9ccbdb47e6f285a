"""Every executor runs the same Plan: against the reference, and cut into steps in every way."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fireside.engine import architectures, executors, reference
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.errors import KernelsError
from fireside.engine.executors import KV, Aborted, Executor, Quant
from tests.models import SHAPES, random_checkpoint

TEXT = np.random.default_rng(3).integers(0, 33, 21).astype(np.int32)


def kinds() -> list[str]:
    return [name for name in executors.names() if not executors.get(name).why_not()]


def build(
    name: str, checkpoint: Checkpoint, quant: Quant = "none", threads: int = 1, kv: KV = "f16"
) -> Executor:
    plan = architectures.get("llama").plan(checkpoint.config, checkpoint.tied)
    return executors.choose(name).build(plan, checkpoint, quant, threads, None, kv)


def all_logits(executor: Executor, tokens: np.ndarray = TEXT) -> np.ndarray:
    return executor.step(executor.new_cache(64), tokens, 0, "all")


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("block", ["F32", "F16"])
def test_floats_agree_with_the_reference(name: str, shape: str, tied: bool, block: str) -> None:
    checkpoint = random_checkpoint(SHAPES[shape], 1, block, tied)
    expected = reference.forward(checkpoint.config, reference.weights(checkpoint), TEXT.tolist())
    assert relative(all_logits(build(name, checkpoint, kv="f32")), expected) < 1e-5


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("block", "quant"),
    [("Q8_0", "none"), ("F32", "f16"), ("Q8_0", "f16"), ("F32", "q8"), ("F32", "q4")],
)
def test_quantised_weights_agree_with_numpy(
    name: str, shape: str, block: str, quant: Quant
) -> None:
    """The same int8 activations against the same weights: equal up to float32 rounding.

    An activation that lies on the edge between two steps may fall either way, so one in many
    logits may be off by what a step is worth; the median may not.
    """
    checkpoint = random_checkpoint(SHAPES[shape], 2, block)
    expected = all_logits(build("numpy", checkpoint, quant))
    actual = all_logits(build(name, checkpoint, quant))
    difference = np.abs(actual - expected) / np.abs(expected).max()
    assert np.median(difference) < 1e-5
    assert difference.max() < 0.02


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize(("quant", "distance"), [("q8", 0.05), ("q4", 0.5)])
def test_quantised_weights_stay_near_the_reference(
    name: str, quant: Quant, distance: float
) -> None:
    checkpoint = random_checkpoint(SHAPES["plain"], 3)
    expected = reference.forward(checkpoint.config, reference.weights(checkpoint), TEXT.tolist())
    actual = all_logits(build(name, checkpoint, quant))
    assert np.linalg.norm(actual - expected) / np.linalg.norm(expected) < distance


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("quant", ["none", "q8", "q4"])
def test_bits_do_not_depend_on_the_steps(name: str, quant: Quant) -> None:
    executor = build(name, random_checkpoint(SHAPES["grouped"], 4), quant)
    whole = all_logits(executor)
    for cut in (1, 7, 20):
        cache = executor.new_cache(40)
        parts = [
            executor.step(cache, TEXT[at : at + cut], at, "all") for at in range(0, len(TEXT), cut)
        ]
        assert np.array_equal(np.concatenate(parts), whole)
    cache = executor.new_cache(40)
    assert executor.step(cache, TEXT[:20], 0, "none").shape == (0, whole.shape[1])
    assert np.array_equal(executor.step(cache, TEXT[20:], 20, "last")[0], whole[-1])


@pytest.mark.parametrize("name", kinds())
def test_a_step_may_go_back_over_what_is_cached(name: str) -> None:
    executor = build(name, random_checkpoint(SHAPES["odd"], 5))
    whole = all_logits(executor)
    cache = executor.new_cache(32)
    executor.step(cache, TEXT[::-1].copy(), 0, "none")  # another text first
    executor.step(cache, TEXT[:5], 0, "none")
    assert np.array_equal(executor.step(cache, TEXT[5:], 5, "all"), whole[5:])


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize(("kv", "distance"), [("f32", 1e-6), ("f16", 2e-3), ("q8", 2e-2)])
def test_a_rounded_cache_stays_near_the_reference(name: str, kv: KV, distance: float) -> None:
    checkpoint = random_checkpoint(SHAPES["grouped"], 8)
    expected = reference.forward(checkpoint.config, reference.weights(checkpoint), TEXT.tolist())
    actual = all_logits(build(name, checkpoint, kv=kv))
    off = float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))
    assert off < distance
    assert kv == "f32" or off > distance / 100  # it is rounded, then


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("kv", executors.KVS)
@pytest.mark.parametrize("shape", SHAPES)
def test_executors_round_the_cache_alike(name: str, kv: KV, shape: str) -> None:
    checkpoint = random_checkpoint(SHAPES[shape], 9)
    expected = all_logits(build("numpy", checkpoint, kv=kv))
    difference = np.abs(all_logits(build(name, checkpoint, kv=kv)) - expected)
    # a key on the edge between two steps may fall either way; most may not
    assert np.median(difference) < 1e-5 * np.abs(expected).max()
    assert difference.max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("name", kinds())
def test_huge_keys_do_not_become_infinite(name: str) -> None:
    checkpoint = random_checkpoint(SHAPES["plain"], 10)
    checkpoint.tensors["blk.0.attn_norm.weight"].data.view(np.float32)[:] *= 1e6
    assert np.isfinite(all_logits(build(name, checkpoint, kv="f16"))).all()


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


@pytest.mark.parametrize("name", kinds())
@pytest.mark.parametrize("threads", [1, 3])
def test_siblings_in_one_step_have_the_bits_of_each_alone(name: str, threads: int) -> None:
    config = SHAPES["grouped"]
    executor = build(name, random_checkpoint(config, 11), "q8", threads)
    past = np.resize(TEXT, 70)  # ends within a page
    origin = executor.new_cache(128)
    executor.step(origin, past, 0, "none")
    siblings = [origin, *(executor.fork(origin) for _ in range(4))]
    alone = [executor.new_cache(128) for _ in siblings]
    # 1. they part, one of them two tokens back; 2. one runs ahead; 3. single tokens again
    texts = [[past] for _ in siblings]
    texts[3] = [past[:-2]]
    for round_ in range(5):
        parts = []
        for i, cache in enumerate(siblings):
            count = 3 if i == round_ else 1
            new = ids(*((7 * round_ + 5 * i + j) % config.vocab_size for j in range(count)))
            parts.append((cache, new, sum(map(len, texts[i]))))
            texts[i].append(new)
        together = executor.step_batch(parts)
        for i, cache in enumerate(alone):
            whole = executor.step(cache, np.concatenate(texts[i]), 0, "last")
            assert whole.tobytes() == together[i : i + 1].tobytes(), (round_, i)


@pytest.mark.parametrize("name", kinds())
def test_a_fork_goes_its_own_way(name: str) -> None:
    executor = build(name, random_checkpoint(SHAPES["odd"], 12))
    origin = executor.new_cache(200)
    executor.step(origin, np.resize(TEXT, 150), 0, "none")
    fork = executor.fork(origin)
    expected = executor.step(executor.fork(fork), ids(1), 150, "last")
    executor.step(fork, np.resize(TEXT[::-1], 90), 20, "none")  # over what they share
    assert executor.step(origin, ids(1), 150, "last").tobytes() == expected.tobytes()
    again = executor.fork(origin)
    del origin
    assert executor.step(again, ids(1), 150, "last").tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", kinds())
def test_a_step_refuses_one_cache_twice(name: str) -> None:
    executor = build(name, random_checkpoint(SHAPES["plain"], 13))
    cache = executor.new_cache(20)
    with pytest.raises(RuntimeError, match="only once"):
        executor.step_batch([(cache, ids(1), 0), (cache, ids(2), 0)])


@pytest.mark.parametrize("name", kinds())
def test_abort_ends_one_step(name: str) -> None:
    executor = build(name, random_checkpoint(SHAPES["plain"], 6))
    cache = executor.new_cache(64)
    thread = threading.Thread(target=executor.abort)
    thread.start()
    thread.join()
    with pytest.raises(Aborted):
        executor.step(cache, TEXT, 0, "last")
    assert executor.step(cache, TEXT, 0, "last").shape == (1, SHAPES["plain"].vocab_size)


def test_the_names_are_checked() -> None:
    assert executors.choose("auto").name == executors.names()[0] or executors.names()
    with pytest.raises(KernelsError, match="choose one of auto, native, numpy"):
        executors.choose("fortran")


def test_progress_counts_to_the_end_and_may_cancel() -> None:
    checkpoint = random_checkpoint(SHAPES["plain"], 7)
    plan = architectures.get("llama").plan(checkpoint.config, True)
    for name in kinds():
        seen: list[tuple[int, int]] = []
        executors.choose(name).build(
            plan, checkpoint, "q8", 1, lambda a, b, seen=seen: seen.append((a, b))
        )
        assert seen[-1][0] == seen[-1][1] > 0
        assert [a for a, _ in seen] == sorted(a for a, _ in seen)

        def cancel(done: int, total: int) -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            executors.choose(name).build(plan, checkpoint, "q8", 1, cancel)


def test_the_reference_turns_halves_and_pairs_differently() -> None:
    """A guard on the oracle itself: rope at position 0 is the identity, and styles differ after."""
    x = np.random.default_rng(0).standard_normal((2, 1, 8)).astype(np.float32)
    pairs = ModelConfig("llama", 8, 8, 1, 1, 1, 8, 8, 8)
    halves = ModelConfig("llama", 8, 8, 1, 1, 1, 8, 8, 8, rope_style="half")
    assert np.array_equal(reference.rope(x, pairs)[0], x[0])
    assert not np.allclose(reference.rope(x, pairs)[1], reference.rope(x, halves)[1])
    np.testing.assert_allclose(
        np.linalg.norm(reference.rope(x, halves), axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-6
    )
