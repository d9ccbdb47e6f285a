"""Prompt lookup guesses; a guess, right or wrong, never changes a story."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.engine import session as sessions
from fireside.engine.events import ContextSlid, Finished, Token
from fireside.engine.lookup import LONGEST, NGRAM, REST, TRIAL, PromptLookup, Watch
from fireside.engine.model import Model
from fireside.engine.samplers import Sampling
from tests.engine.test_session import HOT, finished, model

__all__ = ["model"]  # a fixture


class Liar(PromptLookup):
    """Guesses at random, sometimes what it has overheard to be right."""

    def __init__(self, future: Sequence[int] = ()) -> None:
        super().__init__()
        self.future = list(future)
        self.random = np.random.default_rng(1)
        self.guesses = 0

    def guess(self, text: Sequence[int], room: int) -> list[int]:
        count = min(int(self.random.integers(0, 6)), room)
        guess = self.random.integers(0, 280, count).tolist()
        right = self.future[len(text) : len(text) + int(self.random.integers(0, 4))]
        guess[: len(right)] = right
        self.guesses += bool(guess[:count])
        return guess[:count]


def tell(model: Model, sampling: Sampling, count: int, context: int = 0) -> tuple[object, ...]:
    events = list(
        model.session(context).generate([1, 270], sampling, max_tokens=count, overflow="slide")
    )
    return (
        finished(events).ids,
        finished(events).reason,
        [e.dropped for e in events if isinstance(e, ContextSlid)],
        [e for e in events if isinstance(e, Token)],
    )


@pytest.mark.parametrize("context", [0, 20])
def test_guesses_never_change_a_story(
    model: Model, monkeypatch: pytest.MonkeyPatch, context: int
) -> None:
    if model.executor.name != "native":
        pytest.skip("only the C kernels guess")
    monkeypatch.setattr(sessions, "PromptLookup", lambda: None)
    expected = tell(model, HOT, 50, context)
    ids = expected[0]
    assert isinstance(ids, tuple)
    for future in ([], [1, 270, *ids]):
        liar = Liar(future)
        monkeypatch.setattr(sessions, "PromptLookup", lambda liar=liar: liar)
        assert tell(model, HOT, 50, context) == expected
        assert liar.guesses > 5


def test_right_guesses_save_steps(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    if model.executor.name != "native":
        pytest.skip("only the C kernels guess")
    greedy = Sampling(temperature=0, repetition_penalty=1.0)
    plain = finished(list(model.session().generate([1, 270], greedy, max_tokens=40)))

    class Oracle(PromptLookup):
        def guess(self, text: Sequence[int], room: int) -> list[int]:
            return [1, 270, *plain.ids][len(text) : len(text) + min(4, room)]

    steps = 0
    step = model.executor.step

    def count(*arguments: object) -> np.ndarray:
        nonlocal steps
        steps += 1
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sessions, "PromptLookup", Oracle)
    model.executor.step = count  # type: ignore[method-assign,assignment]
    try:
        guessed = finished(list(model.session().generate([1, 270], greedy, max_tokens=40)))
    finally:
        del model.executor.step
    assert guessed.ids == plain.ids
    assert steps <= 1 + -(-len(plain.ids) // 5) + 1


def test_abort_in_the_middle_of_guesses_keeps_the_timeline_true(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model.executor.name != "native":
        pytest.skip("only the C kernels guess")
    whole = finished(list(model.session().generate([1, 270], HOT, max_tokens=30)))
    monkeypatch.setattr(sessions, "PromptLookup", lambda: Liar([1, 270, *whole.ids]))
    session = model.session()
    for event in session.generate([1, 270], HOT, max_tokens=30):
        if isinstance(event, Token) and event.index == 9:
            session.abort()
    assert isinstance(event, Finished)
    assert session.ids == [1, 270, *whole.ids][: len(session.ids)]
    rest = finished(list(session.generate([1, 270, *event.ids], HOT, max_tokens=20)))
    assert event.ids + rest.ids == whole.ids


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 9))
def test_a_guess_follows_an_earlier_place_with_the_same_end(text: list[int], room: int) -> None:
    lookup = PromptLookup()
    for _ in range(4):
        lookup.tell(0, 0, 1.0)
    for length in range(1, len(text) + 1):
        guess = lookup.guess(text[:length], room)
        assert len(guess) <= min(room, LONGEST)
        if guess:
            end = text[length - NGRAM : length]
            places = [at for at in range(NGRAM, length) if text[at - NGRAM : at] == end]
            assert places
            assert guess == text[places[-1] : min(places[-1] + min(room, LONGEST), length)]


def test_it_stops_where_it_does_not_pay_and_tries_again_later() -> None:
    watch = Watch()
    for _ in range(4):
        assert not watch.open()
        watch.tell(0, 0, 1.0)
    for _ in range(TRIAL):
        assert watch.open()
        watch.tell(5, 0, 2.0)  # twice the time for one token
    for _ in range(REST):
        assert not watch.open()
        watch.tell(0, 0, 1.0)
    for _ in range(5 * TRIAL):
        assert watch.open()
        watch.tell(5, 3, 2.0)  # twice the time for four tokens: goes on
    assert watch.open()
