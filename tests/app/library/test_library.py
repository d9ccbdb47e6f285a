"""Stories, passages and the journal of moves: what a writer does in an evening."""

from __future__ import annotations

import dataclasses
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fireside.app.library import Library, LibraryError, Passage, Provenance
from fireside.engine.errors import FiresideError

WRITTEN = Provenance(
    model="storyteller",
    quant="q8",
    kernels="native",
    isa="avx2",
    sampling={"temperature": 0.8, "top_k": 40, "stop": ["THE END"]},
    seed=811402,
    finish_reason="stop",
    tokens=12,
    tok_s=1184.5,
)


def texts(passages: list[Passage]) -> list[str]:
    return [passage.text for passage in passages]


def test_a_story_grows_and_is_there_again(path: Path) -> None:
    with Library(path) as library:
        story = library.create("The dragon")
        first = library.append(story.id, None, "writer", "Once upon a time ")
        second = library.append(
            story.id, first.id, "model", "", Provenance(model="storyteller", quant="q8")
        )
        assert second.unfinished
        library.extend(second.id, "there was ")
        library.extend(second.id, "a dragon.")
        library.finish(second.id, WRITTEN)
    with Library(path) as library:
        again = library.last()
        assert again is not None
        assert (again.id, again.title, again.mode, again.head) == (
            story.id,
            "The dragon",
            "story",
            second.id,
        )
        assert again.created <= again.updated
        assert library.text(story.id) == "Once upon a time there was a dragon."
        one, two = library.path(story.id)
        assert (one.author, one.provenance, one.unfinished) == ("writer", None, False)
        assert (two.author, two.provenance, two.unfinished) == ("model", WRITTEN, False)
        assert two.parent == one.id
        assert library.passage(two.id) == two


def test_a_passage_left_in_the_middle_says_so(path: Path) -> None:
    with Library(path) as library:
        story = library.create()
        passage = library.append(story.id, None, "model", "", Provenance(model="m", seed=3))
        library.extend(passage.id, "Half a sen")
    with Library(path) as library:
        (found,) = library.path(story.id)
        assert found.text == "Half a sen"
        assert found.unfinished
        assert found.provenance == Provenance(model="m", seed=3)


def test_finish_without_a_reason_is_still_an_end(library: Library) -> None:
    story = library.create()
    passage = library.append(story.id, None, "model", "x")
    assert passage.unfinished
    library.finish(passage.id, Provenance(model="m"))
    found = library.passage(passage.id)
    assert found.provenance is not None
    assert found.provenance.finish_reason == "unknown"
    assert not found.unfinished


def test_late_words_are_kept(library: Library) -> None:
    story = library.create()
    passage = library.append(story.id, None, "model", "early")
    library.finish(passage.id, WRITTEN)
    library.extend(passage.id, " late")
    assert library.text(story.id) == "early late"
    assert library.passage(passage.id).provenance == WRITTEN


def test_the_writer_s_words_are_not_finished_by_the_model(library: Library) -> None:
    story = library.create()
    passage = library.append(story.id, None, "writer", "x")
    with pytest.raises(LibraryError, match="writer's"):
        library.finish(passage.id, WRITTEN)


def test_titles_come_from_the_first_words(library: Library) -> None:
    story = library.create()
    assert story.display_title == "Untitled"
    passage = library.append(story.id, None, "model", "")
    library.extend(passage.id, "\n Once\nupon ")
    assert library.story(story.id).display_title == "Once upon"
    library.extend(passage.id, "a time there was a dragon who could not roar at all.")
    assert library.story(story.id).display_title == "Once upon a time there was a dragon who could…"
    library.rename(story.id, "  Smoke\nand fire ")
    renamed = library.story(story.id)
    assert (renamed.title, renamed.display_title) == ("Smoke and fire", "Smoke and fire")
    library.rename(story.id, "")
    assert library.story(story.id).display_title.startswith("Once upon")
    assert library.stories()[0].display_title.startswith("Once upon")


def test_the_title_follows_the_path(library: Library) -> None:
    story = library.create()
    valley = library.append(story.id, None, "writer", "In the valley")
    library.append(story.id, valley.id, "writer", " lived a girl")
    assert library.story(story.id).display_title == "In the valley lived a girl"
    library.replace(valley.id, "On the hill")
    assert library.story(story.id).display_title == "On the hill"
    library.undo(story.id)
    assert library.story(story.id).display_title == "In the valley lived a girl"
    library.set_head(story.id, None)
    assert library.story(story.id).display_title == "Untitled"


