"""A whole step: the same bits however the work is cut, and the reference's numbers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import executors, reference
from fireside.engine.executors import KV, Aborted, Quant, native_library
from fireside.engine.executors.native import NativeExecutor
from tests.models import SHAPES, random_checkpoint
from tests.native.steps import KINDS, build, in_pieces, llama, matmul_model, tokens_for

N = 100  # more than a page of the cache


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
def test_agrees_with_the_reference(isa: str, shape: str, tied: bool) -> None:
    config = SHAPES[shape]
    checkpoint = random_checkpoint(config, 1, tied=tied)
    tokens = tokens_for(config.vocab_size, N)
    expected = reference.forward(config, reference.weights(checkpoint), tokens.tolist())
    logits = in_pieces(llama(checkpoint, isa=isa, kv="f32"), tokens, N)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("quant", "block", "kv"), KINDS)
def test_same_bits_however_it_is_cut(shape: str, quant: Quant, block: str, kv: KV) -> None:
    config = SHAPES[shape]
    checkpoint = random_checkpoint(config, 2, block, tied=shape != "odd")
    tokens = tokens_for(config.vocab_size, N)
    expected = None
    for isa in native_library.instruction_sets():
        for threads in (1, 2, 3, 4):
            executor = llama(checkpoint, quant, isa, threads, kv)
            for size in (N, 7, 1):
                logits = in_pieces(executor, tokens, size)
                expected = logits if expected is None else expected
                assert logits.tobytes() == expected.tobytes(), (isa, threads, size)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize(("rows", "cols"), [(5, 32), (16 * 37 + 5, 64), (16 * 41, 2048)])
def test_every_panel_is_taken_once(threads: int, rows: int, cols: int) -> None:
    """One row's panels go to whoever is ready, with more threads than cores as well."""
    rng = np.random.default_rng(8)
    weights = rng.normal(size=(rows, cols)).astype(np.float32)
    plan, checkpoint = matmul_model(weights, rng.normal(size=(3, cols)).astype(np.float32), "Q8_0")
    expected = steps_of_one_row(build(plan, checkpoint), 3)
    executor = build(plan, checkpoint, threads=threads)
    for _ in range(50):
        assert steps_of_one_row(executor, 3) == expected


def steps_of_one_row(executor: NativeExecutor, n: int) -> list[bytes]:
    cache = executor.new_cache(n)
    tokens = np.arange(n, dtype=np.int32)
    return [executor.step(cache, tokens[i : i + 1], i, "all").tobytes() for i in range(n)]


def test_one_thread_alone_now_and_then_changes_nothing() -> None:
    """The governor tries it after some hundred steps: the team then goes on as it was."""
    config = SHAPES["plain"]
    checkpoint = random_checkpoint(config, 9)
    tokens = tokens_for(config.vocab_size, 1200)
    expected = in_pieces(llama(checkpoint), tokens, 1)
    assert in_pieces(llama(checkpoint, threads=3), tokens, 1).tobytes() == expected.tobytes()


def test_many_rows_go_through_in_chunks() -> None:
    config = SHAPES["plain"]
    tokens = tokens_for(config.vocab_size, 600)
    executor = llama(random_checkpoint(config, 3), "q8", threads=2)
    whole = executor.step(executor.new_cache(600), tokens, 0, "all")
    last = executor.step(executor.new_cache(600), tokens, 0, "last")
    assert last.tobytes() == whole[-1:].tobytes()
    assert in_pieces(executor, tokens, 100).tobytes() == whole.tobytes()


def test_rows_none_fills_the_cache() -> None:
    config = SHAPES["grouped"]
    tokens = tokens_for(config.vocab_size, N)
    executor = llama(random_checkpoint(config, 4))
    cache = executor.new_cache(N)
    assert executor.step(cache, tokens[:-1], 0, "none").shape == (0, config.vocab_size)
    logits = executor.step(cache, tokens[-1:], N - 1, "last")
    assert logits.tobytes() == in_pieces(executor, tokens, N)[-1:].tobytes()


def test_what_lies_beyond_in_the_cache_does_not_matter() -> None:
    config = SHAPES["odd"]
    executor = llama(random_checkpoint(config, 5))
    tokens = tokens_for(config.vocab_size, N)
    cache = executor.new_cache(N)
    first = executor.step(cache, tokens, 0, "all")
    again = executor.step(cache, tokens[:10], 0, "all")  # the cache still holds 54 more
    assert again.tobytes() == first[:10].tobytes()


