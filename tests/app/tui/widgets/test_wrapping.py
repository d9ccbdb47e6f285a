"""Rows of a paragraph: nothing lost, nothing too wide, no grapheme cut, in one go or bit by bit."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from fireside.app.tui.widgets import wrapping
from fireside.app.tui.widgets.wrapping import graphemes, sanitise, wrap

WHOLE = [
    "e\u0301",  # a mark
    "👨\u200d👩\u200d👧",  # a family
    "👩🏽\u200d🚀",  # with a skin tone
    "🇩🇪",  # a flag
    "❤\ufe0f",  # a heart made wide by a variation selector
    "1\ufe0f\u20e3",  # a keycap
    "\u1100\u1161\u11a8",  # Hangul in pieces
    "नि",  # a vowel sign that fills a cell
    "กำ",
    "ẅ\u0323\u0301",
]
PIECES = [
    *"abcdeé—–-….,\"'’ß   ",
    "字",
    "あ",
    "。",
    "「",
    "、",
    "한",
    "🙂",
    "don't ",
    "well-",
    *WHOLE,
]

paragraphs = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)
plain = st.text(st.sampled_from("ab cd  -—’.e"), max_size=80)
anything = st.text(st.characters(codec="utf-8"), max_size=60)
widths = st.integers(2, 30)


def rows_of(text: str, width: int) -> list[str]:
    starts = wrap(text, width)
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


@given(paragraphs, widths)
def test_no_text_is_lost_and_no_row_is_too_wide(text: str, width: int) -> None:
    rows = rows_of(text, width)
    assert "".join(rows) == text
    for row in rows:
        assert cell_len(row.rstrip(" ")) <= width


@given(paragraphs, widths)
def test_graphemes_stay_whole(text: str, width: int) -> None:
    borders = {start for start, _, _ in graphemes(text)}
    assert set(wrap(text, width)) - borders <= {0}


@pytest.mark.parametrize("whole", WHOLE)
def test_known_graphemes(whole: str) -> None:
    assert [(start, end) for start, end, _ in graphemes(f"a{whole}b")] == [
        (0, 1),
        (1, 1 + len(whole)),
        (1 + len(whole), 2 + len(whole)),
    ]


@given(anything)
def test_graphemes_cover_any_text_in_order(text: str) -> None:
    found = graphemes(text)
    assert "".join(text[start:end] for start, end, _ in found) == text
    assert all(end > start for start, end, _ in found)


@given(anything, widths)
def test_any_sanitised_text_fits(text: str, width: int) -> None:
    for paragraph in sanitise(text).split("\n"):
        for row in rows_of(paragraph, width):
            shown = row.rstrip(" ")
            # A grapheme of more cells than a row has (a chain of conjuncts) may stand alone.
            assert cell_len(shown) <= width or len(list(graphemes(shown))) == 1


@given(plain, widths, st.integers(0, 40))
def test_both_paths_agree_on_plain_text(text: str, width: int, start: int) -> None:
    start = min(start, len(text))
    assert wrapping._next_narrow(text, width, start) == wrapping._next_wide(text, width, start)


@given(paragraphs | plain, widths)
def test_the_fast_path_changes_nothing(text: str, width: int) -> None:
    rows, start = [0], 0
    while (start := wrapping._next_wide(text, width, start)) < len(text):
        rows.append(start)
    assert rows == wrap(text, width)


@given(st.lists(paragraphs | plain, max_size=6), widths)
@example(["字字", "。"], 4)
@example(["❤", "\ufe0f"], 2)
@example(["aaa", "a", " b-", "c"], 4)
@settings(max_examples=300)
def test_text_that_comes_bit_by_bit_wraps_as_in_one_go(pieces: list[str], width: int) -> None:
    text, rows = "", [0]
    for piece in pieces:
        text += piece
        rows[-1:] = wrap(text, width, rows[-1])
    assert rows == wrap(text, width)


def test_words_stay_whole_where_they_fit() -> None:
    assert rows_of("the dragon who could not roar", 12) == ["the dragon ", "who could ", "not roar"]


def test_spaces_hang_at_the_end_of_a_row() -> None:
    assert rows_of("abcd     efgh", 4) == ["abcd     ", "efgh"]


def test_a_word_longer_than_a_row_is_cut() -> None:
    assert rows_of("so abcdefghij", 5) == ["so ", "abcde", "fghij"]


def test_rows_may_end_after_a_dash_between_letters() -> None:
    assert rows_of("a well-known man", 8) == ["a well-", "known ", "man"]
    assert rows_of('he was—"', 7) == ["he ", 'was—"']


def test_chinese_breaks_between_characters_but_not_before_a_full_stop() -> None:
    assert rows_of("从前有一条龙。", 6) == ["从前有", "一条", "龙。"]


def test_what_could_harm_the_terminal_is_made_visible_or_vanishes() -> None:
    assert sanitise("a\x1b[31mb\x07") == "a␛[31mb␇"
    assert sanitise("a\tb\x9bc\x7f") == "a    b\ufffdc␡"
    assert sanitise("a\u202eb\u2066c\ufeff\u00add") == "abcd"
    assert sanitise("\ud83d lone") == "\ufffd lone"
    assert sanitise("a\r\nb\rc\u2028d\x0ce\x85f") == "a\nb\nc\nd\ne\nf"


def test_a_line_end_may_come_in_two_pieces() -> None:
    assert sanitise("\nb", after="\r") == "b"


@given(st.text(st.characters(), max_size=40))
def test_nothing_that_moves_the_cursor_gets_through(text: str) -> None:
    shown = sanitise(text)
    shown.encode()
    for character in shown:
        assert character == "\n" or unicodedata.category(character) not in {"Cc", "Cs"}
        assert character not in "\u2028\u2029\u202d\u202e"


def test_every_narrow_character_fills_one_cell() -> None:
    for code in range(0x20, 0x2100):
        character = chr(code)
        if wrapping._NARROW.fullmatch(character):
            assert cell_len(character) == 1, hex(code)
