"""Stop strings that span tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.engine.errors import SamplingError
from fireside.engine.stop import StopMatcher

letters = st.text("ab", max_size=30)


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    matcher = StopMatcher(stops)
    out = ""
    for piece in pieces:
        text, stopped = matcher.push(piece)
        out += text
        if stopped:
            return out, True
    return out + matcher.flush(), False


def test_a_stop_string_across_three_tokens() -> None:
    assert run(["The End"], ["so. T", "he E", "nd and more"]) == ("so. ", True)


def test_what_may_become_a_stop_string_is_held_back() -> None:
    matcher = StopMatcher(["\n\n"])
    assert matcher.push("a\n") == ("a", False)
    assert matcher.push("b") == ("\nb", False)


def test_no_stop_strings_hold_nothing() -> None:
    assert StopMatcher(()).push("abc") == ("abc", False)


def test_an_empty_one_is_an_error() -> None:
    with pytest.raises(SamplingError, match="empty"):
        StopMatcher(["x", ""])


@given(st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.lists(letters, max_size=8))
def test_any_cutting_gives_what_the_whole_text_gives(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    out, stopped = run(stops, pieces)
    assert stopped == any(stop in whole for stop in stops)
    if not stopped:
        assert out == whole
    else:
        assert whole.startswith(out)
        assert not any(stop in out for stop in stops)
        # it stopped at a stop string, and at the first that was complete
        assert any(whole[len(out) :].startswith(stop) for stop in stops)


@given(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), letters)
def test_held_text_is_always_the_start_of_a_stop_string(stops: list[str], text: str) -> None:
    matcher = StopMatcher(stops)
    for letter in text:
        _, stopped = matcher.push(letter)
        if stopped:
            break
        assert matcher.held == "" or any(stop.startswith(matcher.held) for stop in stops)
