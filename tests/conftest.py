"""For every test: nothing of the user's is touched, and a busy machine is no failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

settings.register_profile("fireside", deadline=None)  # time is measured by benchmarks, not by tests
settings.load_profile("fireside")


@pytest.fixture(autouse=True, scope="session")
def no_library_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Stories and settings of whoever runs the tests stay out of sight and out of reach."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name in ("FIRESIDE_DATA_DIR", "FIRESIDE_CONFIG"):
            patch.delenv(name, raising=False)
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("XDG_STATE_HOME", str(home / "state"))
        yield
