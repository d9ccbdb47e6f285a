"""Finding stories by any part of their titles and texts.

A query is words between blanks; a story is found when each of them, taken literally, is in its
title or in one of its passages (of any branch). Case, accents and the kind of quotes and dashes
do not matter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from fireside.app.library.records import StorySummary
from fireside.app.library.words import fold, snippet

_TRIGRAM = 3
_LONGEST_QUERY = 200  # characters; what is pasted beyond says nothing more
_MOST_TERMS = 12

_SUMMARY = (
    "SELECT s.id, s.title, s.mode, s.created, s.updated, s.deleted, s.opening,"
    " (SELECT count(*) FROM passage p WHERE p.story_id = s.id) FROM story s"
)
_BY_INDEX = (
    "s.id IN (SELECT p.story_id FROM search f CROSS JOIN passage p ON p.id = f.rowid"
    " WHERE f.text MATCH ?)"
)
# Shorter than a trigram (many a Chinese word is): look into each passage of the stories that the
# other terms left over. CROSS JOIN keeps SQLite from starting at the index.
_BY_SCAN = (
    "EXISTS (SELECT 1 FROM passage p CROSS JOIN search f ON f.rowid = p.id"
    " WHERE p.story_id = s.id AND instr(f.text, ?))"
)


def terms_of(query: str) -> list[str]:
    """The words of a query as they are searched, the longest (the most telling) first."""
    words = dict.fromkeys(fold(query[:_LONGEST_QUERY]).split())
    return sorted(words, key=len, reverse=True)[:_MOST_TERMS]


def index_passage(connection: sqlite3.Connection, passage_id: int) -> None:
    """Make the index tell what the passage says now.

    Done in a transaction of its own after the words are saved: nothing that ails the index may
    keep words from being saved, and it can be made anew at any time.
    """
    row = connection.execute(
        "SELECT text FROM passage WHERE id = ? AND indexed = 0", (passage_id,)
    ).fetchone()
    if row is not None:
        connection.execute("DELETE FROM search WHERE rowid = ?", (passage_id,))
        connection.execute(
            "INSERT INTO search (rowid, text) VALUES (?, ?)", (passage_id, fold(row[0]))
        )
        connection.execute("UPDATE passage SET indexed = 1 WHERE id = ?", (passage_id,))


def is_damage(error: BaseException | None) -> bool:
    """Whether an error met at work on the index says that it is in disorder."""
    if isinstance(error, UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT)


def is_waiting(connection: sqlite3.Connection) -> bool:
    """Whether any passage says more than the index knows."""
    row = connection.execute("SELECT 1 FROM passage WHERE indexed = 0 LIMIT 1").fetchone()
    return row is not None


def index_waiting(connection: sqlite3.Connection) -> None:
    """Index what has been written to since: passages that stream in wait for their end."""
    for (passage_id,) in connection.execute("SELECT id FROM passage WHERE indexed = 0").fetchall():
        index_passage(connection, passage_id)


def rebuild(connection: sqlite3.Connection) -> None:
    """Make the index anew from the passages, which are all it holds."""
    connection.execute("DROP TABLE search")
    connection.execute(
        "CREATE VIRTUAL TABLE search USING fts5 (text, tokenize = 'trigram case_sensitive 1')"
    )
    connection.execute("UPDATE passage SET indexed = 0")
    index_waiting(connection)


def list_stories(
    connection: sqlite3.Connection, *, deleted: bool, limit: int
) -> list[StorySummary]:
    """All stories, the last touched first; those in the bin, the last deleted first."""
    rows = connection.execute(f"{_SUMMARY} WHERE {_order(deleted)}", (max(0, limit),))
    return [_summary(row, row[6], ()) for row in rows]


def find_stories(
    connection: sqlite3.Connection, terms: Sequence[str], *, deleted: bool, limit: int
) -> list[StorySummary]:
    """The stories that hold every term, with the words around the first one."""
    conditions, values = [], []
    for term in terms:
        indexed = len(term) >= _TRIGRAM
        conditions.append(f"(instr(s.folded_title, ?) OR {_BY_INDEX if indexed else _BY_SCAN})")
        values += [term, _phrase(term) if indexed else term]
    where = " AND ".join(conditions)
    rows = connection.execute(
        f"{_SUMMARY} WHERE {where} AND {_order(deleted)}", (*values, max(0, limit))
    ).fetchall()
    return [_summary(row, *_snippet(connection, row, terms)) for row in rows]


def _order(deleted: bool) -> str:
    if deleted:
        return "s.deleted IS NOT NULL ORDER BY s.deleted DESC, s.id DESC LIMIT ?"
    return "s.deleted IS NULL ORDER BY s.updated DESC, s.id DESC LIMIT ?"


def _phrase(term: str) -> str:
    """The term as an FTS5 string, in which nothing is an operator."""
    return '"' + term.replace('"', '""') + '"'


def _summary(
    row: tuple[Any, ...], words: str, matches: tuple[tuple[int, int], ...]
) -> StorySummary:
    number, title, mode, created, updated, deleted, opening, passages = row
    return StorySummary(
        number, title, mode, created, updated, deleted, opening, passages, words, matches
    )


def _snippet(
    connection: sqlite3.Connection, row: tuple[Any, ...], terms: Sequence[str]
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Where the story says the most telling term that its passages hold; else its opening."""
    for at, term in enumerate(terms):
        found = connection.execute(
            "SELECT p.text FROM passage p CROSS JOIN search f ON f.rowid = p.id"
            " WHERE p.story_id = ? AND instr(f.text, ?) ORDER BY p.id LIMIT 1",
            (row[0], term),
        ).fetchone()
        if found:
            return snippet(found[0], [term, *terms[:at], *terms[at + 1 :]])
    return snippet(row[6], terms)
