"""Bringing a library file up to date: numbered scripts, in one transaction, after a backup."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from fireside.app.library.errors import LibraryError

APPLICATION_ID = 0x46495245  # "FIRE", at byte 68 of the file
_NAME = re.compile(r"(\d{4})_\w+\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step: the script that makes version `number` out of the version before it."""

    number: int
    sql: str


def load_migrations() -> tuple[Migration, ...]:
    """The scripts of this program, 1 to the newest, without a gap."""
    found = []
    # Beside this file, and not through importlib.resources, which takes longer to import than a
    # library takes to open.
    for entry in Path(__file__).with_name("migrations").iterdir():
        if match := _NAME.fullmatch(entry.name):
            found.append(Migration(int(match[1]), entry.read_text(encoding="utf-8")))
    found.sort(key=lambda migration: migration.number)
    if not found or [m.number for m in found] != list(range(1, len(found) + 1)):
        raise LibraryError("The library's migrations are incomplete.", "Reinstall Fireside.")
    return tuple(found)


def identify(connection: sqlite3.Connection, path: Path, latest: int) -> int:
    """The version of the file, 0 for an empty one; refuses what this program cannot serve."""
    # In one view: another process may be making the library between two of these lines.
    alone = not connection.in_transaction
    if alone:
        connection.execute("BEGIN")
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        application: int = connection.execute("PRAGMA application_id").fetchone()[0]
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    finally:
        if alone and connection.in_transaction:
            connection.execute("ROLLBACK")
    if application != APPLICATION_ID and (application or version or tables):
        raise LibraryError(
            f"{path} is a database of another program.", "Name another file for the library."
        )
    if version > latest:
        raise LibraryError(
            f"The library {path} was written by a newer Fireside "
            f"(its version is {version}; this program knows up to {latest}).",
            "Update Fireside; the library was left as it is.",
        )
    return version


def migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]
) -> Path | None:
    """Apply what the file lacks, all or nothing; returns the backup made, if one was.

    The connection is in autocommit mode, with foreign keys off (a script may rebuild tables).
    """
    latest = migrations[-1].number
    if identify(connection, path, latest) == latest:
        return None
    backup = None
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have brought it up to date while this one waited for the lock.
        version = identify(connection, path, latest)
        if version:
            check(connection, path)
            backup = back_up(path, version)
        for migration in migrations[version:]:
            for statement in _statements(migration.sql):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {migration.number:d}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID:d}")
        if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
            raise LibraryError(
                f"The library {path} could not be brought up to date: "
                f"rows of its table {broken[0]} lost what they refer to.",
                "It was left as it was; please report this.",
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return backup


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file whose tables are damaged; a millisecond for a megabyte of stories.

    Table by table, to leave out the search index: it can be made anew.
    """
    tables = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
    ).fetchall()
    for (table,) in tables:
        found = connection.execute(f'PRAGMA quick_check("{table}")').fetchone()[0]
        if found != "ok":
            raise LibraryError(
                f"The library {path} is damaged ({' '.join(found.split())}).",
                "Move the file away to start a new library, or put a backup in its place.",
            )


def back_up(path: Path, version: int) -> Path:
    """Copy the library beside itself, `stories.db` as `stories.v1.backup.db`.

    Reads through a connection of its own, so that it sees what is committed and nothing else.
    The copy appears under its name only when it is whole.
    """
    target = path.with_name(f"{path.stem}.v{version}.backup{path.suffix}")
    count = 1
    while target.exists():
        count += 1
        target = path.with_name(f"{path.stem}.v{version}.backup-{count}{path.suffix}")
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        partial.touch(mode=0o600)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        partial.replace(target)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise LibraryError(
            f"The library {path} must be brought up to date, but no backup of it could be made "
            f"({error}).",
            "Free some disk space or check the folder's permissions; the library is unchanged.",
        ) from error
    return target


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script; `executescript` would commit the transaction around it."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
