"""Tokens guessed ahead, right or wrong, never change a story; time alone decides on them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.engine import bursts
from fireside.engine.events import ContextSlid, Event, Finished, Token
from fireside.engine.model import Model
from fireside.engine.samplers import Chain, Sampling
from fireside.engine.session import Session
from fireside.engine.speculation.costs import FORGOTTEN, FRESH, ROWS, Costs, Odds
from fireside.engine.speculation.lookup import ENDS, LONGEST, PromptLookup, new_odds
from fireside.engine.speculation.speculator import Speculator
from tests.engine.test_session import HOT, finished, model

__all__ = ["model"]  # a fixture

GREEDY = Sampling(temperature=0)
SAMPLERS = {
    "hot": HOT,
    "greedy": GREEDY,
    "usual": Sampling(seed=3),
    "penalties": Sampling(
        temperature=1.2, repetition_penalty=1.3, presence_penalty=0.2, frequency_penalty=0.1, seed=4
    ),
    "stages": Sampling(temperature=2, top_k=20, typical_p=0.9, top_p=0.9, min_p=0.01, seed=9),
}


class Scripted(Speculator):
    """Guesses at random, and now and then what it has been told will come."""

    def __init__(self, future: Sequence[int] = (), right: int = 4) -> None:
        super().__init__()
        self.future = list(future)
        self.text: list[int] = []
        self.random = np.random.default_rng(1)
        self.right = right
        self.guessed = 0

    def begin(self, text: Sequence[int], chain: Chain) -> None:
        self.text = list(text)

    def saw(self, token: int) -> None:
        self.text.append(token)

    def guess(self, text: Sequence[int], room: int) -> list[int]:
        assert text == self.text
        count = min(int(self.random.integers(0, 6)), room)
        guess = self.random.integers(0, 280, count).tolist()
        here = len(self.text)
        known = self.future[here : here + int(self.random.integers(0, self.right))]
        guess[: len(known)] = known
        self.guessed += bool(guess[:count])
        return guess[:count]


def scripted(model: Model, future: Sequence[int] = (), context: int = 0) -> Session:
    session = model.session(context)
    session.speculator = Scripted(future)
    return session


def story(session: Session, sampling: Sampling, count: int = 50, **more: object) -> list[Event]:
    """Its events, but for how long the reading took."""
    events = session.generate([1, 270], sampling, max_tokens=count, overflow="slide", **more)  # type: ignore[arg-type]
    return [e for e in events if isinstance(e, Token | ContextSlid | Finished)]


def told(events: list[Event]) -> tuple[object, ...]:
    """What a reader has of a story: everything but its speed."""
    end = finished(events)
    return events[:-1], end.reason, end.text, end.ids


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("context", [0, 20])
def test_guesses_never_change_a_story(model: Model, name: str, context: int) -> None:
    sampling = SAMPLERS[name]
    for seed in range(3):
        sampling = replace(sampling, seed=seed)
        plain = story(model.session(context, "off"), sampling)
        for future in ([], [1, 270, *finished(plain).ids]):
            session = scripted(model, future, context)
            assert told(story(session, sampling)) == told(plain)
            assert isinstance(session.speculator, Scripted)
            assert session.speculator.guessed > 5 or len(finished(plain).ids) < 20
        assert told(story(model.session(context), sampling)) == told(plain)


def test_stop_strings_and_lengths_are_the_same_in_the_middle_of_guesses(model: Model) -> None:
    whole = finished(story(model.session(0, "off"), HOT))
    text = model.tokenizer.decode(list(whole.ids))
    future = [1, 270, *whole.ids]
    for at in (3, 10, 17):
        stop = [text[at : at + 3]]
        plain = story(model.session(0, "off"), HOT, stop=stop)
        assert finished(plain).reason == "stop"
        assert told(story(scripted(model, future), HOT, stop=stop)) == told(plain)
    for count in range(1, 12):
        plain = story(model.session(0, "off"), HOT, count)
        assert told(story(scripted(model, future), HOT, count)) == told(plain)


def test_right_guesses_save_steps_and_are_counted(model: Model) -> None:
    plain = finished(story(model.session(0, "off"), GREEDY, 40))
    assert (plain.statistics.guessed_tokens, plain.statistics.accepted_tokens) == (0, 0)

    class Oracle(Scripted):
        def guess(self, text: Sequence[int], room: int) -> list[int]:
            here = len(self.text)
            return self.future[here : here + min(4, room)]

    steps = 0
    step = model.executor.step_rows

    def count(*arguments: object) -> np.ndarray:
        nonlocal steps
        steps += 1
        return step(*arguments)  # type: ignore[arg-type]

    session = model.session()
    session.speculator = Oracle([1, 270, *plain.ids])
    model.executor.step_rows = count  # type: ignore[method-assign,assignment]
    try:
        guessed = finished(story(session, GREEDY, 40))
    finally:
        del model.executor.step_rows
    assert guessed.ids == plain.ids
    assert steps <= 1 + -(-len(plain.ids) // 5) + 1
    s = guessed.statistics
    assert s.accepted_tokens == s.guessed_tokens > len(plain.ids) // 2


def test_abort_in_the_middle_of_guesses_keeps_the_timeline_true(model: Model) -> None:
    whole = finished(story(model.session(0, "off"), HOT, 30))
    session = scripted(model, [1, 270, *whole.ids])
    for event in session.generate([1, 270], HOT, max_tokens=30):
        if isinstance(event, Token) and event.index == 9:
            session.abort()
    assert isinstance(event, Finished)
    assert event.reason == "aborted"
    assert session.ids == [1, 270, *whole.ids][: len(session.ids)]
    rest = finished(list(session.generate([1, 270, *event.ids], HOT, max_tokens=20)))
    assert event.ids + rest.ids == whole.ids


def test_a_loop_is_found_and_guessed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real lookup, with times given to it, on a model whose greedy text goes in circles."""
    if model.executor.name != "native":
        pytest.skip("only the C kernels guess by themselves")
    monkeypatch.setattr(bursts, "MOST", 1)  # as with a model that is worth guessing for

    class Timed(Speculator):
        def tell(self, guessed: int, seconds: float) -> None:
            super().tell(guessed, 1.0 + 0.05 * guessed)

    text = [1, 270, *[271, 272, 273] * 8]
    plain = finished(list(model.session(0, "off").generate(text, GREEDY, max_tokens=38)))
    session = model.session()
    session.speculator = Timed()
    # whatever the model says, the prompt goes in circles: guesses are made and checked
    guessed = finished(list(session.generate(text, GREEDY, max_tokens=38)))
    assert guessed.ids == plain.ids
    assert guessed.statistics.guessed_tokens > 0