def test_the_tree(library: Library) -> None:
    story = library.create()
    root = library.append(story.id, None, "writer", "root")
    left = library.append(story.id, root.id, "model", "left")
    leaf = library.append(story.id, left.id, "model", "leaf")
    right = library.append(story.id, root.id, "model", "right")
    other = library.append(story.id, None, "writer", "other beginning")
    assert texts(library.path(story.id)) == ["other beginning"]
    assert texts(library.path(story.id, leaf.id)) == ["root", "left", "leaf"]
    assert texts(library.children(root.id)) == ["left", "right"]
    assert texts(library.children(root.id, story.id)) == ["left", "right"]
    assert texts(library.children(leaf.id)) == []
    assert texts(library.children(None, story.id)) == ["root", "other beginning"]
    assert texts(library.siblings(right.id)) == ["left", "right"]
    assert texts(library.siblings(other.id)) == ["root", "other beginning"]
    assert texts(library.passages(story.id)) == ["root", "left", "leaf", "right", other.text]
    library.set_head(story.id, leaf.id)
    assert library.text(story.id) == "rootleftleaf"


def test_an_edit_is_a_sibling(library: Library) -> None:
    story = library.create()
    root = library.append(story.id, None, "writer", "A ")
    old = library.append(story.id, root.id, "model", "mouse", WRITTEN)
    after = library.append(story.id, old.id, "model", " ran.", WRITTEN)
    new = library.replace(old.id, "cat")
    assert (new.parent, new.author, new.provenance) == (root.id, "writer", None)
    assert library.text(story.id) == "A cat"
    assert [p.id for p in library.siblings(old.id)] == [old.id, new.id]
    assert library.passage(old.id).text == "mouse"
    assert [p.id for p in library.children(old.id)] == [after.id]


def test_an_edit_in_a_chat_keeps_its_speaker(library: Library) -> None:
    story = library.create(mode="chat")
    question = library.append(story.id, None, "writer", "Who are you?")
    answer = library.append(story.id, question.id, "model", "A cat.", WRITTEN)
    edited = library.replace(answer.id, "A dragon.")
    assert edited.author == "model"
    assert edited.provenance == dataclasses.replace(
        WRITTEN, finish_reason="edited", tokens=None, tok_s=None
    )
    assert library.replace(question.id, "Who am I?").author == "writer"


def test_undo_and_redo_outlive_a_restart(path: Path) -> None:
    with Library(path) as library:
        story = library.create()
        one = library.append(story.id, None, "writer", "one ")
        two = library.append(story.id, one.id, "model", "two ")
        three = library.append(story.id, two.id, "model", "three")
        assert not library.can_redo(story.id)
        assert library.undo(story.id)
        assert library.undo(story.id)
        assert library.text(story.id) == "one "
    with Library(path) as library:
        assert library.can_undo(story.id)
        assert library.can_redo(story.id)
        assert library.redo(story.id)
        assert library.story(story.id).head == two.id
        assert library.redo(story.id)
        assert library.story(story.id).head == three.id
        assert not library.redo(story.id)
        for _ in range(3):
            assert library.undo(story.id)
        assert library.story(story.id).head is None
        assert not library.undo(story.id)
        assert not library.can_undo(story.id)


def test_a_new_move_forgets_what_was_undone(library: Library) -> None:
    story = library.create()
    one = library.append(story.id, None, "writer", "one")
    library.append(story.id, one.id, "writer", "two")
    library.undo(story.id)
    library.append(story.id, one.id, "writer", "other")
    assert not library.can_redo(story.id)
    assert not library.redo(story.id)
    assert texts(library.children(one.id)) == ["two", "other"]


def test_going_where_one_is_already_is_no_move(library: Library) -> None:
    story = library.create()
    one = library.append(story.id, None, "writer", "one")
    library.append(story.id, one.id, "writer", "two")
    library.undo(story.id)
    library.set_head(story.id, one.id)
    assert library.can_redo(story.id)


def test_each_story_has_a_journal_of_its_own(library: Library) -> None:
    one, two = library.create(), library.create()
    library.append(one.id, None, "writer", "one")
    assert not library.can_undo(two.id)
    assert not library.undo(two.id)
    assert library.can_undo(one.id)


