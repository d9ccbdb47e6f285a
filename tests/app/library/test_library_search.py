"""Finding stories again, in many scripts."""

from __future__ import annotations

import sqlite3
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.app.library import Library, Provenance, StorySummary
from fireside.app.library.words import clean, fold, one_line, snippet, title_from


def write(library: Library, text: str, title: str = "") -> int:
    story = library.create(title)
    library.append(story.id, None, "writer", text)
    return story.id


def found(library: Library, query: str) -> list[int]:
    return [summary.id for summary in library.stories(query)]


def marked(summary: StorySummary) -> list[str]:
    return [summary.snippet[start:end] for start, end in summary.matches]


@pytest.mark.parametrize(
    ("text", "query", "shown"),
    [
        ("A dragon who could not roar.", "dragon", "dragon"),
        ("A dragon who could not roar.", "RAG", "rag"),
        ("A dragon who could not roar.", "ag", "ag"),
        ("A dragon who could not roar.", "w", "w"),
        ("Das Café an der Straße", "cafe", "Café"),
        ("Das Café an der Straße", "CAFÉ", "Café"),
        ("Das Café an der Straße", "strasse", "Straße"),
        ("Das Cafe\u0301 hat offen", "café", "Café"),
        ("Żółw i naïve Ångström", "zołw", "Żółw"),
        ("İstanbul'da bir gün", "istanbul", "İstanbul"),
        ("ὈΔΥΣΣΕΎΣ ταξιδεύει", "οδυσσευς", "ὈΔΥΣΣΕΎΣ"),
        ("Ещё один ёжик", "ежик", "ёжик"),
        ("从前有一条不能咆哮的龙。", "咆哮的", "咆哮的"),
        ("从前有一条不能咆哮的龙。", "咆哮", "咆哮"),
        ("从前有一条不能咆哮的龙。", "龙", "龙"),
        ("むかしむかし、ドラゴンがいました。", "ドラゴン", "ドラゴン"),
        ("옛날 옛적에 용이 살았습니다", "옛적에", "옛적에"),
        ("옛날 옛적에 용이 살았습니다", "용", "용"),
        ("एक समय की बात है", "समय", "समय"),
        ("กาลครั้งหนึ่งนานมาแล้ว", "ครั้ง", "ครั้ง"),
        ("בְּרֵאשִׁית ברא", "בראשית", "בְּרֵאשִׁית"),
        ("كَانَ يَا مَا كَانَ", "كان", "كَانَ"),
        ("She said “don’t” — twice", "don't", "don’t"),
        ("She said “don’t” — twice", '"don', "“don"),
        ("🐉🔥🐭 and 👩‍👩‍👧", "🔥", "🔥"),
        ("the ﬁrst ﬂame", "first", "ﬁrst"),
        ("one\nline\t\nand more", "line and", "line"),
    ],
)
def test_any_part_of_a_word_is_found(library: Library, text: str, query: str, shown: str) -> None:
    write(library, "Something else altogether, unlike xyzzy.")
    story = write(library, text)
    (summary,) = library.stories(query)
    assert summary.id == story
    assert marked(summary)[0] == shown or one_line(shown) in summary.snippet


def test_kana_keep_their_voice(library: Library) -> None:
    story = write(library, "がっこうへ いきました")
    assert found(library, "がっこ") == [story]
    assert found(library, "かっこ") == []


def test_titles_are_searched_too(library: Library) -> None:
    story = write(library, "Once upon a time.", "Żmija i ogień")
    assert found(library, "zmija") == [story]
    assert found(library, "og") == [story]
    assert found(library, "zmija once") == [story]
    library.rename(story, "Other")
    assert found(library, "zmija") == []
    assert found(library, "other") == [story]


def test_every_word_must_be_somewhere(library: Library) -> None:
    both = library.create()
    one = library.append(both.id, None, "writer", "A mouse in the barn. ")
    library.append(both.id, one.id, "model", "A dragon in the sky.")
    only = write(library, "A mouse alone.")
    assert found(library, "mouse dragon") == [both.id]
    assert found(library, "mouse") == [only, both.id]
    assert found(library, "mouse cat") == []
    (summary,) = library.stories("sky MOUSE")
    assert summary.snippet == "A mouse in the barn."
    assert marked(summary) == ["mouse"]


@pytest.mark.parametrize(
    "query",
    [
        '"',
        '""',
        '"dragon',
        'dragon"mouse',
        "dragon AND mouse",
        "NOT dragon",
        "NEAR(dragon mouse)",
        "drag*",
        "^dragon",
        "text:dragon",
        "dragon -mouse",
        "(dragon",
        "{text}: x",
        "a+b",
        "50%",
        "under_score",
        "'; DROP TABLE story; --",
        "\\",
        "*",
        "?1",
    ],
)
def test_operators_are_just_words(library: Library, query: str) -> None:
    plain = write(library, "The dragon and the mouse are near text, 500 or underXscore, a b.")
    literal = write(library, f"He wrote: {query} and went on.")
    assert literal in found(library, query)
    if query != "dragon -mouse":
        assert plain not in found(library, query) or all(
            word in "the dragon and the mouse are near text" for word in fold(query).split()
        )


