"""Several stories in step: each is what its seed tells alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fireside.engine.errors import ContextOverflowError, FiresideError
from fireside.engine.events import ContextSlid, Finished, Token
from fireside.engine.model import Model
from fireside.engine.samplers import Sampling
from fireside.engine.session import Session
from fireside.engine.siblings import generate_many
from tests.engine.test_session import HOT, finished, model
from tests.engine.test_speculation import SAMPLERS

__all__ = ["model"]  # a fixture


def alone(session: Session, seed: int, sampling: Sampling, **more: object) -> list[object]:
    events = session.generate([1, 270], replace(sampling, seed=seed), **more)  # type: ignore[arg-type]
    return plain(list(events))


def plain(events: list[object]) -> list[object]:
    """Tokens, slides and the end, without the times."""
    kept: list[object] = [e for e in events if isinstance(e, Token | ContextSlid)]
    (end,) = [e for e in events if isinstance(e, Finished)]
    return [*kept, (end.reason, end.text, end.ids, end.seed, end.statistics.decode_tokens)]


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("context", [0, 20])
def test_each_sibling_tells_the_story_of_its_seed(model: Model, name: str, context: int) -> None:
    seeds = [5, 1, 9, 5]
    more = {"max_tokens": 45, "overflow": "slide", "stop": ["q"]}
    session = model.session(context)
    told: dict[int, list[object]] = {}
    for tagged in generate_many(session, [1, 270], seeds, SAMPLERS[name], **more):  # type: ignore[arg-type]
        told.setdefault(tagged.index, []).append(tagged.event)
    for index, seed in enumerate(seeds):
        expected = alone(model.session(context, "off"), seed, SAMPLERS[name], **more)
        assert plain(told[index]) == expected
    # and the session can be used for something else
    after = finished(list(session.generate([1, 271], HOT, max_tokens=9)))
    assert (
        after.ids
        == finished(list(model.session(context).generate([1, 271], HOT, max_tokens=9))).ids
    )


def test_an_abort_ends_them_all(model: Model) -> None:
    session = model.session()
    ends: dict[int, Finished] = {}
    for tagged in generate_many(session, [1, 270], [1, 2, 3], HOT, max_tokens=40):
        if isinstance(tagged.event, Token) and (tagged.index, tagged.event.index) == (1, 6):
            session.abort()
        if isinstance(tagged.event, Finished):
            ends[tagged.index] = tagged.event
    assert [end.reason for end in ends.values()] == ["aborted"] * 3
    for index, end in ends.items():
        whole = alone(model.session(), index + 1, HOT, max_tokens=40)[-1]
        assert isinstance(whole, tuple)
        assert 6 <= len(end.ids) <= 7 or end.ids == whole[2]
        assert end.ids == whole[2][: len(end.ids)]


def test_a_fork_goes_its_own_way(model: Model) -> None:
    session = model.session()
    a = session.sync([1, 260, 261]).copy()
    other = session.fork()
    b = other.sync([1, 260, 261, 262]).copy()
    assert (session.sync([1, 260, 261]) == a).all()
    session.sync([1, 260, 261, 270])
    assert (other.sync([1, 260, 261, 262]) == b).all()
    assert other.reused == 4
    assert (model.session().sync([1, 260, 261, 262]) == b).all()


def test_mistakes(model: Model) -> None:
    with pytest.raises(FiresideError, match="no seed"):
        list(generate_many(model.session(), "once", []))
    with pytest.raises(ContextOverflowError, match="tokens long"):
        list(generate_many(model.session(32), "a" * 100, [1]))
