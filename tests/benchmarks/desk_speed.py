"""What the terminal application costs: its tokens a second beside those of `fireside write`.

    python tests/benchmarks/desk_speed.py MODEL [--tokens 1900] [--repeat 6] [--threads 2]

The installed program writes the same story by turns: as `fireside write --json`, and on the desk,
in a pseudo-terminal of 120x40 that is read as a terminal would. There it is written twice: as the
first of a new story, and once more (ctrl+r) with another seed, which is what going on with a
story is like. All speeds are the engine's own, over the whole of the generation. Behind the desk's
stands how long its interface's thread has computed, until the story was there and a little
longer (Linux). The last lines are medians, of speeds and of what part of `write`'s they were.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from fireside.app.library import Library

PROMPT = "once upon a time"
LIMIT_S = 60.0
QUIT, AGAIN = b"\x11", b"\x12"  # ctrl+q, ctrl+r
STILL_S, STILL_BYTES = 0.4, 400  # a blinking cursor draws less, a story that grows more


class Told(NamedTuple):
    """One generation: its tokens, tokens a second, ms that the interface's thread computed."""

    tokens: int
    speed: float
    interface: float = 0.0


def environment(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """The same settings for both, and none of the user's."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("FIRESIDE_", "TEXTUAL"))}
    isa = os.environ.get("FIRESIDE_ISA")
    return {
        **ours,
        **({"FIRESIDE_ISA": isa} if isa else {}),
        "FIRESIDE_DATA_DIR": str(folder),
        "FIRESIDE_CONFIG": str(folder / "config.toml"),
        "FIRESIDE_MODEL": str(options.model.resolve()),
        "FIRESIDE_THREADS": str(options.threads),
        "FIRESIDE_SEED": str(options.seed),
        "FIRESIDE_TOP_K": "40",  # random weights make every token likely, and choosing slow
        "FIRESIDE_PASSAGE_TOKENS": str(options.tokens),
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "LC_ALL": "C.UTF-8",
    }


def headless(options: argparse.Namespace) -> Told:
    """`fireside write`."""
    with TemporaryDirectory() as folder:
        command = ["-m", "fireside.app", "write", "--json", "-n", str(options.tokens), PROMPT]
        done = subprocess.run(
            [sys.executable, *command],
            env=environment(options, Path(folder)),
            stdout=subprocess.PIPE,
            check=True,
        )
    answer = json.loads(done.stdout)
    return Told(len(answer["ids"]), float(answer["timings"]["decode_tok_s"]))


class Terminal:
    """The application on a pseudo-terminal that swallows what it draws."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.folder = folder
        self.end = time.monotonic() + LIMIT_S
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fireside.app"],
            env=environment(options, folder),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.drawn = bytearray()  # grows in place: copying it would take a core from the program

    def read(self, seconds: float) -> None:
        """Take what is drawn within so many seconds."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                with contextlib.suppress(OSError):
                    self.drawn += os.read(self.master, 1 << 16)
        if time.monotonic() > self.end:
            sys.exit("the application does not come to an end")

    def tell(self, keys: bytes) -> Told:
        """Type what begins a generation, and wait for its end."""
        before, spent = self._noted(), self._spent()
        os.write(self.master, keys)
        while True:
            size = len(self.drawn)
            self.read(STILL_S)
            # While it grows the library is left alone: to open it takes as long as some tokens.
            if len(self.drawn) - size < STILL_BYTES and self._noted() != before:
                identifier, tokens, speed = self._noted()
                assert identifier
                return Told(tokens, speed, self._spent() - spent)

    def _noted(self) -> tuple[int, int, float]:
        """(id, tokens, tokens a second) of the last passage of the library that has ended."""
        if (self.folder / "stories.db").exists():
            with Library(self.folder / "stories.db") as library:
                story = library.last()
                passages = library.path(story.id) if story else []
            if passages and (made := passages[-1].provenance):
                return passages[-1].id, made.tokens or 0, made.tok_s or 0.0
        return 0, 0, 0.0

    def _spent(self) -> float:
        """Milliseconds that the application's first thread has computed."""
        pid = self.process.pid
        with contextlib.suppress(OSError):
            return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e6
        return 0.0


def desk(options: argparse.Namespace) -> tuple[Told, Told]:
    """The application, as it notes it beside the passage: a new story, and once more."""
    with TemporaryDirectory() as folder:
        terminal = Terminal(options, Path(folder))
        try:
            while b"as is" not in terminal.drawn:  # the panel, once the model is there
                terminal.read(0.1)
            terminal.read(0.5)
            told = terminal.tell(PROMPT.encode() + b"\r"), terminal.tell(AGAIN)
            os.write(terminal.master, QUIT)
            terminal.read(0.3)
        finally:
            terminal.process.kill()
            terminal.process.wait()
            os.close(terminal.master)
    return told


def main() -> None:
    """Take turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=1900)
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    names = ("write", "desk, new", "desk, again")
    told: dict[str, list[Told]] = {name: [] for name in names}
    for number in range(options.repeat):
        for name, one in zip(names, (headless(options), *desk(options)), strict=True):
            told[name].append(one)
            spent = f"  interface {one.interface:5.1f} ms" if one.interface else ""
            print(
                f"{number + 1} {name:11} {one.tokens:6} {one.speed:9,.1f} tok/s{spent}", flush=True
            )
    for name in names:
        speeds = [one.speed for one in told[name]]
        pairs = zip(speeds, told["write"], strict=True)
        part = statistics.median(speed / write.speed for speed, write in pairs)
        print(f"{name:11} {statistics.median(speeds):9,.1f} tok/s  {100 * part:.1f}% of write")


if __name__ == "__main__":
    main()
