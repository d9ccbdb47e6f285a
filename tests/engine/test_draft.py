"""A draft never changes a story; a good one is mostly right, a bad one costs little."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from fireside.engine import architectures, executors
from fireside.engine.checkpoints.types import Vocabulary
from fireside.engine.errors import UnsupportedError
from fireside.engine.events import ContextSlid, Finished, Token
from fireside.engine.model import Model
from fireside.engine.samplers import chain_for
from fireside.engine.session import Session
from fireside.engine.speculation import draft as drafting
from fireside.engine.speculation.costs import ROWS, Costs
from fireside.engine.speculation.draft import Draft
from fireside.engine.tokenizers import from_vocabulary
from tests.engine.test_session import HOT, finished, vocabulary
from tests.engine.test_speculation import GREEDY, SAMPLERS, story, told
from tests.models import SHAPES, random_checkpoint

KIND = executors.get("native")
pytestmark = pytest.mark.skipif(bool(KIND.why_not()), reason="only the C kernels guess")


def made(
    seed: int, shape: str = "grouped", context: int = 64, words: Vocabulary | None = None
) -> Model:
    words = words or vocabulary()
    config = replace(SHAPES[shape], vocab_size=len(words), context_length=context)
    checkpoint = random_checkpoint(config, seed)
    plan = architectures.get("llama").plan(config, True)
    return Model(
        checkpoint, from_vocabulary(words), KIND.build(plan, checkpoint, "none", 1, None), "none"
    )


@pytest.fixture(scope="module")
def target() -> Model:
    return made(8)


@pytest.fixture(scope="module")
def drafts(target: Model) -> dict[str, Model]:
    """By name: the model itself, others, one that sees less, one that sees more."""
    return {
        "itself": made(8),
        "other": made(9, "multi-query"),
        "near": made(8, context=24),
        "far": made(10, "plain", context=128),
    }


def cheap() -> Costs:
    """Steps of which a further row costs next to nothing: a draft pays wherever it is right."""
    costs = Costs()
    for rows in (1, 1, 1, 1, *ROWS):
        costs.tell(rows, 10.0 + rows / 1000)
    costs.tell = lambda rows, seconds: None  # type: ignore[method-assign]
    return costs


def with_draft(target: Model, draft: Model, context: int = 0, mode: str = "draft") -> Session:
    """A session whose draft is asked at every step, however slow these small models are."""
    session = target.session(context, mode, draft)  # type: ignore[arg-type]
    assert session.speculator is not None
    session.speculator._costs = cheap()
    return session


@pytest.mark.parametrize("name", ["itself", "other", "near", "far"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("context", [0, 20])
def test_a_draft_never_changes_a_story(
    target: Model, drafts: dict[str, Model], name: str, sampler: str, context: int
) -> None:
    for seed in range(4):
        sampling = replace(SAMPLERS[sampler], seed=seed)
        plain = story(target.session(context, "off"), sampling)
        for mode in ("draft", "auto"):
            guessed = story(with_draft(target, drafts[name], context, mode), sampling)
            assert told(guessed) == told(plain)
            length = len(finished(plain).ids)
            assert finished(guessed).statistics.guessed_tokens > 0 or length < 8


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draft_that_is_the_model_is_always_right(
    target: Model, drafts: dict[str, Model], sampler: str
) -> None:
    """With any sampler: both draw with the same chance at the same place."""
    end = finished(story(with_draft(target, drafts["itself"]), SAMPLERS[sampler], 60))
    s = end.statistics
    assert len(end.ids) < 20 or s.accepted_tokens > len(end.ids) // 2
    unfinished = ROWS[-1]  # what was guessed beyond the end has not come
    assert s.guessed_tokens - s.accepted_tokens <= unfinished
    whole = finished(story(with_draft(target, drafts["itself"]), GREEDY, 40)).statistics
    assert whole.accepted_tokens == whole.guessed_tokens >= 20


def test_stops_and_lengths_are_the_same_with_a_draft(
    target: Model, drafts: dict[str, Model]
) -> None:
    whole = finished(story(target.session(0, "off"), HOT))
    text = target.tokenizer.decode(list(whole.ids))
    for name in ("itself", "other"):
        for at in (4, 11):
            stop = [text[at : at + 3]]
            plain = story(target.session(0, "off"), HOT, stop=stop)
            assert finished(plain).reason == "stop"
            assert told(story(with_draft(target, drafts[name]), HOT, stop=stop)) == told(plain)
        for count in range(1, 9):
            plain = story(target.session(0, "off"), HOT, count)
            assert told(story(with_draft(target, drafts[name]), HOT, count)) == told(plain)


def test_an_edited_text_is_followed(target: Model, drafts: dict[str, Model]) -> None:
    """One session after another text: what the draft holds is not what is wanted."""
    for name in ("itself", "other", "near"):
        session = with_draft(target, drafts[name])
        list(session.generate([1, 270, 271, 272], HOT, max_tokens=20))
        for prompt in ([1, 270, 280], [1, 270, 271, 272, 273], [1, 280] * 10, [1]):
            fresh = target.session(0, "off")
            plain = finished(list(fresh.generate(prompt, HOT, max_tokens=15)))
            assert finished(list(session.generate(prompt, HOT, max_tokens=15))).ids == plain.ids


def test_an_abort_ends_the_draft_too(target: Model, drafts: dict[str, Model]) -> None:
    whole = finished(story(target.session(0, "off"), HOT, 40))
    for at in range(0, 12, 3):
        session = with_draft(target, drafts["other"])
        for event in session.generate([1, 270], HOT, max_tokens=40):
            if isinstance(event, Token) and event.index == at:
                thread = threading.Thread(target=session.abort)
                thread.start()
                thread.join()
        assert isinstance(event, Finished)
        assert event.reason == "aborted"
        assert len(event.ids) == at + 1
        rest = finished(list(session.generate([1, 270, *event.ids], HOT, max_tokens=39 - at)))
        assert event.ids + rest.ids == whole.ids


class Clock:
    """The time of a machine where a plain step takes a second and a drafted token EACH of one."""

    EACH = 0.06

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


def simulated(
    monkeypatch: pytest.MonkeyPatch, draft: Draft, right: Callable[[int], float], count: int
) -> float:
    """Plain steps that it took to tell `count` tokens, of which the nth is drafted rightly with a
    chance of right(n)."""
    clock, random, costs = Clock(), Random(1), Costs()
    monkeypatch.setattr(drafting, "time", clock)
    push = draft._session.push
    sync = draft._session.sync
    monkeypatch.setattr(draft._session, "push", lambda token: (tick(clock), push(token))[1])
    monkeypatch.setattr(draft._session, "sync", lambda ids: (tick(clock), sync(ids))[1])
    text = [1, 270]
    draft.begin(chain_for(HOT, 1, "native"))
    while len(text) < count:
        guess: list[int] = []
        if not costs.due and draft.open():
            guess = draft.guess(text[-20:], 16, costs)
        drafted = bool(draft._drafted)
        step = 0.85 + 0.15 * (1 + len(guess))
        clock.now += step
        costs.tell(1 + len(guess), step)
        for _ in range(1 + len(guess)):
            came_true = draft._drafted and random.random() < right(len(text))
            text.append(draft._drafted[0][0] if came_true else 263)
            draft.saw(text[-1] if came_true else -1)
            if not came_true:
                break
        if drafted:
            draft.settle(costs)
    return clock.now


def tick(clock: Clock) -> None:
    clock.now += Clock.EACH


def test_a_draft_costs_little_where_it_is_always_wrong(
    monkeypatch: pytest.MonkeyPatch, drafts: dict[str, Model], target: Model
) -> None:
    for count, least in ((150, 0.975), (2000, 0.98)):
        draft = Draft(Session(drafts["other"], 64, "off"), target.end_ids)
        assert count / simulated(monkeypatch, draft, lambda _: 0.0, count) > least


def test_a_draft_pays_where_it_is_right(
    monkeypatch: pytest.MonkeyPatch, drafts: dict[str, Model], target: Model
) -> None:
    for chance, least in ((0.5, 1.05), (0.7, 1.3), (0.85, 1.6)):
        draft = Draft(Session(drafts["other"], 64, "off"), target.end_ids)
        assert 400 / simulated(monkeypatch, draft, lambda _, c=chance: c, 400) > least


def test_a_draft_that_was_wrong_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, drafts: dict[str, Model], target: Model
) -> None:
    draft = Draft(Session(drafts["other"], 64, "off"), target.end_ids)
    steps = simulated(monkeypatch, draft, lambda n: 0.9 if n > 300 else 0.0, 600)
    assert steps < 530


def test_a_draft_sees_its_own_window(target: Model, drafts: dict[str, Model]) -> None:
    """A text longer than the draft can see, but not than the model can."""
    session = with_draft(target, drafts["near"], mode="draft")
    events = list(session.generate([1, 270], replace(HOT, seed=2), max_tokens=60))
    plain = list(target.session(0, "off").generate([1, 270], replace(HOT, seed=2), max_tokens=60))
    assert finished(events).ids == finished(plain).ids
    assert not any(isinstance(e, ContextSlid) for e in events)
    assert len(finished(events).ids) > 24


def test_another_vocabulary_is_an_error(target: Model) -> None:
    words = vocabulary()
    more = replace(words, pieces=(*words.pieces[:-1], "other"))
    with pytest.raises(UnsupportedError, match=rf"token {len(words) - 1} is not the same"):
        target.session(0, "auto", made(1, words=more))
    small = made(1, "plain")
    small.checkpoint = replace(
        small.checkpoint, config=replace(small.checkpoint.config, vocab_size=200)
    )
    with pytest.raises(UnsupportedError, match=r"it has 200 tokens, the model 286"):
        target.session(0, "auto", small)


def test_modes(target: Model, drafts: dict[str, Model]) -> None:
    assert target.session(0, "draft").speculator is not None  # and guesses nothing
    assert target.session(0, "off", drafts["other"]).speculator is None
    for mode, looks, drafted in (("auto", 1, 1), ("lookup", 1, 0), ("draft", 0, 1)):
        speculator = target.session(0, mode, drafts["other"]).speculator  # type: ignore[arg-type]
        assert speculator is not None
        assert (speculator._looks, speculator._draft is not None) == (bool(looks), bool(drafted))