def test_deleted_stories_come_back(library: Library) -> None:
    keep, gone = library.create("keep"), library.create("gone")
    library.append(gone.id, None, "writer", "words")
    library.delete(gone.id)
    assert [s.id for s in library.stories()] == [keep.id]
    (binned,) = library.stories(deleted=True)
    assert binned.id == gone.id
    assert binned.deleted is not None
    last = library.last()
    assert last is not None
    assert last.id == keep.id
    assert library.purge() == 0
    library.restore(gone.id)
    assert [s.id for s in library.stories()] == [gone.id, keep.id]
    assert library.text(gone.id) == "words"
    assert library.story(gone.id).deleted is None


def test_purge_removes_what_was_deleted_long_ago(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, recent = library.create("old"), library.create("recent")
    root = library.append(old.id, None, "writer", "forgotten words")
    library.append(old.id, root.id, "model", "and more", WRITTEN)
    library.undo(old.id)
    library.delete(old.id)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 20 * 86_400)
    library.delete(recent.id)
    monkeypatch.setattr(time, "time", lambda: now + 31 * 86_400)
    assert library.purge(30) == 1
    assert [s.id for s in library.stories(deleted=True)] == [recent.id]
    assert library.stories("forgotten", deleted=True) == []
    with pytest.raises(LibraryError, match="no story"):
        library.story(old.id)
    with pytest.raises(LibraryError, match="no passage"):
        library.passage(root.id)
    new = library.create("new")
    assert new.id > recent.id, "ids are not given twice"


def test_the_newest_is_the_one_touched_last(library: Library) -> None:
    assert library.last() is None
    a, b, c = (library.create(name) for name in "abc")
    assert [s.title for s in library.stories()] == ["c", "b", "a"]
    passage = library.append(a.id, None, "model", "x")
    library.rename(b.id, "b!")
    library.extend(passage.id, "y")
    assert [s.title for s in library.stories()] == ["a", "b!", "c"]
    assert [s.title for s in library.stories(limit=1)] == ["a"]
    library.append(c.id, None, "writer", "z")
    library.undo(a.id)
    last = library.last()
    assert last is not None
    assert last.id == a.id


def test_a_summary_counts_passages(library: Library) -> None:
    story = library.create()
    one = library.append(story.id, None, "writer", "one")
    library.append(story.id, one.id, "writer", " two")
    (summary,) = library.stories()
    assert (summary.passages, summary.opening, summary.snippet) == (2, "one two", "one two")
    assert summary.matches == ()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("nul \x00 inside", "nul \ufffd inside"),
        ("lone \ud83d half", "lone \ufffd half"),
        ("lone \udc80\udcff bytes", "lone \ufffd\ufffd bytes"),
        ("pair \ud83d\ude00", "pair 😀"),
        ("\ude00\ud83d wrong way round", "\ufffd\ufffd wrong way round"),
        ("\U0010ffff\ufeff\u202e\x1b[31m\x07\r\n\t", "\U0010ffff\ufeff\u202e\x1b[31m\x07\r\n\t"),
        ("e\u0301 👩‍👩‍👧 हिन्दी ไทย עִבְרִית", "e\u0301 👩‍👩‍👧 हिन्दी ไทย עִבְרִית"),
    ],
)
def test_any_unicode_is_kept(path: Path, given: str, kept: str) -> None:
    odd = Provenance(model=given, sampling={"stop": [given]}, finish_reason=given)
    with Library(path) as library:
        story = library.create(given)
        passage = library.append(story.id, None, "model", given)
        library.extend(passage.id, given)
        library.finish(passage.id, odd)
        edit = library.replace(passage.id, given)
        library.stories(given)
    with Library(path) as library:
        found = library.passage(passage.id)
        assert found.text == kept * 2
        assert found.provenance is not None
        assert (found.provenance.model, found.provenance.finish_reason) == (kept, kept)
        (stop,) = found.provenance.sampling["stop"]
        assert stop.replace("\x00", "\ufffd") == kept  # JSON escapes NUL
        assert library.passage(edit.id).text == kept
        assert library.story(story.id).title == " ".join(kept.split())


def test_odd_provenance_never_stops_a_story(library: Library) -> None:
    story = library.create()
    loop: dict[str, object] = {}
    loop["loop"] = loop
    odd = [
        Provenance(sampling={"x": float("nan")}, tok_s=float("inf"), seed=-(2**200)),
        Provenance(sampling={"x": Path("p"), "y": {1, 2}}, tokens=2**80, tok_s=float("nan")),
        Provenance(sampling=loop),
        Provenance(seed=10**9999),
    ]
    for provenance in odd:
        passage = library.append(story.id, None, "model", "x", provenance)
        assert passage.provenance is not None
        assert passage.provenance.seed in (provenance.seed, None)
        assert passage.provenance.tok_s is None
        assert passage.provenance.tokens is None


