"""The installed program in a real terminal: a story is written, stopped, killed and found again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fireside.app.library import Library
from tests.app.tiny import write_tiny

pexpect = pytest.importorskip("pexpect")
pyte = pytest.importorskip("pyte")

PROGRAM = shutil.which("fireside", path=str(Path(sys.executable).parent)) or shutil.which(
    "fireside"
)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="the program is not installed")

UP, LEFT, ESCAPE = "\x1b[A", "\x1b[D", "\x1b"


class Terminal:
    """The program on a pseudo-terminal, and the screen that it draws."""

    def __init__(self, folder: Path, model: Path, columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("FIRESIDE_", "TEXTUAL"))},
            "FIRESIDE_DATA_DIR": str(folder),
            "FIRESIDE_CONFIG": str(folder / "config.toml"),
            "FIRESIDE_PASSAGE_TOKENS": "1000000",
            "FIRESIDE_TEMPERATURE": "0",
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
        }
        self.process = pexpect.spawn(
            PROGRAM, ["--model", str(model)], env=environment, dimensions=(rows, columns)
        )
        self.process.delaybeforesend = None

    def read(self, seconds: float = 0.05) -> None:
        with contextlib.suppress(pexpect.TIMEOUT, pexpect.EOF):
            self.stream.feed(self.process.read_nonblocking(1 << 20, timeout=seconds))

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def until(self, condition: Callable[[str], bool], seconds: float = 30) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read()
            if condition(self.text):
                return self.text
        raise AssertionError(f"it never came to that:\n{self.text}")

    def shows(self, words: str) -> str:
        return self.until(lambda text: words in text)

    def send(self, keys: str) -> None:
        self.process.send(keys)

    def wait(self) -> int | None:
        end = time.monotonic() + 20
        while self.process.isalive() and time.monotonic() < end:
            self.read()
        assert not self.process.isalive()
        return int(self.process.exitstatus) if self.process.exitstatus is not None else None


Open = Callable[..., Terminal]


@pytest.fixture
def open_program(tmp_path: Path) -> Iterator[Open]:
    model = write_tiny(tmp_path / "models")
    terminals: list[Terminal] = []

    def start(columns: int = 100, rows: int = 30) -> Terminal:
        terminals.append(Terminal(tmp_path, model, columns, rows))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.process.close(force=True)


def stored(folder: Path) -> str:
    with Library(folder / "stories.db") as library:
        story = library.last()
        assert story is not None
        return library.text(story.id)


def test_written_stopped_killed_and_found_again(open_program: Open, tmp_path: Path) -> None:
    terminal = open_program()
    terminal.shows("How shall it begin?")
    terminal.shows("tiny · as is")
    terminal.send("Once upon the time\r")
    terminal.shows("esc stop")
    terminal.until(lambda text: "tok/s" in text and "– tok/s" not in text)
    terminal.send(ESCAPE)
    terminal.until(lambda text: "esc stop" not in text)
    written = stored(tmp_path)
    assert written.startswith("Once upon the time")
    assert len(written) > len("Once upon the time")

    terminal.send("And then\r")
    terminal.shows("esc stop")
    time.sleep(0.3)
    terminal.until(lambda text: "– tok/s" not in text)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        terminal.read()
    before = stored(tmp_path)
    terminal.process.kill(signal.SIGKILL)
    terminal.wait()
    after = stored(tmp_path)
    assert after.startswith(before)
    assert len(after) > len(written) + len(" And then")

    again = open_program()
    again.shows("Fireside   Once upon the time")
    again.shows("tiny · as is")
    again.send("\x11")  # ctrl+q
    assert again.wait() == 0
    assert stored(tmp_path) == after


def test_keys_that_terminals_like_to_keep_reach_the_desk(
    open_program: Open, tmp_path: Path
) -> None:
    terminal = open_program(columns=130)
    terminal.shows("tiny · as is")
    terminal.send("Once\r")
    terminal.shows("esc stop")
    terminal.send("\x03")  # ctrl+c stops, and does not end the program
    terminal.until(lambda text: "esc stop" not in text)
    terminal.send("\x1a")  # ctrl+z undoes, and does not suspend
    terminal.until(lambda text: "^y redo" in text)
    assert stored(tmp_path) == "Once"
    terminal.send("\x19")  # ctrl+y
    terminal.until(lambda text: "^y redo" not in text)
    terminal.send("\x13")  # ctrl+s lists the stories, and does not freeze the screen
    terminal.shows("search titles and texts")
    terminal.send(ESCAPE)
    terminal.shows("Continue")
    terminal.send("\x0f")  # ctrl+o
    terminal.shows("comes with Fireside")
    terminal.send(ESCAPE)
    terminal.shows("Continue")
    terminal.send("\x11")  # ctrl+q
    assert terminal.wait() == 0


def test_a_program_that_was_stopped_goes_on(open_program: Open, tmp_path: Path) -> None:
    """Twice by SIGSTOP, which cannot be caught, and once by SIGTSTP."""
    terminal = open_program()
    terminal.shows("tiny · as is")
    for number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGSTOP):
        terminal.process.kill(number)
        time.sleep(0.3)
        terminal.process.kill(signal.SIGCONT)
        time.sleep(0.3)
        terminal.read()
    terminal.send("Once upon the time\r")  # every key arrives, in order
    terminal.shows("esc stop")
    terminal.send(ESCAPE)
    terminal.until(lambda text: "esc stop" not in text)
    terminal.send("\x11")
    assert terminal.wait() == 0
    assert stored(tmp_path).startswith("Once upon the time")
    modes = termios.tcgetattr(terminal.process.child_fd)[3]
    assert modes & termios.ECHO  # the terminal is as it was
    assert modes & termios.ICANON


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 12)])
def test_small_terminals(open_program: Open, tmp_path: Path, columns: int, rows: int) -> None:
    terminal = open_program(columns, rows)
    terminal.shows("How shall it begin?")
    terminal.send("Once upon")
    terminal.shows("Once upon")
    terminal.send("\r")
    terminal.until(lambda text: "tok/s" in text or "esc stop" in text)
    terminal.send(ESCAPE)
    time.sleep(0.5)
    terminal.send("\x11")
    assert terminal.wait() == 0
    assert stored(tmp_path).startswith("Once upon")


@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize("hears_of_it", [True, False])
def test_a_terminal_that_is_closed_ends_the_program(
    open_program: Open, tmp_path: Path, writing: bool, hears_of_it: bool
) -> None:
    """With SIGHUP, as a terminal's window sends it, and without, as when somebody ignores it."""
    terminal = open_program()
    terminal.shows("tiny · as is")
    terminal.send("Once upon\r")
    terminal.shows("esc stop")
    if not writing:
        terminal.send(ESCAPE)
        time.sleep(1)
        terminal.read()
    nobody = os.open(os.devnull, os.O_RDWR)
    os.dup2(nobody, terminal.process.child_fd)  # the other end of the terminal closes
    os.close(nobody)
    if hears_of_it:
        terminal.process.kill(signal.SIGHUP)
    assert terminal.wait() == 128 + signal.SIGHUP
    with Library(tmp_path / "stories.db") as library:
        story = library.last()
        assert story is not None
        assert len(library.text(story.id)) > len("Once upon")


