"""The inference thread: on a real, tiny model, and on loaders that misbehave."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from fireside.app import memory
from fireside.app.inference import HOLD, Inference
from fireside.app.updates import (
    Buffer,
    Conversation,
    Done,
    Failed,
    LoadCancelled,
    Loaded,
    LoadFailed,
    LoadProgress,
    ModelSpec,
    Prefill,
    Request,
    Slid,
    TextUpdate,
    Update,
)
from fireside.engine import CheckpointError, Model, Sampling, load
from fireside.engine.chat import Message
from tests.app.tiny import write_tiny

GREEDY = Sampling(temperature=0)
U = TypeVar("U")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models"))


class Hands:
    """An Inference and what it has told so far."""

    def __init__(self, loader: Callable[..., Model] = load) -> None:
        self.inference = Inference(loader)
        self.inference.start()
        self.told: list[Update] = []

    def drain(self) -> list[Update]:
        self.told += self.inference.drain()
        return self.told

    def wait(self, kind: type[U], job: int | None = None, seconds: float = 20) -> U:
        """The first update of this kind (and job)."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for update in self.drain():
                if isinstance(update, kind) and job in (None, getattr(update, "job", None)):
                    return update
            time.sleep(0.005)
        raise AssertionError(f"no {kind.__name__}; told: {self.told}")

    def text(self, job: int) -> str:
        return "".join(u.text for u in self.drain() if isinstance(u, TextUpdate) and u.job == job)

    def write(self, prompt: Any, tokens: int = 20, **request: Any) -> tuple[str, Done]:
        request.setdefault("sampling", GREEDY)
        job = self.inference.generate(Request(prompt, max_tokens=tokens, **request))
        done = self.wait(Done, job)
        return self.text(job), done


@pytest.fixture
def hands() -> Iterator[Hands]:
    hands = Hands()
    yield hands
    hands.inference.close()
    assert not hands.inference._thread.is_alive()


@pytest.fixture
def ready(hands: Hands, tiny: Path) -> Hands:
    hands.inference.load(ModelSpec(tiny, kernels="numpy"))
    hands.wait(Loaded)
    return hands


def test_a_model_is_loaded_and_described(hands: Hands, tiny: Path) -> None:
    job = hands.inference.load(ModelSpec(tiny, "q8", "numpy", context=100))
    loaded = hands.wait(Loaded, job)
    assert loaded.info is hands.inference.info
    assert (loaded.info.quant, loaded.info.kernels, loaded.info.context) == ("q8", "numpy", 100)
    assert any(isinstance(u, LoadProgress) for u in hands.told)


def test_a_context_beyond_the_models_is_cut_to_it(hands: Hands, tiny: Path) -> None:
    hands.inference.load(ModelSpec(tiny, kernels="numpy", context=100_000))
    assert hands.wait(Loaded).info.context == 256


def test_the_text_is_what_the_engine_writes(ready: Hands, tiny: Path) -> None:
    text, done = ready.write("once upon")
    session = load(tiny, kernels="numpy").session()
    events = list(session.generate("once upon", GREEDY, max_tokens=20))
    expected = "".join(getattr(event, "text", "") for event in events)
    assert text == expected.rstrip("\N{REPLACEMENT CHARACTER}")  # half a character is left out
    assert done.reason == "length"
    assert done.statistics.decode_tokens == 20
    assert done.info is ready.inference.info


def test_a_text_that_goes_on_reuses_what_is_cached(ready: Hands) -> None:
    text, _ = ready.write("once upon the time")
    _, done = ready.write("once upon the time" + text)
    assert done.statistics.prefill_tokens <= 1
    _, done = ready.write("once upon the time" + text + " upon")
    assert done.statistics.reused_tokens >= 20
    again, done = ready.write("once upon the time")
    assert again == text
    assert done.statistics.prefill_tokens <= 1


def test_a_request_waits_for_the_model(hands: Hands, tiny: Path) -> None:
    hands.inference.load(ModelSpec(tiny, kernels="numpy"))
    text, done = hands.write("once", 5)
    assert text
    assert done.reason == "length"


def test_without_a_model_a_request_fails_in_one_line(hands: Hands) -> None:
    job = hands.inference.generate(Request("once"))
    assert "no model" in hands.wait(Failed, job).message


def test_a_load_that_fails_lets_waiting_requests_fail(hands: Hands, tmp_path: Path) -> None:
    hands.inference.load(ModelSpec(tmp_path / "nowhere.gguf"))
    job = hands.inference.generate(Request("once"))
    assert "nowhere.gguf" in hands.wait(LoadFailed).message
    hands.wait(Failed, job)


