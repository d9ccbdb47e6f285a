"""The page and its safe-keeping: the story as it stands, saved behind the writer's back.

What is on the page is here at once; a thread of its own brings it into the library, in order,
growing text about twice a second. When the library refuses (a full disk), the page keeps
everything and the thread tries again. Only what needs the library's answer (undo, another
sibling, opening a story) waits for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from fireside.app.library import (
    Author,
    Library,
    LibraryError,
    Mode,
    Passage,
    Provenance,
)
from fireside.app.library.words import OPENING, title_from

log = logging.getLogger(__name__)

SAVE_EVERY = 0.5  # seconds between two savings of a text that grows
RETRY_EVERY = 2.0
SETTLE_TIMEOUT = 2.0


_keys = count(1)


@dataclass(eq=False)
class Leaf:
    """A passage on the page. `id` is the library's, None until it has been saved there."""

    author: Author
    text: str
    parent: Leaf | None = None
    id: int | None = None
    unfinished: bool = False
    provenance: Provenance | None = None
    unsaved: str = ""  # the end of `text` that the library does not have yet
    key: int = field(default_factory=_keys.__next__)  # what the page calls it


class Keeper:
    """One open story. Every method is for the UI's thread alone; the saving thread is inside."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.story_id: int | None = None  # None: nothing was written yet
        self.mode: Mode = "story"
        self.leaves: list[Leaf] = []
        self.trouble = ""  # why saving fails at the moment, one line; "" = all is well
        self._title = ""
        self._jobs: deque[Callable[[], None]] = deque()
        self._growing: Leaf | None = None
        self._state = threading.Condition()
        self._closing = False
        self._urgent = False  # somebody waits for everything to be saved
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    # -- the page -------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """All that stands on the page."""
        return "".join(leaf.text for leaf in self.leaves)

    @property
    def last(self) -> Leaf | None:
        """The part at the end of the page."""
        return self.leaves[-1] if self.leaves else None

    @property
    def title(self) -> str:
        """The story's title, or its first words."""
        if self._title:
            return self._title
        text = ""
        for leaf in self.leaves:
            text += leaf.text[:OPENING] + ("\n" if self.mode == "chat" else "")
            if len(text) >= OPENING:
                break
        return title_from(text[:OPENING]) if text.strip() else "A new story"

    @property
    def saved(self) -> bool:
        """Whether everything on the page is in the library."""
        with self._state:
            return not self._jobs and self._growing is None

    def new(self, mode: Mode = "story") -> None:
        """An empty page; a story comes into being with its first words."""
        self._leave()
        self.story_id, self.mode, self._title, self.leaves = None, mode, "", []

    def open(self, story_id: int) -> None:
        """Put another story on the page. Raises LibraryError."""
        self._leave()
        story = self.library.story(story_id)
        path = self.library.path(story_id)
        self.story_id, self.mode, self._title = story.id, story.mode, story.title
        self._lay_out(path)

    def rename(self, title: str) -> None:
        """Give the story a title."""
        self._title = title = " ".join(title.split())
        self._do(lambda: self._renamed(title))

    def was_renamed(self, title: str) -> None:
        """The story was given a title elsewhere."""
        self._title = title

    # -- writing --------------------------------------------------------------------------------

    def write(self, author: Author, text: str, after: Leaf | None = None) -> Leaf:
        """Add a part at the end of the page. A part of the model's is unfinished until `finish`."""
        leaf = Leaf(author, text, after or self.last, unfinished=author == "model")
        self.leaves.append(leaf)
        self._do(lambda: self._saved_new(leaf))
        return leaf

    def write_beside(self, leaf: Leaf, text: str) -> Leaf:
        """Take `leaf` (the last) off the page and begin a sibling of the model's in its place."""
        assert leaf is self.last
        self.leaves.pop()
        new = Leaf("model", text, leaf.parent, unfinished=True)
        self.leaves.append(new)
        self._do(lambda: self._saved_new(new))
        return new

    def grow(self, leaf: Leaf, text: str) -> None:
        """The part that is being written becomes longer."""
        with self._state:
            leaf.text += text
            leaf.unsaved += text
            self._growing = leaf
            self._state.notify_all()

    def finish(self, leaf: Leaf, provenance: Provenance) -> None:
        """The part has come to its end."""
        leaf.unfinished, leaf.provenance = False, provenance
        self._do(lambda: self._saved_end(leaf, provenance))

    # -- what needs the library's answer --------------------------------------------------------

    def replace(self, leaf: Leaf, text: str) -> None:
        """An edit: the part with another text, beside the old one; what followed is left behind."""
        self._settle()
        assert leaf.id is not None
        assert self.story_id is not None
        self.library.replace(leaf.id, text)
        self._lay_out(self.library.path(self.story_id))

    def undo(self) -> bool:
        """Take back the last step; False when there is none."""
        return self._travel(self.library.undo)

    def redo(self) -> bool:
        """Take the step again; False when there is none."""
        return self._travel(self.library.redo)

    def siblings(self) -> tuple[int, int]:
        """(which of its siblings the last part is, counted from 1; how many there are)."""
        ids = self._sibling_ids()
        last = self.last
        if last is None or last.id not in ids:
            return 1, max(len(ids), 1)
        return ids.index(last.id) + 1, len(ids)

    @property
    def redoable(self) -> bool:
        """Whether there is a step to take again."""
        return self.story_id is not None and self.library.can_redo(self.story_id)

    def turn(self, step: int) -> bool:
        """Put the next (or with -1 the previous) sibling in the place of the last part."""
        self._settle()
        ids, last = self._sibling_ids(), self.last
        if last is None or self.story_id is None or last.id not in ids or len(ids) < 2:
            return False
        new = ids[(ids.index(last.id) + step) % len(ids)]
        self.library.set_head(self.story_id, new)
        self._lay_out(self.library.path(self.story_id))
        return True

    def close(self) -> str:
        """Save what is left and let the thread end; why not all could be saved, "" where it was."""
        refused = ""
        try:
            self._settle()
        except LibraryError as error:
            log.warning("not everything could be saved: %s", error)
            refused = error.message
        with self._state:
            self._closing = True
            self._state.notify_all()
        self._thread.join(SETTLE_TIMEOUT)
        return refused

    def _leave(self) -> None:
        """Before another story comes: this one must be safe."""
        if not self.saved:
            self._settle()

    def _travel(self, step: Callable[[int], bool]) -> bool:
        self._settle()
        if self.story_id is None or not step(self.story_id):
            return False
        self._lay_out(self.library.path(self.story_id))
        return True

    def _sibling_ids(self) -> list[int]:
        last = self.last
        if last is None or last.id is None:
            return []
        return [passage.id for passage in self.library.siblings(last.id)]

    def _lay_out(self, path: list[Passage]) -> None:
        """The page as the library has it; parts that were on it before stay the same objects."""
        known = {leaf.id: leaf for leaf in self.leaves if leaf.id is not None}
        self.leaves = []
        for passage in path:
            leaf = known.get(passage.id)
            if leaf is None or leaf.text != passage.text:
                leaf = Leaf(passage.author, passage.text, None, passage.id)
            leaf.parent = self.last
            leaf.unfinished, leaf.provenance = passage.unfinished, passage.provenance
            self.leaves.append(leaf)

    # -- saving ---------------------------------------------------------------------------------

    def _do(self, job: Callable[[], None]) -> None:
        with self._state:
            self._jobs.append(job)
            self._state.notify_all()

    def _settle(self) -> None:
        """Wait until everything is saved. Raises LibraryError when that fails."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        with self._state:
            self.trouble, self._urgent = "", True
            self._state.notify_all()
            while (self._jobs or self._growing is not None) and not self.trouble:
                if not self._state.wait(deadline - time.monotonic()):
                    break
            self._urgent = False
            if self._jobs or self._growing is not None:
                raise LibraryError(self.trouble or "the library does not answer, try again")

    def _run(self) -> None:
        """The saving thread: jobs at once and in order, growing text now and then."""
        next_growth = 0.0
        while True:
            with self._state:
                while not self._jobs and not self._closing:
                    wait = None
                    if self._growing is not None:
                        wait = 0.0 if self._urgent else next_growth - time.monotonic()
                        if wait <= 0:
                            break
                    self._state.wait(wait)
                if self._closing:
                    return
                job = self._jobs[0] if self._jobs else None
            if self._attempt(job):
                next_growth = time.monotonic() + SAVE_EVERY
            else:
                with self._state:
                    self._state.wait_for(lambda: self._closing or self._urgent, RETRY_EVERY)

    def _attempt(self, job: Callable[[], None] | None) -> bool:
        """Do one job (the growing text comes before it); what fails stays where it is."""
        try:
            self._save_growth()
            if job is not None:
                job()
        except LibraryError as error:
            with self._state:
                self.trouble, self._urgent = str(error), False
                self._state.notify_all()
            return False
        except Exception as error:  # a job that cannot succeed must not block those behind it
            log.error("saving: %s", error, exc_info=error)
        with self._state:
            self.trouble = ""
            if job is not None:
                self._jobs.popleft()
            self._state.notify_all()
        return True

    def _save_growth(self) -> None:
        leaf = self._growing
        if leaf is not None and leaf.id is not None:  # without an id its own job comes first
            self._extend(leaf, leaf.id)

    def _extend(self, leaf: Leaf, passage_id: int) -> None:
        text = leaf.unsaved
        if text:
            self.library.extend(passage_id, text)
        with self._state:
            leaf.unsaved = leaf.unsaved[len(text) :]
            if not leaf.unsaved and self._growing is leaf:
                self._growing = None

    def _saved_new(self, leaf: Leaf) -> None:
        if self.story_id is None:
            self.story_id = self.library.create(self._title, self.mode).id
        with self._state:
            text = leaf.text  # with what it has grown by since
        parent = leaf.parent.id if leaf.parent is not None else None
        leaf.id = self.library.append(self.story_id, parent, leaf.author, text).id
        with self._state:
            leaf.unsaved = leaf.text[len(text) :]
            if not leaf.unsaved and self._growing is leaf:
                self._growing = None

    def _saved_end(self, leaf: Leaf, provenance: Provenance) -> None:
        if leaf.id is not None:
            self._extend(leaf, leaf.id)
            self.library.finish(leaf.id, provenance)

    def _renamed(self, title: str) -> None:
        if self.story_id is not None:
            self.library.rename(self.story_id, title)
