"""The inference thread: one long-lived thread owns the model and its session.

The rest of the program asks (`load`, `generate`, `abort`) and polls `drain`, which hands out what
happened since the last call, joined: the text of many tokens is one update. Nothing here knows
of a screen. A failure is an update, never a dead thread.

A model is read by a second thread that lives only so long, so that the one in use can go on
writing; for that time both are in memory. It takes over between two generations. Where there is no
room for both, the one in use is let go first, also between two generations. A model that cannot be
loaded leaves the old one where it was, or has it loaded again.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fireside.app import memory
from fireside.app.updates import (
    Buffer,
    Conversation,
    Done,
    Failed,
    LoadCancelled,
    Loaded,
    LoadFailed,
    LoadProgress,
    ModelInfo,
    ModelSpec,
    Prefill,
    Request,
    Slid,
    Update,
)
from fireside.engine import (
    ContextSlid,
    Finished,
    FiresideError,
    Model,
    PrefillProgress,
    Session,
    Statistics,
    Token,
    chat,
    load,
)
from fireside.engine.model import Need
from fireside.engine.speculation import drafts

log = logging.getLogger(__name__)

SWITCH_INTERVAL = 0.001  # seconds; the default 0.005 lets a busy thread hold up the other one
JOIN_TIMEOUT = 5.0
HOLD = 0.05  # seconds that a generation waits for `release` at most
REMEMBERED_TEXTS = 8


class _Memory:
    """The ids behind the last few texts, so that a text that grows reuses what is cached.

    A model may spell a text with other ids than the tokenizer would; read anew, such a text would
    part from the cache in the middle. So the ids of what was written are kept beside it.
    """

    def __init__(self) -> None:
        self._known: deque[tuple[list[int], list[int]]] = deque(maxlen=REMEMBERED_TEXTS)

    def ids(self, encoded: list[int]) -> list[int]:
        """The tokenizer's ids of a text, those it was written with instead as far as known."""
        begun = [entry for entry in self._known if encoded[: len(entry[0])] == entry[0]]
        if not begun:
            return encoded
        known, written = max(begun, key=lambda entry: len(entry[0]))
        return written + encoded[len(known) :]

    def remember(self, encoded: list[int], written: Sequence[int]) -> None:
        """A text that the tokenizer spells `encoded` was written with the ids `written`."""
        self._known.append((encoded, list(written)))


