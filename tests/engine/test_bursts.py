"""Tokens that come several in a call into C are those that come one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.engine import architectures, bursts, executors
from fireside.engine import session as sessions
from fireside.engine.errors import SamplingError
from fireside.engine.events import Event, Finished, Token
from fireside.engine.executors import native_library
from fireside.engine.executors.native import NativeExecutor
from fireside.engine.model import Model
from fireside.engine.samplers import Sampling, chain_for
from fireside.engine.samplers.chain import uniform
from tests.engine.test_session import HOT, finished, model
from tests.engine.test_speculation import SAMPLERS, story, told
from tests.models import SHAPES, random_checkpoint

__all__ = ["model"]  # a fixture


@pytest.fixture
def native(model: Model) -> Model:
    if model.executor.name != "native":
        pytest.skip("NumPy goes token by token")
    return model


def one_by_one(native: Model, sampling: Sampling, context: int = 0, **more: object) -> list[Event]:
    """The story as Python draws it, a step at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "burst_for", lambda *_: None)
        return story(native.session(context, "off"), sampling, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("most", [1, 3, 64])
@pytest.mark.parametrize("context", [0, 20])
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_burst_never_changes_a_story(
    native: Model, name: str, context: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bursts, "MOST", most)
    monkeypatch.setattr(bursts, "SECONDS", (1.0, 1.0))
    for seed in (0, 5, 2**64 - 1):
        sampling = replace(SAMPLERS[name], seed=seed)
        plain = one_by_one(native, sampling, context)
        for speculation in ("off", "auto"):
            session = native.session(context, speculation)
            assert told(story(session, sampling)) == told(plain)


@pytest.mark.parametrize("window", [0, 1, 7])
def test_penalties_see_what_the_burst_has_drawn(native: Model, window: int) -> None:
    sampling = replace(SAMPLERS["penalties"], repetition_window=window, temperature=0.0)
    plain = one_by_one(native, sampling)
    assert told(story(native.session(0, "off"), sampling)) == told(plain)
    assert finished(plain).ids != finished(one_by_one(native, SAMPLERS["greedy"])).ids


def test_stop_strings_and_lengths_are_the_same_within_a_burst(native: Model) -> None:
    whole = finished(one_by_one(native, HOT))
    text = native.tokenizer.decode(list(whole.ids))
    for at in (3, 10, 17):
        stop = [text[at : at + 3]]
        session = native.session(0, "off")
        events = story(session, HOT, stop=stop)
        assert finished(events).reason == "stop"
        assert told(events) == told(one_by_one(native, HOT, stop=stop))
        # what was computed behind the stop is not in the timeline
        assert session.ids == [1, 270, *finished(events).ids][: len(session.ids)]
    for count in range(1, 12):
        events = story(native.session(0, "off"), HOT, count)
        assert len(finished(events).ids) == count
        assert told(events) == told(one_by_one(native, HOT, count=count))


def test_a_full_context_ends_the_story_at_the_same_token(native: Model) -> None:
    def ended(events: Iterator[Event]) -> Finished:
        end = list(events)[-1]
        assert isinstance(end, Finished)
        return end

    for length in range(12, 21):
        prompt = [1, *[270] * (length - 1)]
        many = ended(native.session(20, "off").generate(prompt, HOT))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bursts, "MOST", 1)
            one = ended(native.session(20, "off").generate(prompt, HOT))
        assert many.reason == one.reason == "context"
        assert many.ids == one.ids
        assert len(many.ids) == 20 - length


@pytest.mark.parametrize("leave", ["abort", "close"])
def test_who_leaves_in_the_middle_of_a_burst_can_go_on(
    native: Model, leave: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bursts, "SECONDS", (1.0, 1.0))
    whole = finished(one_by_one(native, HOT, count=30)).ids
    assert len(whole) > 20
    for last in (0, 1, 9, 14):
        session = native.session(0, "off")
        events = session.generate([1, 270], HOT, max_tokens=30)
        for event in events:
            if isinstance(event, Token) and event.index == last:
                if leave == "close":
                    break
                session.abort()
        got = whole[: last + 1]
        if leave == "abort":
            assert isinstance(event, Finished)
            assert (event.reason, event.ids) == ("aborted", got)
        assert session.ids == [1, 270, *whole][: len(session.ids)]
        other = session.fork()
        for goes_on in (session, other):
            rest = list(goes_on.generate([1, 270, *got], HOT, max_tokens=30 - len(got)))[-1]
            assert isinstance(rest, Finished)
            assert got + rest.ids == whole


def test_time_ends_a_burst(native: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    tell = bursts.Burst.tell

    def count(self: bursts.Burst, *arguments: object) -> bursts.Told:
        nonlocal calls
        calls += 1
        return tell(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bursts.Burst, "tell", count)
    for seconds, expected in ((0.0, 20), (10.0, 2)):
        monkeypatch.setattr(bursts, "SECONDS", (seconds, seconds))
        calls = 0
        end = finished(story(native.session(0, "off"), HOT, 20))
        assert len(end.ids) == 20  # the first of them by the call that reads the prompt
        assert calls == expected


def large(vocab: int, threads: int, change: int | None = None) -> NativeExecutor:
    """A model with a vocabulary of several runs; token `change` has a weight that is infinite."""
    if missing := native_library.load()[2]:
        pytest.skip(missing)
    config = replace(SHAPES["plain"], vocab_size=vocab)
    checkpoint = random_checkpoint(config, 4, tied=False)
    if change is not None:
        checkpoint.tensors["output.weight"].data.view(np.float32)[change * config.dim] = np.inf
    plan = architectures.get("llama").plan(config, False)
    executor = executors.get("native").build(plan, checkpoint, "none", threads, None)
    assert isinstance(executor, NativeExecutor)
    return executor


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("vocab", [500, 512, 1700])
@pytest.mark.parametrize("name", SAMPLERS)
def test_threads_that_look_through_the_logits_draw_the_same(
    name: str, vocab: int, threads: int
) -> None:
    alone, team = large(vocab, 1), large(vocab, threads)
    chain = chain_for(SAMPLERS[name], 7, "native")
    text, told = [1, 5, 3], [1, 5, 3]
    cache, chances = alone.new_cache(40), []
    fresh = text
    for _ in range(30):
        row = alone.step_rows(cache, fresh, len(text) - len(fresh), "last")[0]
        choice = chain.choose(row, text, len(text))
        text, fresh = [*text, choice.id], [choice.id]
        chances.append(choice.probability)
    burst = bursts.burst_for(team, chain, frozenset())
    assert burst is not None
    cache, got = team.new_cache(40), []
    while len(got) < 30:
        at = len(told) - 1 if got else 0
        some = burst.tell(cache, told, at, 30 - len(got), len(told) - at).choices
        told += [c.id for c in some]
        got += [c.probability for c in some]
    assert told == text
    assert got == chances


@pytest.mark.parametrize("token", [0, 511, 512, 1699])
def test_a_logit_that_is_no_number_is_seen_by_whoever_looks_at_it(token: int) -> None:
    executor = large(1700, 3, token)
    burst = bursts.burst_for(executor, chain_for(Sampling(), 7, "native"), frozenset())
    assert burst is not None
    with pytest.raises(SamplingError, match="finite"):
        burst.tell(executor.new_cache(40), [1, 5, 3], 0, 5, 3)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_the_random_number_is_the_same_in_c(seed: int, place: int) -> None:
    _, lib, missing = native_library.load()
    if missing:
        pytest.skip(missing)
    assert lib.fs_uniform(seed, place) == uniform(seed, place)
