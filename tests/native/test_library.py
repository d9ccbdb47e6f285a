"""Loading the extension, choosing an instruction set, default threads."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from fireside.engine import executors
from fireside.engine.architectures import decoder as architecture
from fireside.engine.errors import KernelsError
from fireside.engine.executors import cores, native_library
from tests.models import SHAPES, random_checkpoint
from tests.native.steps import llama


def test_reference_is_there_and_slowest() -> None:
    assert next(iter(native_library.instruction_sets())) == "reference"


def test_a_forced_name_is_used(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_ISA", isa)
    config = SHAPES["plain"]
    plan = architecture.plan(config, True)
    executor = executors.choose("native").build(plan, random_checkpoint(config, 1), "q8", 1, None)
    assert (executor.name, executor.isa, executor.threads) == ("native", isa, 1)
    assert executor.nbytes > 0
    assert executor.new_cache(10).nbytes > 0


@pytest.mark.parametrize("name", ["sse", "AVX2", "neon "])
def test_an_unknown_name_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_ISA", name)
    with pytest.raises(KernelsError, match="reference"):
        native_library.choose_isa()


def test_without_the_extension_numpy_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "the C extension was not built"
    kind = executors.choose("native")
    without = dataclasses.replace(kind, why_not=lambda: reason)
    monkeypatch.setitem(executors._REGISTRY, "native", without)
    assert executors.choose("auto").name == "numpy"
    with pytest.raises(KernelsError, match=reason):
        executors.choose("native")


def test_waiting_is_short_unless_the_user_says_otherwise() -> None:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    code = (
        "import os; from fireside.engine.executors.native_library import load; load();"
        f"print(*[os.environ.get(name) for name in {names}])"
    )
    for given, expected in (
        ({}, "passive 8000"),
        ({"GOMP_SPINCOUNT": "5"}, "passive 5"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
    ):
        env = {k: v for k, v in os.environ.items() if k not in names} | given
        out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
        assert out.stdout.decode().strip() == expected


def test_arrays_are_checked_before_they_become_pointers() -> None:
    good = np.zeros((2, 3), np.float32)
    native_library.pointer(good, np.float32, (2, 3), "float[]")
    for bad in (
        good.astype(np.float64),
        good.T,
        good.reshape(3, 2),
        np.zeros((2, 6), "f4")[:, ::2],
    ):
        with pytest.raises(RuntimeError, match="contiguous"):
            native_library.pointer(bad, np.float32, (2, 3), "float[]")


def test_default_threads() -> None:
    threads = cores.default_threads()
    assert 1 <= threads <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        try:
            os.sched_setaffinity(0, {min(allowed)})
            assert cores.default_threads() == 1
        finally:
            os.sched_setaffinity(0, allowed)


def test_progress_counts_bytes_and_may_cancel() -> None:
    config = SHAPES["plain"]
    checkpoint, plan = random_checkpoint(config, 1), architecture.plan(config, True)
    seen: list[tuple[int, int]] = []
    executors.choose("native").build(plan, checkpoint, "q4", 1, lambda *a: seen.append(a))
    assert seen[0][0] == 0
    assert seen[-1] == (checkpoint.nbytes, checkpoint.nbytes)
    assert seen == sorted(seen)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        executors.choose("native").build(plan, checkpoint, "q4", 1, stop)


def test_more_threads_than_work() -> None:
    config = SHAPES["multi-query"]
    checkpoint = random_checkpoint(config, 1)
    tokens = np.arange(5, dtype=np.int32)
    one, many = llama(checkpoint, threads=1), llama(checkpoint, threads=9)
    a = one.step(one.new_cache(5), tokens, 0, "all")
    assert many.step(many.new_cache(5), tokens, 0, "all").tobytes() == a.tobytes()
