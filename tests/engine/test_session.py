"""The session: one seed, one story, whatever is cached; windows, stops, aborts."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.engine import architectures, executors
from fireside.engine.checkpoints.types import BYTE, CONTROL, NORMAL, UNKNOWN, Vocabulary
from fireside.engine.errors import ContextOverflowError, FiresideError
from fireside.engine.events import ContextSlid, Event, Finished, PrefillProgress, Token
from fireside.engine.model import Model
from fireside.engine.samplers import Sampling
from fireside.engine.session import common_prefix
from fireside.engine.tokenizers import from_vocabulary
from tests.models import SHAPES, random_checkpoint

LETTERS = "\u2581abcdefghijklmnopqrstuvwxyz"


def vocabulary() -> Vocabulary:
    """Three specials, 256 bytes, a few letters."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *LETTERS]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(LETTERS)
    scores = np.zeros(len(pieces), np.float32)
    return Vocabulary("spm", tuple(pieces), scores, np.array(types, np.int32))


@pytest.fixture(scope="module", params=executors.names())
def model(request: pytest.FixtureRequest) -> Model:
    kind = executors.get(request.param)
    if reason := kind.why_not():
        pytest.skip(f"no {request.param} kernels: {reason}")
    words = vocabulary()
    config = replace(SHAPES["grouped"], vocab_size=len(words), context_length=64)
    checkpoint = random_checkpoint(config, 8)
    plan = architectures.get("llama").plan(config, True)
    executor = kind.build(plan, checkpoint, "none", 1, None)
    return Model(checkpoint, from_vocabulary(words), executor, "none")


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    assert not any(isinstance(e, Finished) for e in events[:-1])
    return events[-1]


def text_of(events: list[Event]) -> str:
    return "".join(e.text for e in events if isinstance(e, Token | Finished))


HOT = Sampling(temperature=1.5, min_p=0.0, top_p=1.0, seed=5)


def test_one_seed_one_story_cold_and_warm(model: Model) -> None:
    cold = finished(list(model.session().generate("once", HOT, max_tokens=20)))
    session = model.session()
    list(session.generate("once upon", HOT, max_tokens=9))
    warm = finished(list(session.generate("once", HOT, max_tokens=20)))
    assert warm.ids == cold.ids
    assert warm.statistics.reused_tokens > 0
    again = finished(list(session.generate("once", HOT, max_tokens=20)))
    assert again.ids == cold.ids
    other = finished(list(session.generate("once", replace(HOT, seed=6), max_tokens=20)))
    assert other.ids != cold.ids


def test_a_story_does_not_depend_on_how_it_was_cut(model: Model) -> None:
    whole = finished(list(model.session().generate([1, 270, 271], HOT, max_tokens=24))).ids
    session = model.session()
    ids = [1, 270, 271]
    for _ in range(4):
        ids += finished(list(session.generate(ids, HOT, max_tokens=6))).ids
    assert tuple(ids[3:]) == whole


def test_events_come_in_order_and_count(model: Model) -> None:
    events = list(model.session().generate("once", HOT, max_tokens=10, alternatives=3))
    end = finished(events)
    tokens = [e for e in events if isinstance(e, Token)]
    assert isinstance(events[0], PrefillProgress)
    assert [t.index for t in tokens] == list(range(len(tokens)))
    assert tuple(t.id for t in tokens) == end.ids
    assert end.seed == 5
    for token in tokens:
        assert len(token.alternatives) == 3
        likely = [a.probability for a in token.alternatives]
        assert likely == sorted(likely, reverse=True)
        assert token.probability <= likely[0] + 1e-12
    s = end.statistics
    assert s.decode_tokens == len(tokens)
    assert s.prefill_tokens == len(model.encode("once"))
    assert s.decode_tok_s > 0


def test_greedy_needs_no_seed(model: Model) -> None:
    greedy = Sampling(temperature=0)
    a = finished(list(model.session().generate("once", greedy, max_tokens=12)))
    b = finished(list(model.session().generate("once", greedy, max_tokens=12)))
    assert a.ids == b.ids


def test_a_full_context_ends_the_text_or_slides(model: Model) -> None:
    events = list(model.session(32).generate("once", replace(HOT, seed=1)))
    end = finished(events)
    assert end.reason in ("context", "end")
    prompt = len(model.encode("once"))
    if end.reason == "context":
        assert prompt + len(end.ids) == 32
    sliding = list(model.session(32).generate("once", HOT, max_tokens=80, overflow="slide"))
    slides = [e for e in sliding if isinstance(e, ContextSlid)]
    if finished(sliding).reason == "length":
        assert [s.dropped for s in slides] == sorted({s.dropped for s in slides})
        assert len(slides) >= 5
        assert all(s.kept == 4 for s in slides)


