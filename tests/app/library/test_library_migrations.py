"""Files of other versions, of other programs, and of no sense at all."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fireside.app.library import Library, LibraryError, schema
from fireside.app.library.schema import Migration, load_migrations

SECOND = Migration(
    2,
    """-- A comment before; with a semicolon
ALTER TABLE passage ADD COLUMN starred INTEGER NOT NULL DEFAULT 0;

CREATE TABLE note (
    id INTEGER PRIMARY KEY,
    passage INTEGER REFERENCES passage (id), -- points; there
    text TEXT NOT NULL DEFAULT 'a;b'
) STRICT;

CREATE TRIGGER starred AFTER INSERT ON note BEGIN
    UPDATE passage SET starred = 1 WHERE id = new.passage;
    UPDATE passage SET starred = starred + 0 WHERE id = new.passage;
END;

-- the end
""",
)


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def with_migrations(monkeypatch: pytest.MonkeyPatch, *more: Migration) -> None:
    known = load_migrations()
    monkeypatch.setattr(schema, "load_migrations", lambda: (*known, *more))


@pytest.fixture
def written(path: Path) -> Path:
    with Library(path) as library:
        story = library.create("The dragon")
        one = library.append(story.id, None, "writer", "Once upon a time ")
        library.append(story.id, one.id, "model", "there was a dragon.")
    return path


def test_the_scripts_are_numbered_without_gaps() -> None:
    assert [m.number for m in load_migrations()] == list(range(1, len(load_migrations()) + 1))


def test_a_new_library_is_up_to_date(written: Path) -> None:
    assert version(written) == load_migrations()[-1].number
    assert [file.name for file in written.parent.iterdir()] == [written.name]


@pytest.mark.parametrize("start", range(1, len(load_migrations()) + 1))
def test_each_older_version_is_brought_up_to_date(
    start: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty library of each version so far; what it holds is for the tests of each script."""
    known = load_migrations()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "load_migrations", lambda: known[:start])
        Library(path).close()
    assert version(path) == start
    with Library(path) as library:
        library.create("works")
        assert (library.backup is None) == (start == len(known))
    assert version(path) == len(known)


def test_a_backup_is_made_and_nothing_is_lost(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = version(written)
    with_migrations(monkeypatch, Migration(old + 1, SECOND.sql))
    with Library(written) as library:
        backup = library.backup
        assert backup == written.with_name(f"stories.v{old}.backup.db")
        story = library.last()
        assert story is not None
        assert library.text(story.id) == "Once upon a time there was a dragon."
        assert [s.id for s in library.stories("dragon")] == [story.id]
        library.append(story.id, story.head, "writer", " More.")
        connection = library._store._connection
        assert connection is not None
        connection.execute("INSERT INTO note (passage) VALUES (1)")
        assert connection.execute("SELECT starred FROM passage WHERE id = 1").fetchone() == (1,)
        assert connection.execute("SELECT text FROM note").fetchone() == ("a;b",)
    assert version(written) == old + 1
    assert version(backup) == old
    assert backup.stat().st_mode & 0o077 == 0
    with Library(written) as library:
        assert library.backup is None
    monkeypatch.undo()
    with Library(backup) as library:
        assert library.text(1) == "Once upon a time there was a dragon."
        assert library.backup is None


def test_backups_do_not_replace_each_other(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = written.with_name(f"stories.v{version(written)}.backup.db")
    first.write_bytes(b"mine")
    with_migrations(monkeypatch, Migration(version(written) + 1, SECOND.sql))
    with Library(written) as library:
        assert library.backup == first.with_name(first.name.replace("backup", "backup-2"))
    assert first.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "broken",
    [
        "CREATE TABLE note (id INTEGER) STRICT;\nCREATE TABLE note (id INTEGER) STRICT;",
        "UPDATE passage SET text = 'gone';\nSELECT nonsense;",
        "DELETE FROM passage WHERE id = 1;",  # the second refers to it
        "UPDATE passage SET text = 'gone';\nthis is no sql",
    ],
)
def test_a_migration_that_fails_changes_nothing(
    broken: str, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = version(written)
    with monkeypatch.context() as patch:
        with_migrations(patch, Migration(old + 1, SECOND.sql), Migration(old + 2, broken))
        with pytest.raises(LibraryError):
            Library(written)
    assert version(written) == old
    with Library(written) as library:
        assert library.text(1) == "Once upon a time there was a dragon."


def test_no_backup_no_migration(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = version(written)
    blocked = written.with_name(f"stories.v{old}.backup.db.partial")
    blocked.mkdir()
    with_migrations(monkeypatch, Migration(old + 1, SECOND.sql))
    with pytest.raises(LibraryError):
        Library(written)
    assert version(written) == old


def test_a_newer_library_is_left_alone(written: Path) -> None:
    with closing(sqlite3.connect(written)) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = written.read_bytes()
    with pytest.raises(LibraryError, match="newer Fireside") as caught:
        Library(written)
    assert "Update" in caught.value.hint
    assert written.read_bytes() == before


def test_another_program_s_database_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmark (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(LibraryError, match="another program"):
        Library(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"Dear diary,\n" * 500, b"\x00" * 4096, b"SQLite format 3\x00"]
)
def test_what_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(LibraryError):
        Library(path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_library(path: Path) -> None:
    path.touch()
    with Library(path) as library:
        library.create("x")


def test_a_folder_is_no_library(tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="is a folder"):
        Library(tmp_path)


def test_a_truncated_library_is_refused(written: Path) -> None:
    written.write_bytes(written.read_bytes()[: written.stat().st_size // 2])
    with pytest.raises(LibraryError, match="damaged"):
        Library(written)


def test_a_damaged_library_never_does_more_than_say_so(written: Path) -> None:
    sound = written.read_bytes()
    dice = random.Random(20)
    refused = 0
    for _ in range(150):
        damaged = bytearray(sound)
        start = dice.randrange(len(sound))
        for at in range(start, min(len(sound), start + dice.choice((1, 4, 64, 4096)))):
            damaged[at] = dice.randrange(256)
        for leftover in written.parent.glob("stories*"):
            leftover.unlink()
        written.write_bytes(damaged)
        try:
            with Library(written) as library:
                for story in library.stories():
                    library.path(story.id)
                    library.passages(story.id)
                    library.undo(story.id)
                    new = library.append(story.id, None, "writer", "x")
                    library.extend(new.id, "y")
                library.stories("dragon")
        except LibraryError:
            refused += 1
    assert refused > 20
