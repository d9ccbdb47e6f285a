"""The text behind the page: growing it bit by bit gives the rows that laying it out anew gives."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fireside.app.tui.widgets.story_text import Part, StoryText

texts = st.text(st.sampled_from("ab cde\n\r\t-é字🙂\u0301"), max_size=30)
authors = st.sampled_from(["writer", "model"])
parts = st.builds(Part, id=st.integers(1, 4), author=authors, text=texts)
stories = st.lists(parts, max_size=5)


def rows(story: StoryText) -> list[tuple[int, int, str]]:
    return [tuple(story.row(y)) for y in range(story.row_count)]


def fresh(given_parts: list[Part], width: int, separate: bool) -> StoryText:
    story = StoryText(width, separate=separate)
    story.show(given_parts)
    return story


@given(stories, st.integers(0, 5), stories, st.integers(2, 20), st.booleans())
@settings(max_examples=400)
@example([Part(1, "model", "")] * 3, 1, [], 2, True)
@example([Part(1, "model", "a\n\n"), Part(2, "model", "b")], 1, [], 2, True)
@example([Part(1, "writer", "a\r \r")], 1, [Part(1, "writer", "")], 2, True)
@example([Part(1, "model", "ab cd\n")], 1, [Part(2, "model", "x")], 3, True)
def test_showing_keeps_the_common_beginning_right(
    before: list[Part], kept: int, after: list[Part], width: int, separate: bool
) -> None:
    story = fresh(before, width, separate)
    old = rows(story)
    wanted = [*before[:kept], *after]
    changed = story.show(wanted)
    assert story.parts == tuple(wanted)
    assert rows(story) == rows(fresh(wanted, width, separate))
    common = min(changed, len(old))
    assert [text for _, _, text in rows(story)[:common]] == [text for _, _, text in old[:common]]


@given(stories, st.lists(texts, min_size=1, max_size=6), st.integers(2, 20), st.booleans())
@settings(max_examples=300)
def test_appending_bit_by_bit(
    before: list[Part], pieces: list[str], width: int, separate: bool
) -> None:
    story = fresh(before, width, separate)
    story.begin(Part(9, "model", ""))
    for piece in pieces:
        old = rows(story)
        changed = story.append(piece)
        assert rows(story)[:changed] == old[:changed]
    whole = [*before, Part(9, "model", "".join(pieces))]
    assert story.parts == tuple(whole)
    assert rows(story) == rows(fresh(whole, width, separate))


@given(stories, texts, texts, texts, st.booleans(), st.integers(2, 20), st.booleans())
@settings(max_examples=300)
@example([], "a", "\r", "\nb", False, 5, False)
@example([], "\n", " ", "a", False, 5, True)
def test_another_ending_of_the_last_part(
    before: list[Part], text: str, one: str, other: str, done: bool, width: int, separate: bool
) -> None:
    story = fresh([*before, Part(9, "model", text + one, unfinished=True)], width, separate)
    old = rows(story)
    wanted = [*before, Part(9, "model", text + other, unfinished=done)]
    changed = story.show(wanted)
    assert story.parts == tuple(wanted)
    assert rows(story) == rows(fresh(wanted, width, separate))
    assert [words for _, _, words in rows(story)[:changed]] == [
        words for *_, words in old[:changed]
    ]


def test_the_end_of_a_part_changes_no_row_before_the_last() -> None:
    part = Part(1, "model", "word " * 100, unfinished=True)
    story = fresh([part], 20, False)
    assert story.show([Part(1, "model", part.text)]) == story.row_count - 1
    assert story.show([Part(1, "model", part.text.rstrip())]) >= story.row_count - 2


@given(stories, st.integers(2, 20), st.integers(2, 20), st.booleans())
def test_another_width(before: list[Part], width: int, other: int, separate: bool) -> None:
    story = fresh(before, width, separate)
    story.rewrap(other)
    assert rows(story) == rows(fresh(before, other, separate))


@given(stories, st.integers(2, 20), st.booleans())
def test_offsets_lead_to_their_rows_and_back(
    before: list[Part], width: int, separate: bool
) -> None:
    story = fresh(before, width, separate)
    whole = story.slice(0, story.length)
    for y in range(story.row_count):
        row = story.row(y)
        assert whole[row.start : row.end] == row.text == story.slice(row.start, row.end)
        if row.end > row.start:
            assert story.row_at(row.start) == story.row_at(row.end - 1) == y
        spans = list(story.spans(row.start, row.end))
        assert "".join(whole[a:b] for a, b, _ in spans) == row.text


def test_parts_join_in_a_row_and_keep_their_authors() -> None:
    story = fresh(
        [Part(1, "model", "He said "), Part(2, "writer", "no"), Part(3, "model", ".")], 20, False
    )
    assert story.row(0).text == "He said no."
    assert [(a, b, part.id) for a, b, part in story.spans(0, 11)] == [
        (0, 8, 1),
        (8, 10, 2),
        (10, 11, 3),
    ]
    found = story.part_at(9)
    assert found is not None
    assert found.id == 2


def test_words() -> None:
    story = fresh([Part(1, "model", "I don't\nknow, he—")], 4, False)
    words = [story.slice(*story.word_at(offset)) for offset in range(story.length + 1)]
    assert words == [*"I ", *["don't"] * 5, "", *["know"] * 4, ",", " ", *["he"] * 2, "—", ""]


def test_turns_of_a_chat_stand_a_row_apart() -> None:
    story = fresh(
        [Part(1, "writer", "Hi\n\n"), Part(2, "model", "\n Hello"), Part(3, "writer", "!")],
        20,
        True,
    )
    assert [story.row(y).text for y in range(story.row_count)] == ["Hi", "", "Hello", "", "!"]
    assert [part.id for y in range(5) if (part := story.begins_at(y))] == [1, 2, 3]


def test_text_needs_a_part_to_join() -> None:
    with pytest.raises(ValueError, match="begin one first"):
        StoryText(20).append("lost")
