"""One thread or all of them: what the step times of a quiet and a busy machine lead to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fireside.engine.executors.native_library import load

ffi, lib, reason = load()
pytestmark = pytest.mark.skipif(lib is None, reason=reason or "there")


def drive(governor: Any, steps: int, all_threads: float, alone: float) -> list[int]:
    """Which choice each step took, where steps take these times, give or take a fifth."""
    random = np.random.default_rng(steps)
    taken = []
    for _ in range(steps):
        one = lib.fs_governor_alone(governor)
        taken.append(one)
        time = (alone if one else all_threads) * random.uniform(0.8, 1.2)
        lib.fs_governor_tell(governor, one, time)
    return taken


def test_a_quiet_machine_keeps_all_threads_and_tries_seldom() -> None:
    taken = drive(ffi.new("fs_governor *"), 5000, 100.0, 190.0)
    assert sum(taken) <= 0.01 * len(taken)


def test_a_busy_machine_is_noticed_soon_and_left_when_it_is_quiet_again() -> None:
    governor = ffi.new("fs_governor *")
    drive(governor, 200, 100.0, 190.0)
    busy = drive(governor, 600, 1000.0, 210.0)
    assert sum(busy[:80]) > 0
    assert np.mean(busy[100:]) > 0.9
    quiet = drive(governor, 400, 100.0, 190.0)
    assert np.mean(quiet[-100:]) < 0.1


def test_one_very_slow_step_behind_each_pause_does_not_keep_the_other_threads_away() -> None:
    governor = ffi.new("fs_governor *")
    drive(governor, 600, 100.0, 170.0)
    alone = 0
    for _ in range(50):
        drive(governor, 1, 2000.0, 2000.0)
        alone += sum(drive(governor, 63, 100.0, 170.0))
    assert alone < 0.3 * 50 * 63


def test_a_text_that_grows_longer_is_not_a_busy_machine() -> None:
    governor = ffi.new("fs_governor *")
    taken: list[int] = []
    for length in range(40):
        taken += drive(governor, 50, 100.0 * (1 + length / 20), 190.0 * (1 + length / 20))
    assert sum(taken) <= 0.05 * len(taken)
