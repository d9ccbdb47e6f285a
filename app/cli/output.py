"""stdout is for what was asked for and nothing else; progress and notes go to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import time

from fireside.app.cli.interrupts import ERASE_LINE, WATCH

# Control characters drive a terminal: of what a model or a file says, only these two may.
_CONTROLS = {c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t"}
_CONTROLS |= {127: 0x2421, **dict.fromkeys(range(128, 160), 0xFFFD)}


def visible(text: str) -> str:
    """`text` with control characters shown instead of obeyed."""
    return text.translate(_CONTROLS)


def say(line: str) -> None:
    """A line on stderr; nowhere, where there is none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class TextOut:
    """stdout as the page: UTF-8, out at once; the exact bytes unless it is a terminal."""

    def __init__(self) -> None:
        self._fd = sys.stdout.fileno()
        self.is_terminal = os.isatty(self._fd)
        self._last = "\n"

    def write(self, text: str) -> None:
        """Write all of `text`; OSError where that is not possible."""
        if not text:
            return
        self._last = text[-1]
        data = (visible(text) if self.is_terminal else text).encode("utf-8", "replace")
        while data:
            data = data[os.write(self._fd, data) :]

    def end_line(self) -> None:
        """On a terminal, what comes next begins a line; elsewhere the text stays as it is."""
        if self.is_terminal and self._last != "\n":
            self.write("\n")


class Progress:
    """One line on stderr that changes and is erased; nothing unless stderr is a terminal.

    It appears after a moment, so that what is quick does not flicker.
    """

    DELAY_S = 0.2
    INTERVAL_S = 0.1

    def __init__(self) -> None:
        self.shown = (
            sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        )
        self._next = time.monotonic() + self.DELAY_S
        self._dim = b"" if os.environ.get("NO_COLOR") else b"\x1b[2m"

    def show(self, text: str) -> None:
        """Show `text` in place of the line before, if it is time for that."""
        now = time.monotonic()
        if not self.shown or now < self._next:
            return
        self._next = now + self.INTERVAL_S
        with contextlib.suppress(OSError):
            width = os.get_terminal_size(2).columns
            line = visible(text)[: max(width - 1, 10)].encode("utf-8", "replace")
            WATCH.line_shown = True
            os.write(2, ERASE_LINE + self._dim + line + (b"\x1b[0m" if self._dim else b""))

    def clear(self) -> None:
        """Erase the line; the next one appears after a moment again."""
        self._next = time.monotonic() + self.DELAY_S
        if WATCH.line_shown:
            with contextlib.suppress(OSError):
                os.write(2, ERASE_LINE)
            WATCH.line_shown = False


def count(number: int) -> str:
    """1,234"""
    return f"{number:,}"


def size(nbytes: int) -> str:
    """A number of bytes for people: 12.3 MB (powers of 1000)."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def scale(number: int) -> str:
    """A number of parameters for people: 260K, 15.2M, 6.7B."""
    for divisor, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= divisor:
            value = number / divisor
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return str(number)


def table(head: list[str], rows: list[list[str]], right: set[int] | None = None) -> str:
    """Columns as wide as they need; those whose index is in `right` are set to the right."""
    right = right or set()
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = []
    for row in [head, *rows]:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
