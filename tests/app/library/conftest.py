from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fireside.app.library import Library


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stories.db"


@pytest.fixture
def library(path: Path) -> Iterator[Library]:
    with Library(path) as library:
        yield library
