"""Real files from outside the repository: tests skip where they are absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def needs_shared(name: str) -> pytest.MarkDecorator:
    """Skip unless ../shared/NAME is there."""
    return pytest.mark.skipif(
        not (SHARED / name).exists(), reason=f"../shared/{name} is not on this machine"
    )
