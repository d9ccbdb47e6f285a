"""Textual's driver for a terminal, but for one that goes away.

A closed terminal ends Textual's writing thread with an error; the application would wait for room
in its queue for ever, and its reading thread would spin. Here what cannot be written is dropped,
and the application is told to leave, which saves the last words.

A process that was stopped by SIGSTOP, which nobody can catch, goes on by SIGCONT alone. Textual
would begin once more beside itself: two threads would share the keys, and leaving would wait for
the first for ever. Here it ends what it had begun before it begins again.

Textual does so within the signal's handler, wherever the program is at that moment: where it is
just handing something to the writing thread, it would wait for itself for ever. Here the event loop
does.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Callable
from typing import Any

from textual.drivers.linux_driver import LinuxDriver

PATIENCE = 0.25  # seconds to wait for room before looking whether anybody still writes
HANGUP = 128 + 1  # exit code, as of SIGHUP


class TerminalDriver(LinuxDriver):
    """LinuxDriver that notices when nobody is there any more."""

    _lost = False
    _going_on = False  # the loop has been asked to

    def write(self, data: str) -> None:
        """Queue `data` for the terminal; drop it where the terminal is gone."""
        thread: Any = self._writer_thread
        while thread is not None and thread.is_alive():
            try:
                thread._queue.put(data, timeout=PATIENCE)
                return
            except queue.Full:
                continue  # the terminal is slow, or its user has pressed ctrl+s
        self.lose()

    def _sigtstp_application(self, *_: object) -> None:
        """Stop, soon."""
        self._soon(super()._sigtstp_application)

    def _sigcont_application(self, *_: object) -> None:
        """Go on, soon."""
        if not self._going_on:
            self._going_on = True
            self._soon(self._go_on)

    def _soon(self, what: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _go_on(self) -> None:
        """Go on; after SIGSTOP the terminal may have been in other hands."""
        self._going_on = False
        self.watch()
        if self._lost:
            return
        begun = self._key_thread is not None and self._key_thread.is_alive()
        if begun and self._auto_restart and not self._must_signal_resume:
            self.suspend_application_mode()
            self._must_signal_resume = True
        super()._sigcont_application()

    def lose(self) -> None:
        """The terminal is gone: leave, once."""
        if not self._lost:
            self._lost = True
            self._app.call_later(self._app.exit, return_code=HANGUP)

    def watch(self) -> None:
        """Look whether the terminal is still there; to be called now and then."""
        if not os.isatty(self.fileno):
            self.lose()

    def close(self) -> None:
        """End the writing thread, if it has not ended by itself."""
        thread = self._writer_thread
        if thread is not None and thread.is_alive():
            thread.stop()