def test_a_slid_story_is_the_same_when_continued(model: Model) -> None:
    whole = finished(
        list(model.session(16).generate([1, 270], HOT, max_tokens=40, overflow="slide"))
    )
    ids = [1, 270, *whole.ids[:25]]
    rest = finished(
        list(model.session(16).generate(ids, HOT, max_tokens=len(whole.ids) - 25, overflow="slide"))
    )
    assert rest.ids == whole.ids[25:]


@given(st.integers(1, 400), st.integers(8, 64))
@settings(deadline=None)
def test_a_window_fits_keeps_both_ends_and_depends_on_the_length(length: int, context: int) -> None:
    class Bare:
        pass

    from fireside.engine.session import Session

    session = Bare()
    session.context = context  # type: ignore[attr-defined]
    ids = list(range(length))
    window, dropped = Session.window(session, ids)  # type: ignore[arg-type]
    assert len(window) == length - dropped <= context
    assert window[-1] == ids[-1]
    kept = context // 8
    assert window[:kept] == ids[:kept]
    assert window == ids if length <= context else dropped > 0
    assert len(window) > context // 2 or length == len(window)


def test_a_prompt_that_does_not_fit_is_an_error_unless_it_may_slide(model: Model) -> None:
    prompt = "a" * 100
    with pytest.raises(ContextOverflowError, match=r"10\d tokens long"):
        list(model.session(32).generate(prompt, HOT, max_tokens=3))
    events = list(model.session(32).generate(prompt, HOT, max_tokens=3, overflow="slide"))
    assert any(isinstance(e, ContextSlid) for e in events)


def test_stop_strings_end_it_without_themselves(model: Model) -> None:
    free = list(model.session().generate("once", HOT, max_tokens=30))
    text = text_of(free)
    stop = text[5:8]
    events = list(model.session().generate("once", HOT, max_tokens=30, stop=[stop]))
    assert finished(events).reason == "stop"
    assert text_of(events) == text[: text.index(stop)]


def test_max_tokens_is_kept(model: Model) -> None:
    end = finished(list(model.session().generate("once", HOT, max_tokens=3)))
    assert end.reason == "length"
    assert len(end.ids) == 3


def test_abort_keeps_what_is_there(model: Model) -> None:
    session = model.session()
    seen = 0
    for event in session.generate("once", HOT, max_tokens=50):
        if isinstance(event, Token):
            seen += 1
            if seen == 4:
                thread = threading.Thread(target=session.abort)
                thread.start()
                thread.join()
    assert isinstance(event, Finished)
    assert event.reason == "aborted"
    assert len(event.ids) == 4
    # and it does not spoil the next one, even when nothing ran when it was called
    session.abort()
    assert finished(list(session.generate("once", HOT, max_tokens=5))).reason == "length"


def test_a_closed_generator_leaves_the_session_usable(model: Model) -> None:
    session = model.session()
    generation = session.generate("once", HOT, max_tokens=50)
    for event in generation:
        if isinstance(event, Token):
            break
    generation.close()  # type: ignore[attr-defined]
    cold = finished(list(model.session().generate("once", HOT, max_tokens=8)))
    assert finished(list(session.generate("once", HOT, max_tokens=8))).ids == cold.ids


def test_sync_computes_only_what_differs(model: Model) -> None:
    session = model.session()
    a = session.sync([1, 260, 261, 262])
    calls: list[tuple[int, int]] = []
    step = model.executor.step_rows

    def spy(cache: object, tokens: list[int], position: int, rows: str) -> object:
        calls.append((position, len(tokens)))
        return step(cache, tokens, position, rows)  # type: ignore[arg-type]

    model.executor.step_rows = spy  # type: ignore[method-assign,assignment]
    try:
        assert np.shares_memory(session.sync([1, 260, 261, 262]), a)
        session.sync([1, 260, 265])
        session.sync([1, 260])
        back = session.sync([1, 260, 261, 262])
    finally:
        del model.executor.step_rows
    assert calls == [(2, 1), (1, 1), (2, 2)]
    assert np.array_equal(a, back)


def test_ids_outside_the_vocabulary_are_an_error(model: Model) -> None:
    with pytest.raises(FiresideError, match="outside the vocabulary"):
        model.session().sync([1, 10_000])


def test_a_context_beyond_the_model_is_an_error(model: Model) -> None:
    with pytest.raises(ContextOverflowError, match="choose 8 to 64"):
        model.session(65)


@given(st.lists(st.integers(0, 2), max_size=9), st.lists(st.integers(0, 2), max_size=9))
def test_common_prefix(a: list[int], b: list[int]) -> None:
    n = common_prefix(a, b)
    assert a[:n] == b[:n]
    assert n == min(len(a), len(b)) or a[n] != b[n]


def test_the_engine_does_not_import_the_application(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import fireside.engine, sys;"
        "print([m for m in sys.modules if m.startswith(('textual','rich','click','fireside.app'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
