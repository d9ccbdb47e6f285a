"""The tree of a story and the journal of its head, inside a transaction of the caller's."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

from fireside.app.library.errors import LibraryError
from fireside.app.library.records import Author, Mode, Passage, Provenance, Story
from fireside.app.library.rows import PASSAGE, STORY, insert_passage, passage_of, story_of
from fireside.app.library.words import OPENING, one_line

# The ids from a passage up to its root, with their distance. Parents are older than their
# children, so the comparison changes nothing but in a damaged file, where it ends a loop.
_UP = (
    "WITH RECURSIVE up (id, parent, depth) AS ("
    " SELECT id, parent, 0 FROM passage WHERE id = ?1"
    " UNION ALL SELECT p.id, p.parent, up.depth + 1 FROM up"
    " JOIN passage p ON p.id = up.parent AND p.id < up.id)"
)


def no_story(story_id: int) -> LibraryError:
    """The error for a story that is not there."""
    return LibraryError(f"There is no story {story_id} in the library.")


def no_passage(passage_id: int, story_id: int | None = None) -> LibraryError:
    """The error for a passage that is not there."""
    place = "the library" if story_id is None else f"story {story_id}"
    return LibraryError(f"There is no passage {passage_id} in {place}.")


def story(connection: sqlite3.Connection, story_id: int) -> Story:
    """The story of this id."""
    row = connection.execute(f"SELECT {STORY} FROM story WHERE id = ?", (story_id,)).fetchone()
    if row is None:
        raise no_story(story_id)
    return story_of(row)


def passage(connection: sqlite3.Connection, passage_id: int) -> Passage:
    """The passage of this id."""
    row = connection.execute(
        f"SELECT {PASSAGE} FROM passage WHERE id = ?", (passage_id,)
    ).fetchone()
    if row is None:
        raise no_passage(passage_id)
    return passage_of(row)


def expect_in_story(connection: sqlite3.Connection, passage_id: int, story_id: int) -> None:
    """Refuse a passage that is not one of the story's."""
    row = connection.execute(
        "SELECT 1 FROM passage WHERE story_id = ? AND id = ?", (story_id, passage_id)
    ).fetchone()
    if row is None:
        raise no_passage(passage_id, story_id)


def children(
    connection: sqlite3.Connection, story_id: int, passage_id: int | None
) -> list[Passage]:
    """What follows a passage, oldest first."""
    rows = connection.execute(
        f"SELECT {PASSAGE} FROM passage WHERE story_id = ? AND parent IS ? ORDER BY id",
        (story_id, passage_id),
    ).fetchall()
    return [passage_of(row) for row in rows]


def path(connection: sqlite3.Connection, story_id: int, head: int | None) -> list[Passage]:
    """The passages from the root to `head`."""
    rows = connection.execute(
        f"{_UP} SELECT {PASSAGE} FROM passage JOIN (SELECT id AS up_id, depth FROM up)"
        " ON id = up_id WHERE story_id = ?2 ORDER BY depth DESC",
        (head, story_id),
    ).fetchall()
    return [passage_of(row) for row in rows]


def text(connection: sqlite3.Connection, head: int | None) -> str:
    """The text from the root to `head`."""
    rows = connection.execute(
        f"{_UP} SELECT text FROM up JOIN passage USING (id) ORDER BY depth DESC", (head,)
    )
    return "".join(part for (part,) in rows)


def append(
    connection: sqlite3.Connection,
    story_id: int,
    parent: int | None,
    author: Author,
    text: str,
    provenance: Provenance | None,
) -> Passage:
    """Add a passage and go there."""
    touch(connection, story_id)
    if parent is not None:
        expect_in_story(connection, parent, story_id)
    passage_id = insert_passage(connection, story_id, parent, author, text, time.time(), provenance)
    move_head(connection, story_id, passage_id, grown_from=parent)
    return passage(connection, passage_id)


def edited(old: Passage, mode: Mode) -> tuple[Author, Provenance | None]:
    """Whose words an edited passage holds, and how they came to be."""
    if mode == "chat" and old.author == "model":
        provenance = old.provenance or Provenance()
        return "model", replace(provenance, finish_reason="edited", tokens=None, tok_s=None)
    return "writer", None


def touch(connection: sqlite3.Connection, story_id: int) -> None:
    """Make the story the one touched last."""
    touched = connection.execute(
        "UPDATE story SET updated = ? WHERE id = ? RETURNING id", (time.time(), story_id)
    ).fetchone()
    if touched is None:
        raise no_story(story_id)


def refresh_opening(
    connection: sqlite3.Connection, story_id: int, *, growing: bool = False
) -> None:
    """Take the story's first words from its path again.

    With `growing` the path has only become longer, which leaves a whole opening as it is.
    """
    head, opening, mode = connection.execute(
        "SELECT head, opening, mode FROM story WHERE id = ?", (story_id,)
    ).fetchone()
    if growing and len(opening) >= OPENING:
        return
    rows = connection.execute(
        f"{_UP} SELECT substr(text, 1, {4 * OPENING}) FROM up JOIN passage USING (id)"
        " ORDER BY depth DESC",
        (head,),
    )
    text = ""
    for (part,) in rows:
        text += part if mode == "story" else f"{part} "  # turns of a chat stand apart
        if len(one_line(text)) >= OPENING:
            break
    connection.execute(
        "UPDATE story SET opening = ? WHERE id = ?", (one_line(text)[:OPENING], story_id)
    )


def moves(connection: sqlite3.Connection, story_id: int) -> tuple[int, int]:
    """How many moves of the head can be undone, and how many redone."""
    row = connection.execute(
        "SELECT moves, (SELECT max(number) FROM move WHERE story_id = story.id)"
        " FROM story WHERE id = ?",
        (story_id,),
    ).fetchone()
    if row is None:
        raise no_story(story_id)
    done, known = row
    return done, (known or 0) - done


def move_head(
    connection: sqlite3.Connection,
    story_id: int,
    after: int | None,
    *,
    grown_from: int | None = None,
) -> None:
    """Move the head and note it in the journal; what could be redone is forgotten."""
    row = connection.execute("SELECT head, moves FROM story WHERE id = ?", (story_id,)).fetchone()
    if row is None:
        raise no_story(story_id)
    before, done = row
    if before == after:
        return
    connection.execute("DELETE FROM move WHERE story_id = ? AND number > ?", (story_id, done))
    connection.execute(
        "INSERT INTO move (story_id, number, before, after) VALUES (?, ?, ?, ?)",
        (story_id, done + 1, before, after),
    )
    connection.execute(
        "UPDATE story SET head = ?, moves = ? WHERE id = ?", (after, done + 1, story_id)
    )
    growing = before is not None and grown_from == before
    refresh_opening(connection, story_id, growing=growing)


def travel(connection: sqlite3.Connection, story_id: int, step: int) -> bool:
    """Walk one move along the journal: -1 back, +1 forth. False at its end."""
    undoable, redoable = moves(connection, story_id)
    if (undoable if step < 0 else redoable) == 0:
        return False
    number = undoable if step < 0 else undoable + 1
    before, after = connection.execute(
        "SELECT before, after FROM move WHERE story_id = ? AND number = ?", (story_id, number)
    ).fetchone()
    connection.execute(
        "UPDATE story SET head = ?, moves = moves + ? WHERE id = ?",
        (before if step < 0 else after, step, story_id),
    )
    refresh_opening(connection, story_id)
    return True
