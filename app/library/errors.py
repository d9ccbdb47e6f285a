"""What can go wrong with a library of stories, in words for the person who owns them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fireside.engine.errors import FiresideError


class LibraryError(FiresideError):
    """The library cannot be opened, read or written, or was asked for something it lacks.

    After a failed write everything committed before it is still there and nothing of the failed
    call is: the caller keeps its text and may call again.
    """


# SQLite's names for trouble -> (what is wrong, what to do). A longer name is tried before its
# family ("SQLITE_IOERR_WRITE" before "SQLITE_IOERR").
_TROUBLE: dict[str, tuple[str, str]] = {
    "SQLITE_FULL": (
        "There is no room left to save to {path}.",
        "Free some disk space; what was saved before is safe, and the rest can be saved again.",
    ),
    "SQLITE_READONLY": (
        "The library {path} cannot be written to.",
        "Check the permissions of the file and of its folder.",
    ),
    "SQLITE_PERM": (
        "The library {path} cannot be written to.",
        "Check the permissions of the file and of its folder.",
    ),
    "SQLITE_CANTOPEN": (
        "The library {path} cannot be opened.",
        "Check that its folder exists and can be written to.",
    ),
    "SQLITE_NOTADB": (
        "{path} is not a library of stories, or it is damaged.",
        "Move the file away to start a new library, or put a backup in its place.",
    ),
    "SQLITE_CORRUPT": (
        "The library {path} is damaged.",
        "Move the file away to start a new library, or put a backup in its place; "
        "the sqlite3 tool's .recover command may save what it holds.",
    ),
    "SQLITE_BUSY": (
        "Another program keeps the library {path} locked.",
        "Close the other program, or wait for it, and try again.",
    ),
    "SQLITE_LOCKED": (
        "Another program keeps the library {path} locked.",
        "Close the other program, or wait for it, and try again.",
    ),
    "SQLITE_IOERR": (
        "The library {path} could not be read or written.",
        "The disk may be full, failing or gone; what was saved before is left as it was.",
    ),
    "SQLITE_TOOBIG": (
        "This text is too long for one passage of the library {path}.",
        "Divide it into several passages.",
    ),
}


# What sqlite3 raises: its own errors; for ids beyond 64 bits; for damage that SQLite reports in
# words that are no UTF-8, or that makes it ask for absurd amounts of memory.
FAILURES = (sqlite3.Error, OverflowError, UnicodeDecodeError, MemoryError)


def library_error(error: BaseException, path: Path) -> LibraryError:
    """What SQLite says, as a LibraryError."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if isinstance(error, UnicodeDecodeError) or "Could not decode to UTF-8" in str(error):
        name = "SQLITE_CORRUPT"
    elif "file is not a database" in str(error):
        name = "SQLITE_NOTADB"
    while name:
        if name in _TROUBLE:
            message, hint = _TROUBLE[name]
            return LibraryError(message.format(path=path), hint)
        name = name.rpartition("_")[0]
    return LibraryError(f"The library {path} could not do this: {error}.")
