"""Any sequence of operations leaves the tree and the journal as a simple model of them says."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fireside.app.library import Library, Passage

TEXT = st.text(max_size=8)
PICK = st.integers(min_value=0, max_value=1_000_000)


class StoryMachine(RuleBasedStateMachine):
    """The model: each passage's text and parent, and the heads visited with a place in them."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "stories.db"
        self.library = Library(self.path)

    @initialize()
    def start(self) -> None:
        self.story = self.library.create().id
        self.texts: dict[int, str] = {}
        self.parents: dict[int, int | None] = {}
        self.heads: list[int | None] = [None]
        self.at = 0

    def pick(self, number: int) -> int | None:
        choices = [None, *self.texts]
        return choices[number % len(choices)]

    def moved(self, head: int | None) -> None:
        if head != self.heads[self.at]:
            self.heads[self.at + 1 :] = [head]
            self.at += 1

    def added(self, passage: Passage, parent: int | None, text: str) -> None:
        assert passage.id not in self.texts
        assert passage.text == text
        self.texts[passage.id] = passage.text
        self.parents[passage.id] = parent
        self.moved(passage.id)

    @rule(number=PICK, text=TEXT)
    def append(self, number: int, text: str) -> None:
        parent = self.pick(number)
        text = text.replace("\x00", "")
        self.added(self.library.append(self.story, parent, "model", text), parent, text)

    @rule(text=TEXT)
    def go_on(self, text: str) -> None:
        head = self.heads[self.at]
        text = text.replace("\x00", "")
        self.added(self.library.append(self.story, head, "writer", text), head, text)

    @precondition(lambda self: self.texts)
    @rule(number=PICK, text=TEXT)
    def extend(self, number: int, text: str) -> None:
        passage = self.pick(number)
        text = text.replace("\x00", "")
        if passage is not None:
            self.library.extend(passage, text)
            self.texts[passage] += text

    @precondition(lambda self: self.texts)
    @rule(number=PICK, text=TEXT)
    def replace(self, number: int, text: str) -> None:
        passage = self.pick(number)
        text = text.replace("\x00", "")
        if passage is not None:
            edit = self.library.replace(passage, text)
            self.added(edit, self.parents[passage], text)

    @rule(number=PICK)
    def set_head(self, number: int) -> None:
        head = self.pick(number)
        self.library.set_head(self.story, head)
        self.moved(head)

    @rule()
    def undo(self) -> None:
        assert self.library.undo(self.story) == (self.at > 0)
        self.at = max(0, self.at - 1)

    @rule()
    def redo(self) -> None:
        assert self.library.redo(self.story) == (self.at < len(self.heads) - 1)
        self.at = min(len(self.heads) - 1, self.at + 1)

    @precondition(lambda self: self.at > 0)
    @rule()
    def undo_and_redo(self) -> None:
        head = self.library.story(self.story).head
        assert self.library.undo(self.story)
        assert self.library.redo(self.story)
        assert self.library.story(self.story).head == head

    @rule()
    def reopen(self) -> None:
        self.library.close()
        self.library = Library(self.path)

    @invariant()
    def the_head_is_where_the_journal_says(self) -> None:
        if not hasattr(self, "story"):
            return
        assert self.library.story(self.story).head == self.heads[self.at]
        assert self.library.can_undo(self.story) == (self.at > 0)
        assert self.library.can_redo(self.story) == (self.at < len(self.heads) - 1)

    @invariant()
    def no_passage_is_lost(self) -> None:
        if not hasattr(self, "story"):
            return
        passages = self.library.passages(self.story)
        assert {p.id: p.text for p in passages} == self.texts
        assert {p.id: p.parent for p in passages} == self.parents

    @invariant()
    def the_page_and_its_title_follow(self) -> None:
        if not hasattr(self, "story"):
            return
        line: list[int] = []
        head = self.heads[self.at]
        while head is not None:
            line.insert(0, head)
            head = self.parents[head]
        text = "".join(self.texts[passage] for passage in line)
        assert [p.id for p in self.library.path(self.story)] == line
        assert self.library.text(self.story) == text
        assert self.library.story(self.story).opening == " ".join(text.split())[:160]

    def teardown(self) -> None:
        self.library.close()
        self.folder.cleanup()


StoryMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStory = StoryMachine.TestCase
