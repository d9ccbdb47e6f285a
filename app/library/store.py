"""The library's file: one SQLite connection, its settings, its lock and its transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fireside.app.library import schema
from fireside.app.library.errors import FAILURES, LibraryError, library_error

BUSY_MS = 5000
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables


class Store:
    """A library file, open.

    One connection behind a lock serves every thread. A call holds the lock for well under a
    millisecond, so a connection for each thread would gain nothing and need closing in each.

    WAL with synchronous=NORMAL: a commit has been written to the log when the call returns, and
    what the kernel was given survives the death of the process. Only a power cut can take the
    last commits (never the file): waiting for the disk in each call would be felt when typing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise LibraryError(
                f"Python's SQLite is {sqlite3.sqlite_version}; the library needs 3.37 or newer.",
                "Use a newer Python.",
            )
        _prepare(path)
        try:
            connection = sqlite3.connect(
                path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise library_error(error, path) from error
        try:
            self.backup = _configure(connection, path)
        except FAILURES as error:
            connection.close()
            raise library_error(error, path) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                # Closing folds the log into the file. Where that fails (a full disk) the log
                # stays beside it and is read at the next opening.
                with suppress(sqlite3.Error):
                    connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the library."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A change that is made whole or not at all, and is saved when the block ends."""
        # IMMEDIATE: waits for another process here, where nothing has been read yet. A reader
        # that turns writer later would be refused instead of made to wait.
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection
            if connection is None:
                raise LibraryError(f"The library {self.path} is closed.")
            try:
                connection.execute(begin)
                yield connection
                connection.execute("COMMIT")
            except FAILURES as error:
                raise library_error(error, self.path) from error
            finally:
                if connection.in_transaction:
                    with suppress(*FAILURES):
                        connection.execute("ROLLBACK")


def _prepare(path: Path) -> None:
    """Create the folder and the file; stories are their writer's business alone."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            raise LibraryError(f"{path} is a folder.", "Name a file in it for the library.")
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LibraryError(
            f"The library {path} cannot be created ({reason}).",
            "Check the permissions of its folder, or name another file.",
        ) from error


def _configure(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Refuse what cannot be served before anything is changed, then settings and migrations."""
    migrations = schema.load_migrations()
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    schema.identify(connection, path, migrations[-1].number)
    mode = _enter_wal(connection)
    # Without WAL (some network file systems) a power cut could damage the file under NORMAL.
    connection.execute(f"PRAGMA synchronous = {'NORMAL' if mode == 'wal' else 'FULL'}")
    backup = schema.migrate(connection, path, migrations)
    connection.execute("PRAGMA foreign_keys = ON")
    schema.check(connection, path)
    # A file that cannot be written is better refused now than in the middle of a story.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")
    return backup


def _enter_wal(connection: sqlite3.Connection) -> str:
    """Switch to a write-ahead log; two processes that both try are refused, not made to wait."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
        except sqlite3.OperationalError as error:
            busy = (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