class _Cancelled(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """Raised through the engine's progress callback to end a loading."""


Load = Callable[..., Model]


class Inference:
    """See the module. `loader` stands for the engine's `load` (tests give another)."""

    def __init__(self, loader: Load = load) -> None:
        self._loader = loader
        self._buffer = Buffer()
        self._state = threading.Condition()
        self._requests: deque[tuple[int, Request]] = deque()
        self._ready: tuple[int, ModelSpec, Model, Model | None, float] | None = None
        self._jobs = 0
        self._load_job = 0  # the newest load; an older one gives itself up
        self._loading: threading.Thread | None = None
        self._running = 0  # the generation that runs or waits, 0 = none
        self._aborted: set[int] = set()
        self._closing = False
        self._held = False  # the next generation waits for `release`
        self._session: Session | None = None
        self._memory: _Memory | None = None
        self._info: ModelInfo | None = None
        self._let_go: ModelSpec | None = None  # the model in use before, which had to make room
        self._interval = 0.0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)

    # -- for any thread -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to take requests."""
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(min(self._interval, SWITCH_INTERVAL))
        self._thread.start()

    @property
    def info(self) -> ModelInfo | None:
        """The model in use, None before the first one."""
        return self._info

    @property
    def busy(self) -> bool:
        """Whether something runs or waits, so that updates may come."""
        with self._state:
            loading = self._loading is not None and self._loading.is_alive()
            return bool(loading or self._ready or self._requests or self._running)

    def drain(self) -> list[Update]:
        """What happened since the last call, oldest first."""
        return self._buffer.drain()

    def load(self, spec: ModelSpec) -> int:
        """Read another model in the background; it takes over when it is there."""
        with self._state:
            self._jobs += 1
            self._begin(self._jobs, spec)
            return self._jobs

    def _begin(self, job: int, spec: ModelSpec) -> None:
        """Start a loading thread; `_state` is held."""
        self._load_job = job
        if self._ready is not None:  # it came, but was not taken into use yet
            self._buffer.push(LoadCancelled(self._ready[0], self._ready[1]))
            self._ready = None
        self._loading = threading.Thread(
            target=self._load, args=(job, spec, self._loading), name=f"load-{job}", daemon=True
        )
        self._loading.start()
        self._state.notify_all()

    def cancel_load(self) -> None:
        """Give up the load that is under way."""
        with self._state:
            self._load_job = 0
            self._state.notify_all()

    def generate(self, request: Request, hold: bool = False) -> int:
        """Continue a text, as soon as there is a model and the generations before have ended.

        hold: nor before `release`, which a moment later is taken for granted. Somebody draws with
        a core that the model would miss: better before it begins.
        """
        with self._state:
            self._jobs += 1
            job = self._jobs
            self._requests.append((job, request))
            self._held = hold
            self._state.notify_all()
        return job

    def release(self) -> None:
        """Let what was asked for with `hold` begin."""
        with self._state:
            self._held = False
            self._state.notify_all()

    def abort(self) -> None:
        """End every generation that runs or waits; each still gets its Done."""
        with self._state:
            self._aborted.update(job for job, _ in self._requests)
            if self._running:
                self._aborted.add(self._running)
            self._held = False
            session = self._session
            self._state.notify_all()
        if session is not None:
            session.abort()

    def close(self) -> None:
        """Stop everything and wait for the threads."""
        with self._state:
            self._closing = True
            self._load_job = 0
            loading = self._loading
        self.abort()
        for thread in (self._thread, loading):
            if thread is not None and thread.is_alive():
                thread.join(JOIN_TIMEOUT)
        if self._interval:
            sys.setswitchinterval(self._interval)

    # -- the loading thread ---------------------------------------------------------------------

    def _load(self, job: int, spec: ModelSpec, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()  # it is giving itself up; two at a time would take the memory of both

        def progress(done: int, total: int) -> None:
            if self._load_job != job:
                raise _Cancelled
            self._buffer.push(LoadProgress(job, spec, done, total))

        started = time.perf_counter()
        try:
            progress(0, 0)
            model = self._read(job, spec.path, spec, progress)
            draft = None
            if spec.draft and model.executor.name == "native" and drafts(spec.speculation):
                draft = self._read(job, spec.draft, spec, progress)
            with self._state:
                if self._load_job != job:
                    raise _Cancelled
                self._ready = (job, spec, model, draft, time.perf_counter() - started)
                self._state.notify_all()
        except _Cancelled:
            self._not_loaded(LoadCancelled(job, spec))
        except Exception as error:
            self._not_loaded(LoadFailed(job, spec, describe(error)))

    def _read(
        self, job: int, path: Path, spec: ModelSpec, progress: Callable[[int, int], None]
    ) -> Model:
        return self._loader(
            path,
            quant=spec.quant,
            kernels=spec.kernels,
            threads=spec.threads,
            kv=spec.kv,
            tokenizer=spec.tokenizer,
            progress=progress,
            admit=lambda need: self._make_room(job, spec, need),
            context=spec.context,
        )

    def _make_room(self, job: int, spec: ModelSpec, need: Need) -> None:
        """Let go of the model in use where both do not fit; raises where not even one does."""
        size, free = memory.needed(need, spec.context), memory.available()
        with self._state:
            info = self._info
            if free is None or size <= free or info is None:
                memory.require(spec.name, size, free)
                return
            memory.require(spec.name, size, free + info.nbytes)
            self._state.wait_for(lambda: not self._running or self._load_job != job)
            if self._load_job != job:
                raise _Cancelled
            self._let_go = info.spec
            self._session = self._memory = self._info = None

    def _not_loaded(self, update: LoadFailed | LoadCancelled) -> None:
        """Tell of it; begin to load again the model that was let go for it."""
        with self._state:
            newer = self._load_job not in (0, update.job)
            if not newer:
                self._load_job = 0
                if self._let_go == update.spec:
                    self._let_go = None  # it does not come back either
                elif self._let_go is not None and not self._closing:
                    self._jobs += 1
                    update = replace(update, back=self._jobs)
            self._buffer.push(update)
            if update.back and self._let_go is not None:
                self._begin(update.back, self._let_go)
            self._state.notify_all()

    # -- the inference thread -------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            ready = request = None
            with self._state:
                self._state.wait_for(self._something_to_do)
                if self._closing:
                    return
                if self._held and self._ready is None:
                    self._state.wait_for(lambda: not self._held, HOLD)
                    self._held = False
                    continue  # much may have changed
                if self._ready is not None:
                    ready, self._ready = self._ready, None
                else:
                    request = self._requests.popleft()
                    self._running = request[0]
            if ready is not None:
                self._install(*ready)
            elif request is not None:
                self._answer(*request)

    def _something_to_do(self) -> bool:
        if self._closing or self._ready is not None:
            return True
        if not self._requests:
            return False
        # without a model a request waits for the one that is being loaded, unless it is aborted
        coming = self._load_job != 0 or self._let_go is not None
        waiting = self._session is None and coming
        return not waiting or self._requests[0][0] in self._aborted

    def _install(
        self, job: int, spec: ModelSpec, model: Model, draft: Model | None, seconds: float
    ) -> None:
        """Take a model into use: a session, and what to tell of it."""
        try:
            trained = model.config.context_length
            context = min(spec.context, trained) if spec.context else trained
            session = model.session(context, spec.speculation, draft)
        except Exception as error:
            self._not_loaded(LoadFailed(job, spec, describe(error)))
            return
        with self._state:
            self._session, self._memory = session, _Memory()
            self._let_go = None
            if self._load_job == job:
                self._load_job = 0
        self._info = ModelInfo(
            spec=spec,
            name=model.name,
            architecture=model.config.architecture,
            parameters=model.checkpoint.parameters,
            quant=model.quant,
            kernels=model.executor.name,
            isa=model.executor.isa,
            threads=model.executor.threads,
            context=session.context,
            nbytes=model.nbytes,
            load_s=seconds,
        )
        self._buffer.push(Loaded(job, self._info))

    def _answer(self, job: int, request: Request) -> None:
        """Run one generation; whatever happens, exactly one Done or Failed follows."""
        ending: Done | Failed
        try:
            if job in self._aborted:
                ending = Done(job, "aborted", 0, Statistics(), self._info)
            elif self._session is None or self._memory is None:
                ending = Failed(job, "no model is loaded (choose one with ctrl+o)")
            else:
                ending = self._generate(job, request, self._session, self._memory)
        except Exception as error:
            ending = Failed(job, describe(error))
            if not isinstance(error, FiresideError) and self._session is not None:
                self._renew_session(self._session)
        with self._state:
            self._running = 0
            self._aborted.discard(job)
            self._state.notify_all()
        self._buffer.push(ending)

    def _renew_session(self, session: Session) -> None:
        """After a failure nobody foresaw the cache is not to be trusted."""
        try:
            self._session = session.renewed()
        except Exception as error:
            log.error("no new session: %s", describe(error))

    def _generate(self, job: int, request: Request, session: Session, known: _Memory) -> Done:
        prompt, stop = request.prompt, request.stop
        model = session.model
        asked: str | chat.Prompt | None = None  # what can be remembered with its answer
        if isinstance(prompt, Conversation):
            template = template_of(model, prompt.template)
            stop = (*template.stops, *stop)
            asked = chat.prompt(template, prompt.messages, model.tokenizer)
            ids = known.ids(asked.ids(model.tokenizer))
        elif isinstance(prompt, str):
            asked = prompt
            ids = known.ids(model.encode(prompt))
        else:
            ids = list(prompt)
        events = session.generate(
            ids,
            request.sampling,
            max_tokens=request.max_tokens,
            stop=stop,
            alternatives=request.alternatives,
            overflow=request.overflow,
        )
        written: list[str] = []
        started = first = time.perf_counter()
        tokens = 0
        for event in events:
            if job in self._aborted:
                session.abort()  # the one before may have come before the engine had begun
            if isinstance(event, Token):
                now = time.perf_counter()
                first = now if not tokens else first
                tokens += 1
                written.append(event.text)
                used = min(len(ids) + tokens, session.context)
                choice = event if request.alternatives else None
                self._buffer.write(job, event.text, tokens, now - first, used, choice)
            elif isinstance(event, PrefillProgress):
                seconds = time.perf_counter() - started
                self._buffer.push(Prefill(job, event.done, event.total, event.reused, seconds))
            elif isinstance(event, ContextSlid):
                self._buffer.push(Slid(job, event.kept, event.dropped))
            else:
                finished = event
        return self._finish(job, model, asked, ids, written, finished, known)

    def _finish(
        self,
        job: int,
        model: Model,
        asked: str | chat.Prompt | None,
        ids: list[int],
        written: list[str],
        finished: Finished,
        known: _Memory,
    ) -> Done:
        """Hand out the text that was held back, and remember the ids of the whole."""
        statistics = finished.statistics
        # whoever stops in the middle of a character does not want half of it
        tail = finished.text.rstrip("�") if finished.reason != "end" else finished.text
        if tail:
            tokens = statistics.decode_tokens
            self._buffer.write(job, tail, tokens, statistics.decode_s, statistics.context_used)
        if asked is not None and finished.reason != "stop" and tail == finished.text:
            words = "".join([*written, tail])
            if isinstance(asked, str):
                encoded = model.encode(asked + words)
            else:
                encoded = asked.answered(words).ids(model.tokenizer)
            known.remember(encoded, [*ids, *finished.ids])
        return Done(job, finished.reason, finished.seed, statistics, self._info)


def template_of(model: Model, name: str = "") -> chat.Template:
    """The template called `name`, else the model's own; where that is damaged, what it is like."""
    vocabulary = model.tokenizer.vocabulary
    try:
        return chat.choose(vocabulary, name)
    except FiresideError as error:
        template = chat.guess(vocabulary.chat_template or "")
        log.warning("%s; %s is used instead", error, template.name)
        return template


def describe(error: BaseException) -> str:
    """One line for a person; what nobody foresaw is logged with its traceback."""
    if isinstance(error, FiresideError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory (choose a smaller model, or q8 or q4)"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    log.error("unexpected: %s", error, exc_info=error)
    first = (str(error).splitlines() or [""])[0]
    return f"something unexpected went wrong: {type(error).__name__} {first}".strip()
