"""What the terminal application costs: its tokens a second beside those of `fireside write`.

    python tests/benchmarks/desk_speed.py MODEL [--tokens 1900] [--repeat 5] [--threads 2]

The installed program writes the same story both ways, by turns: on the desk, in a pseudo-terminal
of 120x40 that is read as a terminal would, and as `fireside write --json`. Both speeds are the
engine's own, over the whole of the generation. The last line is the medians' ratio in percent.
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

from fireside.app.library import Library

PROMPT = "once upon a time"
LIMIT_S = 60.0
QUIT = b"\x11"  # ctrl+q


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


def headless(options: argparse.Namespace) -> tuple[int, float]:
    """(tokens, tokens a second) of `fireside write`."""
    with TemporaryDirectory() as folder:
        command = ["-m", "fireside.app", "write", "--json", "-n", str(options.tokens), PROMPT]
        done = subprocess.run(
            [sys.executable, *command],
            env=environment(options, Path(folder)),
            stdout=subprocess.PIPE,
            check=True,
        )
    answer = json.loads(done.stdout)
    return len(answer["ids"]), float(answer["timings"]["decode_tok_s"])


class Terminal:
    """The application on a pseudo-terminal that swallows what it draws."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
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

    def send(self, keys: bytes) -> None:
        """Type."""
        os.write(self.master, keys)


def desk(options: argparse.Namespace) -> tuple[int, float]:
    """(tokens, tokens a second) of the application, as it notes them beside the passage."""
    with TemporaryDirectory() as folder:
        terminal = Terminal(options, Path(folder))
        try:
            end = time.monotonic() + LIMIT_S
            while b"as is" not in terminal.drawn:  # the panel, once the model is there
                if time.monotonic() > end:
                    sys.exit("the application does not load the model")
                terminal.read(0.1)
            terminal.read(0.5)
            terminal.send(PROMPT.encode() + b"\r")
            found = None
            while found is None:
                if time.monotonic() > end:
                    sys.exit("the application does not come to an end")
                terminal.read(0.5)
                found = noted(Path(folder))
            terminal.send(QUIT)
            terminal.read(0.5)
        finally:
            terminal.process.kill()
            terminal.process.wait()
            os.close(terminal.master)
    return found


def noted(folder: Path) -> tuple[int, float] | None:
    """What the library knows of the passage; None while it is being written."""
    if not (folder / "stories.db").exists():
        return None
    with Library(folder / "stories.db") as library:
        story = library.last()
        passages = library.path(story.id) if story else []
    made = passages[-1].provenance if passages else None
    return (made.tokens or 0, made.tok_s or 0.0) if made else None


def main() -> None:
    """Take turns and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=1900)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    speeds: dict[str, list[float]] = {"write": [], "desk": []}
    for number in range(options.repeat):
        for name, measure in (("write", headless), ("desk", desk)):
            tokens, speed = measure(options)
            speeds[name].append(speed)
            print(f"{number + 1} {name:5} {tokens:6} tokens {speed:9,.1f} tok/s", flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    print(f"desk/write: {100 * medians['desk'] / medians['write']:.1f}%")


if __name__ == "__main__":
    main()
