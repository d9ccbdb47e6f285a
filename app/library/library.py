"""The library: stories as trees of passages, saved as they grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from fireside.app.library import search, tree
from fireside.app.library.errors import LibraryError
from fireside.app.library.records import (
    AUTHORS,
    MODES,
    Author,
    Mode,
    Passage,
    Provenance,
    Story,
    StorySummary,
)
from fireside.app.library.rows import (
    PASSAGE,
    STORY,
    insert_passage,
    passage_of,
    provenance_row,
    story_of,
)
from fireside.app.library.store import Store
from fireside.app.library.words import clean, fold, one_line

_DAY = 86_400.0
_Result = TypeVar("_Result")


class Library:
    """The stories of one file, open until `close` (or the end of a `with` block).

    Every call is one transaction, saved when it returns, and any thread may call: a lock lets
    one in at a time. Several programs may have the same file open. Whatever goes wrong is a
    LibraryError, after which nothing of the failed call is in the file; the caller keeps its
    text and may try again.

    Text is kept as given but for NUL and lone surrogates, which become U+FFFD.
    """

    def __init__(self, path: Path) -> None:
        self._store = Store(Path(path).absolute())

    @property
    def file(self) -> Path:
        """The file that holds the library."""
        return self._store.path

    @property
    def backup(self) -> Path | None:
        """The copy made at opening because the file had to be brought up to date."""
        return self._store.backup

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Stories

    def create(self, title: str = "", mode: Mode = "story") -> Story:
        """A new story with an empty page."""
        if mode not in MODES:
            raise LibraryError(f"There is no mode {mode!r}.", f"Modes: {', '.join(MODES)}.")
        title, now = one_line(clean(title)), time.time()
        with self._store.write() as connection:
            row = connection.execute(
                "INSERT INTO story (title, folded_title, mode, created, updated)"
                f" VALUES (?, ?, ?, ?, ?) RETURNING {STORY}",
                (title, fold(title), mode, now, now),
            ).fetchone()
        return story_of(row)

    def story(self, story_id: int) -> Story:
        """The story as it is now, deleted or not."""
        with self._store.read() as connection:
            return tree.story(connection, story_id)

    def stories(
        self, query: str = "", *, deleted: bool = False, limit: int = 500
    ) -> list[StorySummary]:
        """The stories (with `deleted`, those in the bin), newest first.

        With a query those whose title or text holds every word of it, in any case and with or
        without accents; a word may be part of a longer one. Milliseconds where the rest takes
        microseconds: words of one or two letters are looked for in every passage.
        """
        terms = search.terms_of(clean(query))
        if not terms:
            with self._store.read() as connection:
                return search.list_stories(connection, deleted=deleted, limit=limit)

        def find() -> list[StorySummary]:
            self._index_waiting()
            with self._store.read() as connection:
                return search.find_stories(connection, terms, deleted=deleted, limit=limit)

        return self._mending(find)

    def rename(self, story_id: int, title: str) -> None:
        """Give the story a title; an empty one lets its first words be the title."""
        title = one_line(clean(title))
        with self._store.write() as connection:
            tree.touch(connection, story_id)
            connection.execute(
                "UPDATE story SET title = ?, folded_title = ? WHERE id = ?",
                (title, fold(title), story_id),
            )

    def delete(self, story_id: int) -> None:
        """Put the story into the bin; `restore` takes it out again."""
        self._set_deleted(story_id, time.time())

    def restore(self, story_id: int) -> None:
        """Take the story out of the bin, to the place in the list that it had."""
        self._set_deleted(story_id, None)

    def purge(self, days: float = 30.0) -> int:
        """Remove for good what was deleted more than `days` ago; returns how many stories."""

        before = time.time() - days * _DAY

        def remove() -> int:
            with self._store.write() as connection:
                connection.execute(
                    "DELETE FROM search WHERE rowid IN (SELECT p.id FROM passage p"
                    " JOIN story s ON s.id = p.story_id WHERE s.deleted < ?)",
                    (before,),
                )
                return connection.execute("DELETE FROM story WHERE deleted < ?", (before,)).rowcount

        return self._mending(remove)

    def last(self) -> Story | None:
        """The story touched last, or None when there is none outside the bin."""
        with self._store.read() as connection:
            row = connection.execute(
                f"SELECT {STORY} FROM story WHERE deleted IS NULL"
                " ORDER BY updated DESC, id DESC LIMIT 1"
            ).fetchone()
        return None if row is None else story_of(row)

    # Writing

    def append(
        self,
        story_id: int,
        parent: int | None,
        author: Author,
        text: str,
        provenance: Provenance | None = None,
    ) -> Passage:
        """A new passage after `parent` (None: a new beginning); it becomes the head."""
        if author not in AUTHORS:
            raise LibraryError(f"There is no author {author!r}.", f"Authors: {', '.join(AUTHORS)}.")
        with self._store.write() as connection:
            passage = tree.append(connection, story_id, parent, author, clean(text), provenance)
        self._index(passage.id)
        return passage

    def extend(self, passage_id: int, text: str) -> None:
        """Add text that streams in to the end of a passage; saved when the call returns.

        A finished passage is extended too: late words are better kept than refused.
        """
        with self._store.write() as connection:
            row = connection.execute(
                "UPDATE passage SET text = text || ?, indexed = 0 WHERE id = ? RETURNING story_id",
                (clean(text), passage_id),
            ).fetchone()
            if row is None:
                raise tree.no_passage(passage_id)
            tree.touch(connection, row[0])
            tree.refresh_opening(connection, row[0], growing=True)

    def finish(self, passage_id: int, provenance: Provenance) -> None:
        """Say how a passage of the model's came to its end (no finish reason: "unknown")."""
        columns = provenance_row(provenance)
        with self._store.write() as connection:
            row = connection.execute(
                "UPDATE passage SET model = ?, quant = ?, kernels = ?, isa = ?, sampling = ?,"
                " seed = ?, finish_reason = coalesce(?, 'unknown'), tokens = ?, tok_s = ?"
                " WHERE id = ? AND author = 'model' RETURNING story_id",
                (*columns, passage_id),
            ).fetchone()
            if row is None:
                passage = tree.passage(connection, passage_id)
                raise LibraryError(f"Passage {passage.id} is the writer's, not the model's.")
            tree.touch(connection, row[0])
        self._index(passage_id)

    def replace(self, passage_id: int, text: str) -> Passage:
        """An edit: a new sibling with this text, which becomes the head.

        The passage and what follows it stay as they are beside it. In a story the words are now
        the writer's; in a chat they keep their speaker, with the finish reason "edited".
        """
        with self._store.write() as connection:
            old = tree.passage(connection, passage_id)
            author, provenance = tree.edited(old, tree.story(connection, old.story_id).mode)
            passage = tree.append(
                connection, old.story_id, old.parent, author, clean(text), provenance
            )
        self._index(passage.id)
        return passage

    # Reading

    def passage(self, passage_id: int) -> Passage:
        """The passage as it is now."""
        with self._store.read() as connection:
            return tree.passage(connection, passage_id)

    def passages(self, story_id: int) -> list[Passage]:
        """The whole tree, every parent before its children."""
        with self._store.read() as connection:
            tree.story(connection, story_id)
            rows = connection.execute(
                f"SELECT {PASSAGE} FROM passage WHERE story_id = ? ORDER BY id", (story_id,)
            ).fetchall()
        return [passage_of(row) for row in rows]

    def path(self, story_id: int, head: int | None = None) -> list[Passage]:
        """The passages from the root to `head` (None: to the story's head)."""
        with self._store.read() as connection:
            story = tree.story(connection, story_id)
            if head is not None:
                tree.expect_in_story(connection, head, story_id)
            return tree.path(connection, story_id, story.head if head is None else head)

    def children(self, passage_id: int | None, story_id: int | None = None) -> list[Passage]:
        """What follows the passage, oldest first; of None, the beginnings of the story."""
        with self._store.read() as connection:
            if passage_id is not None:
                owner = tree.passage(connection, passage_id).story_id
                if story_id not in (None, owner):
                    raise tree.no_passage(passage_id, story_id)
                story_id = owner
            elif story_id is None:
                raise LibraryError("The beginnings of which story? None was named.")
            return tree.children(connection, story_id, passage_id)

    def siblings(self, passage_id: int) -> list[Passage]:
        """The passages with the same parent, oldest first, this one among them."""
        with self._store.read() as connection:
            passage = tree.passage(connection, passage_id)
            return tree.children(connection, passage.story_id, passage.parent)

    def text(self, story_id: int) -> str:
        """All that stands on the page, from the root to the head."""
        with self._store.read() as connection:
            return tree.text(connection, tree.story(connection, story_id).head)

    # Moving about

    def set_head(self, story_id: int, passage_id: int | None) -> None:
        """Go to a passage (None: to the empty page); can be undone."""
        with self._store.write() as connection:
            if passage_id is not None:
                tree.expect_in_story(connection, passage_id, story_id)
            tree.move_head(connection, story_id, passage_id)
            tree.touch(connection, story_id)

    def undo(self, story_id: int) -> bool:
        """Take back the last move of the head; False when there is none."""
        return self._travel(story_id, -1)

    def redo(self, story_id: int) -> bool:
        """Make the move taken back last once more; False when there is none."""
        return self._travel(story_id, +1)

    def can_undo(self, story_id: int) -> bool:
        """Whether `undo` would do something."""
        with self._store.read() as connection:
            return tree.moves(connection, story_id)[0] > 0

    def can_redo(self, story_id: int) -> bool:
        """Whether `redo` would do something."""
        with self._store.read() as connection:
            return tree.moves(connection, story_id)[1] > 0

    # Upkeep

    def import_story(self, story: Story, passages: Iterable[Passage]) -> Story:
        """Add a story read from elsewhere; ids are given anew, parents come first.

        What `passages` and `head` refer to must be among the passages before them.
        """
        title = one_line(clean(story.title))
        with self._store.write() as connection:
            story_id = connection.execute(
                "INSERT INTO story (title, folded_title, mode, created, updated)"
                " VALUES (?, ?, ?, ?, ?) RETURNING id",
                (title, fold(title), story.mode, story.created, time.time()),
            ).fetchone()[0]
            ids: dict[int | None, int | None] = {None: None}
            for old in passages:
                new = insert_passage(
                    connection,
                    story_id,
                    ids[old.parent],
                    old.author,
                    clean(old.text),
                    old.created,
                    old.provenance,
                )
                ids[old.id] = new
            connection.execute(
                "UPDATE story SET head = ? WHERE id = ?", (ids[story.head], story_id)
            )
            tree.refresh_opening(connection, story_id)
            added = tree.story(connection, story_id)
        self._index_waiting()
        return added

    def rebuild_index(self) -> None:
        """Make the search index anew; it holds nothing that the passages do not."""
        with self._store.write() as connection:
            search.rebuild(connection)

    def _travel(self, story_id: int, step: int) -> bool:
        with self._store.write() as connection:
            moved = tree.travel(connection, story_id, step)
            if moved:
                tree.touch(connection, story_id)
        return moved

    def _set_deleted(self, story_id: int, when: float | None) -> None:
        with self._store.write() as connection:
            changed = connection.execute(
                "UPDATE story SET deleted = ? WHERE id = ? RETURNING id", (when, story_id)
            ).fetchone()
            if changed is None:
                raise tree.no_story(story_id)

    def _index(self, passage_id: int) -> None:
        """Index a passage if that is possible now; else the next search sees to it."""
        with suppress(LibraryError), self._store.write() as connection:
            search.index_passage(connection, passage_id)

    def _index_waiting(self) -> None:
        """Bring the index up to date; a library that cannot be written is searched as it is."""
        with self._store.read() as connection:
            if not search.is_waiting(connection):
                return
        try:
            with self._store.write() as connection:
                search.index_waiting(connection)
        except LibraryError as error:
            if search.is_damage(error.__cause__):
                with suppress(LibraryError):
                    self.rebuild_index()

    def _mending(self, work: Callable[[], _Result]) -> _Result:
        """Do what needs the index; where the index turns out damaged, once more with a new one."""
        try:
            return work()
        except LibraryError as error:
            if not search.is_damage(error.__cause__):
                raise
        self.rebuild_index()
        return work()