def test_settings_handed_out_are_not_shared(library: Library) -> None:
    story = library.create()
    passage = library.append(story.id, None, "model", "x", WRITTEN)
    assert passage.provenance is not None
    assert isinstance(passage.provenance.sampling, dict)
    passage.provenance.sampling["stop"].append("mine")
    passage.provenance.sampling["mine"] = 1
    assert library.passage(passage.id).provenance == WRITTEN


def test_what_is_not_there(library: Library) -> None:
    story, other = library.create(), library.create()
    mine = library.append(story.id, None, "writer", "x")
    calls: list[Callable[[], object]] = [
        lambda: library.story(99),
        lambda: library.rename(99, "x"),
        lambda: library.delete(99),
        lambda: library.restore(99),
        lambda: library.append(99, None, "writer", "x"),
        lambda: library.append(story.id, 99, "writer", "x"),
        lambda: library.append(other.id, mine.id, "writer", "x"),
        lambda: library.extend(99, "x"),
        lambda: library.finish(99, WRITTEN),
        lambda: library.replace(99, "x"),
        lambda: library.path(99),
        lambda: library.path(other.id, mine.id),
        lambda: library.passages(99),
        lambda: library.passage(99),
        lambda: library.children(99),
        lambda: library.children(None),
        lambda: library.children(mine.id, other.id),
        lambda: library.siblings(99),
        lambda: library.set_head(99, None),
        lambda: library.set_head(story.id, 99),
        lambda: library.set_head(other.id, mine.id),
        lambda: library.undo(99),
        lambda: library.redo(99),
        lambda: library.can_undo(99),
        lambda: library.can_redo(99),
        lambda: library.story(2**70),
        lambda: library.create("x", "poem"),  # type: ignore[arg-type]
        lambda: library.append(story.id, None, "ghost", "x"),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(LibraryError) as caught:
            call()
        assert isinstance(caught.value, FiresideError)
        assert caught.value.message.endswith(".")
    assert library.passages(other.id) == []
    assert [p.id for p in library.passages(story.id)] == [mine.id]
    assert library.text(story.id) == "x"


def test_a_closed_library_says_so(path: Path) -> None:
    library = Library(path)
    library.close()
    library.close()
    with pytest.raises(LibraryError, match="closed"):
        library.stories()


def test_stories_are_their_writer_s_business(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "stories.db"
    with Library(path) as library:
        library.create("secret")
        assert library.file == path
        files = list(path.parent.iterdir())
        assert len(files) == 3  # the log is there, and as private as the rest
        for file in files:
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_odd_file_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x?mode=memory", "été 龙 'x\".db"):
        with Library(Path(name)) as library:
            library.create("here")
        with Library(tmp_path / name) as library:
            assert [s.title for s in library.stories()] == ["here"]


def test_two_threads_share_one_library(library: Library) -> None:
    story = library.create()
    passage = library.append(story.id, None, "model", "")
    errors: list[BaseException] = []

    def stream() -> None:
        try:
            for number in range(200):
                library.extend(passage.id, f"{number} ")
            library.finish(passage.id, WRITTEN)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=stream)
    thread.start()
    seen = 0
    while thread.is_alive():
        words = library.text(story.id).split()
        assert words == [str(n) for n in range(len(words))], "half an extend was seen"
        assert len(words) >= seen
        seen = len(words)
        library.stories("19")
        other = library.create("meanwhile")
        library.append(other.id, None, "writer", "x")
        library.undo(other.id)
    thread.join()
    assert not errors
    assert library.text(story.id) == "".join(f"{n} " for n in range(200))


def test_calls_are_quick(library: Library) -> None:
    """Far above what they take (tenths of a millisecond), far below what a person notices."""
    story = library.create()
    head = None
    for number in range(100):
        head = library.append(story.id, head, "model", f"{number} He puffed. " * 30, WRITTEN).id
    assert head is not None

    def median(call: Callable[[], object]) -> float:
        times = []
        for _ in range(21):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return sorted(times)[10]

    assert median(lambda: library.extend(head, "and more ")) < 0.02
    assert median(lambda: library.path(story.id)) < 0.02
    assert median(lambda: library.undo(story.id)) < 0.02
    assert median(lambda: library.stories()) < 0.02
    assert median(lambda: library.stories("puffed")) < 0.1
