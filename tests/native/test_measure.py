"""Reading memory, and the profile of a step. No times are judged, only what is counted."""

from __future__ import annotations

import numpy as np
import pytest

from fireside.engine import architectures
from fireside.engine.executors import native_measure
from fireside.engine.executors.native_library import instruction_sets, load, memory
from tests.models import SHAPES, random_checkpoint
from tests.native.steps import llama


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("nbytes", [0, 63, 64, 64 * 3, 64 * 5 + 1, 64 * 1003])
def test_every_whole_line_is_read(nbytes: int, threads: int) -> None:
    ffi, lib, _ = load()
    block = memory(max(nbytes, 1), huge_pages=False)
    words = np.frombuffer(ffi.buffer(block, nbytes // 64 * 64), np.uint64)
    words[:] = np.random.default_rng(nbytes).integers(0, 1 << 63, len(words), np.uint64)
    expected = int(words.sum(dtype=object) or 0) * 2 % (1 << 64)
    assert lib.fs_read_memory(block, nbytes, threads, 2) == expected


def test_lines_begin_where_the_cache_has_them() -> None:
    ffi, lib, _ = load()
    block = memory(64 * 4, huge_pages=False)
    words = np.frombuffer(ffi.buffer(block, 64 * 4), np.uint64)
    words[:] = np.arange(len(words))
    inner = int(words[8:24].sum())
    assert lib.fs_read_memory(ffi.cast("char *", block) + 8, 64 * 3, 1, 1) == inner


@pytest.mark.parametrize("tied", [True, False])
def test_weight_bytes(tied: bool) -> None:
    checkpoint = random_checkpoint(SHAPES["plain"], 1, tied=tied)
    plan = architectures.get("llama").plan(checkpoint.config, checkpoint.tied)
    executor = llama(checkpoint)
    read = native_measure.weight_bytes(executor, plan)
    whole = 4 * checkpoint.parameters
    row, table = 4 * checkpoint.config.dim, 4 * checkpoint.tensors["token_embd.weight"].count
    assert read == (whole if tied else whole - table + row)


def test_profile() -> None:
    executor = llama(random_checkpoint(SHAPES["plain"], 1), threads=2)
    cache = executor.new_cache(8)
    native_measure.start_profile(executor)
    executor.step(cache, np.arange(4, dtype=np.int32), 0, "last")
    seconds = native_measure.read_profile(executor)
    assert seconds.keys() == set(native_measure.OPERATIONS.values())
    assert all(value >= 0 for value in seconds.values())
    assert sum(seconds.values()) > 0
    native_measure.start_profile(executor)
    assert sum(native_measure.read_profile(executor).values()) == 0


def test_waiting_is_told_apart() -> None:
    """One thread waits for nobody; of two, the first waits for the other somewhere."""
    checkpoint = random_checkpoint(SHAPES["plain"], 1)
    waits, works = {}, {}
    for threads in (1, 2):
        executor = llama(checkpoint, threads=threads)
        cache = executor.new_cache(64)
        native_measure.start_profile(executor)
        for _ in range(20):
            executor.step(cache, np.zeros(64, np.int32), 0, "all")
        seconds = dict(native_measure.read_profile(executor))
        waits[threads] = seconds.pop(native_measure.OPERATIONS["FS_WAITING"])
        works[threads] = sum(seconds.values())
    assert waits[1] == 0 < works[1]
    assert waits[2] > 0 < works[2]


def test_read_rate() -> None:
    assert native_measure.read_rate(llama(random_checkpoint(SHAPES["plain"], 1))) > 0


def test_instruction_sets() -> None:
    known = native_measure.instruction_sets()
    assert [name for name, has in known.items() if has] == list(instruction_sets())
