"""Which of Textual's drivers the application has."""

from __future__ import annotations

import os
import sys

from textual.driver import Driver


def terminal_driver() -> type[Driver] | None:
    """The driver class to use; None = Textual's own choice."""
    if sys.platform == "win32" or os.environ.get("TEXTUAL_DRIVER"):
        return None
    from fireside.app.tui.terminal import TerminalDriver  # its modules are not for Windows

    return TerminalDriver