def test_off_is_off(model: Model) -> None:
    assert model.session(0, "off").speculator is None
    assert (model.session().speculator is None) == (model.executor.name != "native")


# -- the lookup by itself -----------------------------------------------------------------------


def cheap() -> Costs:
    """Steps of which a further row costs next to nothing."""
    costs = Costs()
    for rows in (1, 1, 1, 1, *ROWS):
        costs.tell(rows, 1.0 + rows / 1000)
    return costs


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 60), st.integers(0, 40))
def test_a_guess_goes_on_as_an_earlier_place_did(text: list[int], cut: int, room: int) -> None:
    """However much of the text was there at the beginning and however much came token by token."""
    cut = max(1, min(cut, len(text)))
    lookup = PromptLookup(text[:cut], new_odds())
    for token in text[cut:]:
        lookup.saw(token)
    guess, rate = lookup.best(cheap(), room)
    assert len(guess) <= room
    assert (rate > 0) == bool(guess)
    known = any(text[i - ENDS[-1] : i] == text[-ENDS[-1] :] for i in range(ENDS[-1], len(text)))
    assert not guess or known
    if guess:
        goes_on = []
        for at in range(1, len(text)):
            if text[at - 1] == text[-1]:
                goes_on.append((text[at:] + guess)[: len(guess)])
        assert guess in goes_on


