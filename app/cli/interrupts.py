"""What SIGINT, SIGTERM and SIGHUP do: leave at once, or end a generation in good order.

Python runs a signal's handler between two bytecodes of the main thread, which may be inside the
kernels for seconds. So the handlers here do nothing; Python's C-level handler writes the number
into a pipe at once (`signal.set_wakeup_fd`), and a thread that waits there acts on it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from fireside.engine.hints import NoReturn

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
ERASE_LINE = b"\r\x1b[K"


def exit_code(number: int) -> int:
    """What a shell reports for a program that signal `number` ended: 130 for SIGINT."""
    return 128 + number


class Watch:
    """The thread that waits for signals. There is one: signals belong to the process."""

    def __init__(self) -> None:
        self.caught = 0  # the first signal that was handed to somebody
        self.line_shown = False  # a progress line is on the terminal: erase it when leaving
        self._action: Callable[[], None] | None = None
        self._writer = -1

    def start(self) -> None:
        """Watch from here on. A signal that is ignored (nohup, a background job) stays so."""
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, _nothing)
        threading.Thread(target=self._run, args=(reader,), name="signals", daemon=True).start()

    def stop(self) -> None:
        """Hand signals back to Python, for a part of the program that sees to them itself."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if signal.getsignal(number) is _nothing:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        os.close(self._writer)

    @contextlib.contextmanager
    def calling(self, action: Callable[[], None]) -> Iterator[Watch]:
        """The first signal within calls `action`, from the watching thread; a second one leaves."""
        self.caught = 0
        self._action = action
        try:
            yield self
        finally:
            self._action = None

    def _run(self, reader: int) -> None:
        while data := os.read(reader, 1):
            action, self._action = self._action, None
            if action is None:
                self.leave(data[0])
            self.caught = data[0]
            action()
        os.close(reader)

    def leave(self, number: int) -> NoReturn:
        """End the program now, as signal `number` asks."""
        if self.line_shown:
            with contextlib.suppress(OSError):
                os.write(2, ERASE_LINE)
        os._exit(exit_code(number))


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that Python's C-level one runs."""


WATCH = Watch()
