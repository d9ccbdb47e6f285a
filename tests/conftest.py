"""For every test: nothing of the user's is touched, and a busy machine is no failure."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from tests import formats_table
from tests.formats_table import Check, Table

settings.register_profile("fireside", deadline=None)  # time is measured by benchmarks, not by tests
settings.load_profile("fireside")

# Started in the background or by nohup the tests ignore Ctrl-C or a terminal that is gone, and
# every program that they start would inherit that.
for name in ("SIGINT", "SIGQUIT", "SIGTERM", "SIGHUP"):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL if name != "SIGINT" else signal.default_int_handler)


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


# ---- the table of docs/formats.md (formats_table.py)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--formats-table` writes the table of docs/formats.md."""
    text = "write what the tests of this run checked into docs/formats.md"
    parser.addoption("--formats-table", action="store_true", help=text)


@pytest.fixture
def checked(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Say what the test holds against something from outside; see formats_table.Check."""

    def note(form: str, architecture: str, model: str, kind: str, oracle: str) -> None:
        check = Check(form, architecture, model, kind, oracle)
        request.node.user_properties.append((formats_table.PROPERTY, check))

    return note


class Collect:
    """What a run notes for the table."""

    def __init__(self) -> None:
        self.table = Table()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.table.note(report.user_properties, report.outcome)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if failed := self.table.failed():
            terminalreporter.write_line(f"docs/formats.md stays as it is: {failed[0]} did not pass")
            return
        before, _, after = formats_table.parts(formats_table.DOCUMENT.read_text())
        formats_table.DOCUMENT.write_text(before + self.table.text() + after)
        count = len(self.table.outcomes)
        terminalreporter.write_line(f"docs/formats.md: {count} kinds of checks")


def pytest_configure(config: pytest.Config) -> None:
    """Collect where the table is asked for."""
    if config.getoption("--formats-table"):
        config.pluginmanager.register(Collect())