@given(st.lists(st.integers(0, 3), min_size=1, max_size=50))
def test_the_longest_shared_end_wins(text: list[int]) -> None:
    lookup = PromptLookup(text[:1], new_odds())
    for token in text[1:]:
        lookup.saw(token)

    def shared(at: int) -> int:
        return sum(1 for _ in itertools.takewhile(
            lambda i: i < at and text[at - 1 - i] == text[-1 - i], range(LONGEST)
        ))  # fmt: skip

    longest = max((shared(at) for at in range(1, len(text))), default=0)
    assert lookup._shared == (shared(lookup._at) if lookup._at else 0)
    kept = max((n for n in ENDS if n <= longest), default=0)
    assert lookup._shared >= kept


def test_a_loop_is_guessed_round_and_round() -> None:
    odds = new_odds()
    lookup = PromptLookup([1, 7, 8, 9, 7, 8], odds)
    for token in [9, 7, 8] * 20:
        lookup.saw(token)
    guess, rate = lookup.best(cheap(), 100)
    assert guess == ([9, 7, 8] * 11)[: ROWS[-1] - 1]
    assert rate > 20


def test_a_text_that_does_not_repeat_itself_is_not_guessed_at() -> None:
    """What would have been wrong counts as wrong, though nobody had to compute it."""
    costs = Costs()
    for rows, seconds in ((1, 1.0),) * 4 + ((2, 1.3), (4, 1.6)):
        costs.tell(rows, seconds)
    random = np.random.default_rng(2)
    lookup = PromptLookup([1], new_odds())
    for token in random.integers(0, 30, 600).tolist():  # pairs come again, what follows does not
        lookup.saw(token)
    guesses = 0
    for token in random.integers(0, 30, 300).tolist():
        lookup.saw(token)
        guesses += bool(lookup.best(costs, 31)[0])
    assert guesses < 15


# -- times and chances --------------------------------------------------------------------------


def test_costs_are_learnt_and_hiccups_forgiven() -> None:
    costs = Costs()
    for seconds in (2.0, 1.0, 1.0, 7.0):
        assert costs.due
        costs.tell(1, seconds)
    assert not costs.due
    assert costs.plain == 1.0
    assert max(costs.table()) == 4  # no more than a little before anything is known
    for seconds in (1.5, 9.0, 1.5):
        costs.tell(4, seconds)
    table = costs.table()
    assert table[4] == 1.5
    assert 1.0 < table[2] < table[3] < 1.5
    assert max(table) == 8
    assert table[8] == pytest.approx(1.5 + 4 * 0.5 / 3)


def test_a_plain_step_is_no_slower_than_others() -> None:
    """It was measured while the machine was busy, and is measured seldom."""
    costs = Costs()
    for rows, seconds in ((1, 46.0),) * 5 + ((2, 27.0),) * 3:
        costs.tell(rows, seconds)
    assert costs.plain == costs.seconds(1) == 27.0
    assert all(costs.table()[rows] >= 27.0 for rows in costs.table())


def test_a_plain_step_is_measured_again_and_old_sizes_are_forgotten() -> None:
    costs = cheap()
    assert not costs.due
    for _ in range(FRESH):
        costs.tell(2, 1.0)
    assert costs.due
    costs.tell(1, 1.0)
    assert not costs.due
    for _ in range(FORGOTTEN + 1):
        costs.tell(2, 1.0)
    assert max(costs.table()) == 4


def test_odds_follow_what_was_seen_of_late() -> None:
    odds = Odds([0.5, 0.5])
    for _ in range(100):
        odds.tell(1, True)
    assert odds.chance(0) == 0.5
    assert odds.chance(1) > 0.95
    for _ in range(100):
        odds.tell(1, False)
    assert odds.chance(1) < 0.05