def test_a_failed_load_keeps_the_model(ready: Hands, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00")
    before = ready.inference.info
    ready.inference.load(ModelSpec(broken))
    failed = ready.wait(LoadFailed)
    assert "\n" not in failed.message
    assert ready.inference.info is before
    assert ready.write("once", 3)[0]


@pytest.mark.parametrize("released", [True, False])
def test_a_generation_waits_for_the_screen_but_not_for_ever(ready: Hands, released: bool) -> None:
    ready.write("a b")
    inference = ready.inference
    held = time.monotonic()
    job = inference.generate(Request("a b", GREEDY, max_tokens=1), hold=True)
    if released:
        inference.release()
    done = ready.wait(Done, job)
    assert done.reason == "length"
    assert released or time.monotonic() - held > HOLD


def test_abort_while_the_screen_is_waited_for(
    ready: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fireside.app.inference.HOLD", 60.0)
    job = ready.inference.generate(Request("a", GREEDY), hold=True)
    ready.inference.abort()
    assert ready.wait(Done, job).reason == "aborted"


def test_abort_while_it_writes(ready: Hands) -> None:
    job = ready.inference.generate(Request("once", GREEDY, 0, overflow="slide"))
    ready.wait(TextUpdate, job)
    started = time.monotonic()
    ready.inference.abort()
    done = ready.wait(Done, job)
    assert done.reason == "aborted"
    assert time.monotonic() - started < 0.5
    assert ready.write("once", 3)[1].reason == "length"


def test_abort_ends_what_waits_too(ready: Hands) -> None:
    jobs = [
        ready.inference.generate(Request("once", GREEDY, 0, overflow="slide")) for _ in range(3)
    ]
    ready.inference.abort()
    assert [ready.wait(Done, job).reason for job in jobs] == ["aborted"] * 3


def test_abort_without_a_model(hands: Hands, tiny: Path) -> None:
    held = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Model:
        held.wait(10)
        return load(*args, **kwargs)

    hands.inference._loader = slow
    hands.inference.load(ModelSpec(tiny, kernels="numpy"))
    job = hands.inference.generate(Request("once"))
    hands.inference.abort()
    done = hands.wait(Done, job)
    assert (done.reason, done.info) == ("aborted", None)
    held.set()
    hands.wait(Loaded)


def test_abort_while_the_prompt_is_read(ready: Hands) -> None:
    """The step in progress is not waited for longer than its chunk."""
    job = ready.inference.generate(Request("upon the time " * 60, GREEDY, 5, overflow="slide"))
    ready.wait(Prefill, job)
    ready.inference.abort()
    assert ready.wait(Done, job).reason in ("aborted", "length")


def test_many_aborts_at_any_moment(ready: Hands) -> None:
    for pause in range(30):
        job = ready.inference.generate(Request("once upon", GREEDY, 0, overflow="slide"))
        time.sleep(pause / 2000)
        ready.inference.abort()
        assert ready.wait(Done, job, 5).reason == "aborted"


def test_a_newer_load_cancels_the_older(hands: Hands, tiny: Path) -> None:
    started, held = threading.Event(), threading.Event()

    def slow(path: Path, *, progress: Callable[[int, int], None], **rest: Any) -> Model:
        if rest["quant"] == "q8":
            started.set()
            held.wait(10)
            progress(1, 2)
        return load(path, progress=progress, **rest)

    hands.inference._loader = slow
    first = hands.inference.load(ModelSpec(tiny, "q8", "numpy"))
    started.wait(10)
    second = hands.inference.load(ModelSpec(tiny, "q4", "numpy"))
    held.set()
    assert hands.wait(Loaded).job == second
    assert hands.wait(LoadCancelled).job == first
    assert hands.inference.info is not None
    assert hands.inference.info.quant == "q4"


def test_the_old_model_writes_while_the_new_one_loads(ready: Hands, tiny: Path) -> None:
    held = threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Model:
        held.wait(10)
        return load(*args, **kwargs)

    ready.inference._loader = slow
    job = ready.inference.load(ModelSpec(tiny, "q8", "numpy"))
    _, done = ready.write("once", 5)
    assert done.info is not None
    assert done.info.quant == "none"
    held.set()
    ready.wait(Loaded, job)
    _, done = ready.write("once", 5)
    assert done.info is not None
    assert done.info.quant == "q8"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CheckpointError("x.gguf: bad magic", "is it a model?"), "x.gguf: bad magic"),
        (MemoryError(), "not enough memory"),
        (PermissionError(13, "Permission denied", "x.gguf"), "x.gguf: permission denied"),
        (ValueError("first line\nsecond line"), "ValueError first line"),
    ],
)
def test_whatever_a_loader_raises_is_one_line(
    ready: Hands, tiny: Path, error: Exception, expected: str
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Model:
        raise error

    ready.inference._loader = broken
    ready.inference.load(ModelSpec(tiny))
    message = ready.wait(LoadFailed).message
    assert expected in message
    assert "\n" not in message


def test_an_engine_that_breaks_does_not_take_the_thread_along(ready: Hands) -> None:
    session = ready.inference._session
    assert session is not None

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a bug")

    session.generate = broken  # type: ignore[method-assign]
    job = ready.inference.generate(Request("once"))
    assert "a bug" in ready.wait(Failed, job).message
    assert ready.write("once", 3)[0]


def test_a_story_longer_than_the_context_slides(ready: Hands) -> None:
    text, done = ready.write("once upon the time", 400)
    assert done.statistics.decode_tokens == 400 or done.reason == "end"
    assert text
    assert any(isinstance(update, Slid) for update in ready.told)


def test_a_conversation_is_put_in_the_models_own_way(ready: Hands) -> None:
    turns = Conversation((Message("user", "once upon"),))
    text, _ = ready.write(turns, 10)
    plain, _ = ready.write("You: once upon\nTeller:", 10)
    assert text == plain
    named, _ = ready.write(replace(turns, template="alpaca"), 10)
    assert named == ready.write("### Instruction:\nonce upon\n\n### Response:\n", 10)[0]


def test_a_conversation_that_goes_on_reuses_what_was_said(ready: Hands) -> None:
    said = [Message("user", "once upon")]
    for _ in range(3):
        text, done = ready.write(Conversation(tuple(said)), 12)
        if len(said) > 1:  # all but the last turn's own words was there
            assert done.statistics.reused_tokens > 10 * (len(said) // 2)
        said += [Message("assistant", text), Message("user", "the time")]


def test_closing_while_everything_runs(tiny: Path) -> None:
    hands = Hands()
    hands.inference.load(ModelSpec(tiny, kernels="numpy"))
    hands.wait(Loaded)
    hands.inference.generate(Request("once", GREEDY, 0, overflow="slide"))
    hands.inference.load(ModelSpec(tiny, "q4", "numpy"))
    started = time.monotonic()
    hands.inference.close()
    assert time.monotonic() - started < 5
    assert not hands.inference._thread.is_alive()


def test_the_buffer_joins_what_belongs_together() -> None:
    buffer = Buffer()
    buffer.push(Prefill(1, 1, 9, 0, 0.1))
    buffer.push(Prefill(1, 9, 9, 0, 0.2))
    for index, word in enumerate(("a", "b", "c"), 1):
        buffer.write(1, word, index, index / 10, index)
    buffer.write(2, "x", 1, 0.1, 1)
    assert buffer.drain() == [
        Prefill(1, 9, 9, 0, 0.2),
        TextUpdate(1, "abc", 3, 0.3, 3),
        TextUpdate(2, "x", 1, 0.1, 1),
    ]
    assert buffer.drain() == []
    buffer.write(2, "y", 2, 0.2, 2)
    assert buffer.drain() == [TextUpdate(2, "y", 2, 0.2, 2)]


# -- memory -------------------------------------------------------------------------------------


@pytest.fixture
def tight(ready: Hands, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Hands:
    """There is room for one model, not for two."""
    sizes: list[int] = []
    load(tiny, kernels="numpy", admit=lambda need: sizes.append(memory.needed(need)))

    def free() -> int:
        return sizes[0] // 2 if ready.inference.info is not None else sizes[0]

    monkeypatch.setattr(memory, "available", free)
    return ready


def weights_in_memory(hands: Hands) -> weakref.ref[Model]:
    assert hands.inference._session is not None
    return weakref.ref(hands.inference._session.model)


def test_where_two_do_not_fit_the_old_one_goes_first(tight: Hands, tiny: Path) -> None:
    old = weights_in_memory(tight)
    there: list[bool] = []

    def watching(*args: Any, progress: Callable[[int, int], None], **rest: Any) -> Model:
        def look(done: int, total: int) -> None:
            there.append(old() is not None)
            progress(done, total)

        return load(*args, progress=look, **rest)

    before, _ = tight.write("once upon", 5)
    tight.inference._loader = watching
    job = tight.inference.load(ModelSpec(tiny, "q8", "numpy"))
    while (info := tight.inference.info) is not None and info.quant == "none":
        time.sleep(0.001)
    text, done = tight.write("once upon" + before, 5)  # it waits for the new one
    assert tight.wait(Loaded, job).info.quant == "q8"
    assert there
    assert not any(there)
    assert text
    assert done.info is not None
    assert done.info.quant == "q8"


def test_the_old_one_finishes_what_it_is_writing(tight: Hands, tiny: Path) -> None:
    writing = tight.inference.generate(Request("once", GREEDY, 0, overflow="slide"))
    tight.wait(TextUpdate, writing)
    job = tight.inference.load(ModelSpec(tiny, "q8", "numpy"))
    time.sleep(0.2)
    assert tight.inference.info is not None
    assert not any(isinstance(update, Loaded) and update.job == job for update in tight.drain())
    tight.inference.abort()
    assert tight.wait(Done, writing).reason == "aborted"
    tight.wait(Loaded, job)


def test_the_old_one_comes_back_if_the_new_one_fails(tight: Hands, tiny: Path) -> None:
    before = tight.write("once upon", 10)[0]
    loading = tight.inference._loader

    def failing(*args: Any, **rest: Any) -> Model:
        model = loading(*args, **rest)
        if rest["quant"] == "q4":
            raise CheckpointError("the file is damaged at its end")
        return model

    tight.inference._loader = failing
    job = tight.inference.load(ModelSpec(tiny, "q4", "numpy"))
    waiting = tight.inference.generate(Request("once upon", GREEDY, 10))
    failed = tight.wait(LoadFailed, job)
    assert failed.back
    assert tight.wait(Loaded, failed.back).info.quant == "none"
    tight.wait(Done, waiting)
    assert tight.text(waiting) == before


def test_the_old_one_comes_back_if_the_new_one_is_given_up(tight: Hands, tiny: Path) -> None:
    begun, held = threading.Event(), threading.Event()
    loading = tight.inference._loader

    def slow(*args: Any, progress: Callable[[int, int], None], **rest: Any) -> Model:
        def hold(done: int, total: int) -> None:
            begun.set()
            held.wait(10)
            progress(done, total)

        return loading(*args, progress=hold, **rest)

    tight.inference._loader = slow
    job = tight.inference.load(ModelSpec(tiny, "q4", "numpy"))
    assert begun.wait(10)
    tight.inference.cancel_load()
    waiting = tight.inference.generate(Request("once", GREEDY, 3))
    held.set()
    back = tight.wait(LoadCancelled, job).back
    assert tight.wait(Loaded, back).info.quant == "none"
    tight.wait(Done, waiting)


def test_one_that_does_not_come_back_either_is_told(
    tight: Hands, tiny: Path, tmp_path: Path
) -> None:
    own = write_tiny(tmp_path / "own")
    tight.inference.load(ModelSpec(own, kernels="numpy"))
    for update in (tight.wait(Loaded, 2),):
        assert update.info.spec.path == own
    loading = tight.inference._loader

    def failing(*args: Any, **rest: Any) -> Model:
        loading(*args, **rest)
        own.unlink(missing_ok=True)
        raise CheckpointError("damaged")

    tight.inference._loader = failing
    job = tight.inference.load(ModelSpec(tiny, "q4", "numpy"))
    back = tight.wait(LoadFailed, job).back
    failed = tight.wait(LoadFailed, back)
    assert (failed.spec.path, failed.back) == (own, 0)
    assert "no model" in tight.wait(Failed, tight.inference.generate(Request("once"))).message
    tight.inference._loader = load
    tight.wait(Loaded, tight.inference.load(ModelSpec(tiny, kernels="numpy")))


def test_what_cannot_fit_at_all_is_refused_at_once(
    ready: Hands, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 0)
    assert ready.inference.info is not None
    held = ready.inference.info.nbytes
    job = ready.inference.load(ModelSpec(tiny, "q8", "numpy"))
    failed = ready.wait(LoadFailed, job)
    assert failed.back == 0
    assert failed.message.startswith("tiny needs about ")
    assert f"and {held / 1e6:.0f} MB are free" in failed.message
    assert not any(isinstance(u, LoadProgress) and u.job == job and u.total for u in ready.told)
    assert ready.write("once", 3)[0]
