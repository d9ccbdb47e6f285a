"""Tests of the C kernels run for every instruction set that this machine has."""

from __future__ import annotations

import os

import pytest

from fireside.engine.executors import native_library


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", list(native_library.instruction_sets()) or ["none"])


@pytest.fixture(autouse=True)
def _kernels() -> None:
    reason = native_library.load()[2]
    if reason and os.environ.get("FIRESIDE_REQUIRE_KERNELS", "") not in ("", "0"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