def test_it_may_be_told_to_go_on_at_any_moment(open_program: Open, tmp_path: Path) -> None:
    """Within the handler of SIGCONT it would wait for itself, if it is just about to write."""
    terminal = open_program()
    terminal.shows("tiny · as is")
    terminal.send("Once upon\r")
    terminal.shows("esc stop")
    for _ in range(60):
        terminal.process.kill(signal.SIGCONT)
        end = time.monotonic() + 0.03
        while time.monotonic() < end:
            terminal.read()
    terminal.send(ESCAPE)
    time.sleep(1)
    terminal.read()
    for _ in range(5):  # going on drops what was typed before: a person would press again
        terminal.send("\x11")
        terminal.read(1)
        if not terminal.process.isalive():
            break
    assert terminal.wait() == 0
    assert stored(tmp_path).startswith("Once upon")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_terminal_that_goes_away_loses_nothing(
    open_program: Open, tmp_path: Path, number: signal.Signals
) -> None:
    terminal = open_program()
    terminal.shows("tiny · as is")
    terminal.send("Once upon\r")
    terminal.shows("esc stop")
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        terminal.read()
    terminal.process.kill(number)
    assert terminal.wait() == 128 + number
    with Library(tmp_path / "stories.db") as library:
        story = library.last()
        assert story is not None
        assert len(library.text(story.id)) > len("Once upon")
        assert not library.path(story.id)[-1].unfinished