def test_a_passage_that_grows_is_found_at_once(library: Library) -> None:
    story = library.create()
    passage = library.append(story.id, None, "model", "It was a drag")
    library.extend(passage.id, "on who")
    assert found(library, "dragon") == [story.id]
    library.extend(passage.id, " flew")
    assert found(library, "flew") == [story.id]
    library.extend(passage.id, " home")
    library.finish(passage.id, Provenance(finish_reason="stop"))
    assert found(library, "home") == [story.id]
    assert found(library, "dragon who flew home") == [story.id]


def test_every_branch_is_searched(library: Library) -> None:
    story = library.create()
    old = library.append(story.id, None, "writer", "the unicorn")
    library.replace(old.id, "the horse")
    assert found(library, "unicorn") == [story.id]
    assert found(library, "horse") == [story.id]


def test_the_bin_is_searched_apart(library: Library) -> None:
    story = write(library, "a lost tale")
    library.delete(story)
    assert found(library, "tale") == []
    assert [s.id for s in library.stories("tale", deleted=True)] == [story]
    library.restore(story)
    assert found(library, "tale") == [story]


def test_results_are_newest_first_and_limited(library: Library) -> None:
    ids = [write(library, f"the fox number {n}") for n in range(5)]
    assert found(library, "fox") == ids[::-1]
    assert [s.id for s in library.stories("fox", limit=2)] == [ids[4], ids[3]]
    assert library.stories("fox", limit=0) == []


def test_a_query_of_nothing_lists_all(library: Library) -> None:
    story = write(library, "x")
    for query in ("", "  \n", "\u0301"):
        assert found(library, query) == [story]


def test_huge_and_odd_queries(library: Library) -> None:
    story = write(library, "word " * 10)
    assert found(library, "word " * 100_000) == [story]
    assert found(library, "\x00") == []
    assert found(library, "\ud800 \udfff") == []
    assert found(library, " ".join(f"w{n}" for n in range(1000))) == []
    assert found(library, "龙" * 1000) == []


def test_the_snippet_shows_the_place(library: Library) -> None:
    write(library, "lorem ipsum " * 500 + "here a Dragón sleeps " + "dolor sit " * 500)
    (summary,) = library.stories("dragon sleeps")
    assert summary.snippet.startswith("…")
    assert summary.snippet.endswith("…")
    assert len(summary.snippet) < 140
    assert marked(summary) == ["Dragón", "sleeps"]


def test_a_damaged_index_is_made_anew(path: Path) -> None:
    with Library(path) as library:
        story = write(library, "the dragon slept")
        library._store._connection.execute("UPDATE search_data SET block = zeroblob(9)")  # type: ignore[union-attr]
    with Library(path) as library:
        more = library.append(story, None, "writer", "a mouse came")
        library.extend(more.id, " and went")
        assert library.text(story) == "a mouse came and went"
        assert found(library, "dragon") == [story]
        assert found(library, "mouse") == [story]
        library._store._connection.execute("UPDATE search_data SET block = zeroblob(9)")  # type: ignore[union-attr]
        library.delete(story)
        assert library.purge(-1) == 1
        assert library.stories(deleted=True) == []


def test_searching_while_another_program_writes(path: Path) -> None:
    with Library(path) as library:
        story = library.create()
        passage = library.append(story.id, None, "model", "a dragon")
        library.extend(passage.id, " and a mouse")
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, lambda: other.execute("ROLLBACK"))
        timer.start()
        assert found(library, "mouse") == [story.id]
        timer.join()
        other.close()


@given(st.text())
def test_cleaning_leaves_what_can_be_kept(text: str) -> None:
    kept = clean(text)
    assert kept.encode("utf-8").decode("utf-8") == kept
    assert "\x00" not in kept
    assert len(kept) == len(text), "hypothesis makes no surrogates: one for one"
    assert clean(kept) == kept


@given(st.text(alphabet=st.characters(min_codepoint=0xD7F0, max_codepoint=0xE010)))
def test_cleaning_surrogates(text: str) -> None:
    clean(text).encode("utf-8")


@given(st.text(), st.text(), st.text())
def test_a_part_is_in_the_whole(before: str, term: str, after: str) -> None:
    words = fold(term).split()
    text = f"{before} {term} {after}"
    for word in words:
        assert word in fold(text)
        shown, spans = snippet(text, [word])
        assert all(0 <= start < end <= len(shown) for start, end in spans)
        assert all(a[1] < b[0] for a, b in pairwise(spans))


@given(st.text())
def test_a_title_is_one_short_line(text: str) -> None:
    title = title_from(text)
    assert title
    assert len(title) <= 48
    assert len(title.splitlines()) == 1
