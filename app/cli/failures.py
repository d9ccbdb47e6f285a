"""Errors -> one line `fireside: error: MESSAGE; HINT` and an exit code. Never a traceback.

FIRESIDE_DEBUG=1 shows the traceback all the same.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence

from fireside.app.cli.output import say, visible
from fireside.app.settings import SettingsError

FAILURE, USAGE, MODEL, OVERFLOW = 1, 2, 3, 4
COMPLETION_VARIABLE = "_FIRESIDE_COMPLETE"


class CliError(Exception):
    """What a command itself finds wrong."""

    def __init__(self, message: str, hint: str = "", code: int = FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


def guarded(argv: Sequence[str] | None) -> int:
    """Run the `fireside` command with `argv`; the exit code, everything else told on stderr."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "stdout is closed")
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be no text at all
            sys.stdout.reconfigure(errors="backslashreplace")
        code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _drop_stdout()  # the reader has had enough, which is no error
        return 0
    except Exception as error:
        if os.environ.get("FIRESIDE_DEBUG"):
            raise
        if isinstance(error, OSError):
            _drop_stdout()
        message, hint, code = explain(error)
        line = f"{message.rstrip('.')}; {hint}" if hint else message
        say(f"fireside: error: {' '.join(visible(line).split())}")
        return code


def _run(arguments: list[str]) -> int:
    """What click's own main() does, but for its ideas of a closed pipe, which exits with 1."""
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if arguments[:1] == ["write"] and not instruction:
        from fireside.app.cli.writing import quickly

        if (code := quickly(arguments[1:])) is not None:
            return code
    return _run_click(arguments, instruction)


def _run_click(arguments: list[str], instruction: str | None) -> int:
    """Run what click makes of the arguments, or complete them."""
    from click.exceptions import Exit

    from fireside.app.cli.root import fireside

    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(fireside, {}, "fireside", COMPLETION_VARIABLE, instruction)
    try:
        with fireside.make_context("fireside", arguments) as context:
            result = fireside.invoke(context)
    except Exit as done:
        return done.exit_code
    return result if isinstance(result, int) else 0


def explain(error: Exception) -> tuple[str, str, int]:
    """(message, hint, exit code) of an error."""
    if isinstance(error, CliError):
        return error.message, error.hint, error.code
    if isinstance(error, SettingsError):
        return error.message, error.hint, USAGE
    if told := _explain_click(error):
        return told
    if isinstance(error, MemoryError):
        return "there is not enough memory", "try --quant q8 or q4, or a shorter --context", FAILURE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else "cannot write: "
        return f"{where}{error.strerror or error}", "", FAILURE
    return _explain_engine(error)


def _explain_click(error: Exception) -> tuple[str, str, int] | None:
    """The same, where the error is one of click's."""
    if "click" not in sys.modules:  # it is imported where it is needed, and not for this
        return None
    import click

    if isinstance(error, click.Abort):
        return "given up", "", 130
    if not isinstance(error, click.ClickException):
        return None
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"see {error.ctx.command_path} --help"
    return error.format_message(), hint, error.exit_code


def _explain_engine(error: Exception) -> tuple[str, str, int]:
    # imported here: whoever raised one of these has imported it already
    from fireside.engine import CheckpointError, ContextOverflowError, FiresideError, SamplingError

    if not isinstance(error, FiresideError):
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = "this is a fault in Fireside: FIRESIDE_DEBUG=1 shows where, please report it"
        return what, hint, FAILURE
    codes = {CheckpointError: MODEL, ContextOverflowError: OVERFLOW, SamplingError: USAGE}
    code = next((c for kind, c in codes.items() if isinstance(error, kind)), FAILURE)
    return error.message, error.hint, code


def _drop_stdout() -> None:
    """Let what is still buffered go nowhere, so that Python does not complain when it ends."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