def test_memory_follows_the_text_and_forks_share_it() -> None:
    config = SHAPES["plain"]
    executor = llama(random_checkpoint(config, 6), kv="f16")
    cache = executor.new_cache(1 << 20)
    tokens = tokens_for(config.vocab_size, 200)
    page = 64 * executors.cache_bytes(config, "f16")
    table = cache.nbytes
    executor.step(cache, tokens[:1], 0, "none")
    assert cache.nbytes - table == page
    executor.step(cache, tokens, 0, "none")
    assert cache.nbytes - table == 4 * page
    before = resident()
    forks = [executor.fork(cache) for _ in range(50)]
    for fork in forks:
        executor.step(fork, tokens[:1], 200, "none")  # takes a page of its own, no more
    assert resident() - before < 50 * (2 * page + (1 << 20) // 64 * 8)


def resident() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def test_a_batch_goes_through_in_chunks() -> None:
    """More texts than rows of a chunk, long ones among them: the bits of each alone."""
    config = SHAPES["grouped"]
    executor = llama(random_checkpoint(config, 3), "q4", threads=2)
    lengths = [1, 120, 90, 2, *([1] * 300), 100]
    texts = [tokens_for(config.vocab_size, n) for n in lengths]
    caches = [executor.new_cache(128) for _ in texts]
    logits = executor.step_batch([(c, t, 0) for c, t in zip(caches, texts, strict=True)])
    for text, row in zip(texts, logits, strict=True):
        alone = executor.step(executor.new_cache(128), text, 0, "last")
        assert alone.tobytes() == row.tobytes()


def test_positions_that_were_never_computed_are_refused() -> None:
    config = SHAPES["plain"]
    executor = llama(random_checkpoint(config, 6))
    with pytest.raises(RuntimeError, match="before"):
        executor.step(executor.new_cache(200), np.zeros(1, np.int32), 130, "last")


def test_misuse_is_refused() -> None:
    config = SHAPES["plain"]
    executor = llama(random_checkpoint(config, 6))
    other = llama(random_checkpoint(config, 7))
    cache = executor.new_cache(20)
    good = np.zeros(4, np.int32)
    for tokens, position in ((good, 17), (good, -1), (good[:0], 0), (good - 1, 0), (good + 80, 0)):
        with pytest.raises(RuntimeError):
            executor.step(cache, tokens, position, "last")
    with pytest.raises(RuntimeError, match="contiguous"):
        executor.step(cache, good.astype(np.int64), 0, "last")
    with pytest.raises(RuntimeError, match="contiguous"):
        executor.step(cache, np.zeros(8, np.int32)[::2], 0, "last")
    with pytest.raises(RuntimeError, match="another executor"):
        other.step(cache, good, 0, "last")


def test_abort_is_for_the_running_step_or_the_next() -> None:
    config = SHAPES["plain"]
    executor = llama(random_checkpoint(config, 8), threads=2)
    cache, tokens = executor.new_cache(N), tokens_for(config.vocab_size, N)
    executor.abort()
    with pytest.raises(Aborted):
        executor.step(cache, tokens, 0, "last")
    assert executor.step(cache, tokens, 0, "last").shape == (1, config.vocab_size)


def test_abort_from_another_thread_ends_a_long_step() -> None:
    config = SHAPES["plain"]
    executor = llama(random_checkpoint(config, 8), isa="reference", threads=2)
    n = 6000  # seconds of work for the reference kernels
    cache, tokens = executor.new_cache(n), tokens_for(config.vocab_size, n)
    timer = threading.Timer(0.1, executor.abort)
    timer.start()
    start = time.monotonic()
    with pytest.raises(Aborted):
        executor.step(cache, tokens, 0, "none")
    assert time.monotonic() - start < 2
    timer.join()
    assert executor.step(cache, tokens[:3], 0, "last").shape == (1, config.vocab_size)


def test_other_threads_run_during_a_step() -> None:
    config = SHAPES["plain"]
    executor = llama(random_checkpoint(config, 8), isa="reference")
    n = 1500
    cache, tokens = executor.new_cache(n), tokens_for(config.vocab_size, n)
    worker = threading.Thread(target=executor.step, args=(cache, tokens, 0, "none"))
    worker.start()
    ticks = 0
    while worker.is_alive():
        time.sleep(0.001)
        ticks += 1
    assert ticks > 5
