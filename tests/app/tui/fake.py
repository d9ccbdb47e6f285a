"""An Inference without an engine: it says what a test tells it to say."""

from __future__ import annotations

from collections import deque

from fireside.app.updates import (
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
    TextUpdate,
    Update,
)
from fireside.engine import Statistics

WORDS = " and the dragon puffed a small grey cloud."


def info(spec: ModelSpec, context: int = 512) -> ModelInfo:
    """A model that was loaded as asked for."""
    return ModelInfo(
        spec,
        spec.name,
        "llama",
        15_000_000,
        spec.quant,
        "native",
        "avx2",
        2,
        context,
        8_100_000,
        0.1,
    )


class FakeInference:
    """`script` holds the texts to come; with `hold` a test says and ends them itself."""

    def __init__(self, *script: str, hold: bool = False, slow_load: bool = False) -> None:
        self.script = deque(script)
        self.hold = hold
        self.slow_load = slow_load
        self.fail_load = ""  # the reason why the next load fails
        self.fail_next = ""  # the reason why the next generation fails
        self.updates: list[Update] = []
        self.requests: list[Request] = []
        self.specs: list[ModelSpec] = []
        self.started = self.closed = False
        self.jobs = 0
        self.running = 0
        self.released = 0  # the job that need not wait for the screen any more
        self.loading: tuple[int, ModelSpec] | None = None
        self.let_go: ModelSpec | None = None  # what had to make room for the model on its way
        self.tokens = 0

    # -- what the application calls

    def start(self) -> None:
        self.started = True

    def close(self) -> None:
        self.closed = True

    def drain(self) -> list[Update]:
        updates, self.updates = self.updates, []
        return updates

    def load(self, spec: ModelSpec) -> int:
        self.cancel_load()
        self.jobs += 1
        self.specs.append(spec)
        self.loading = (self.jobs, spec)
        self.updates.append(LoadProgress(self.jobs, spec, 0, 100))
        if not self.slow_load:
            self.finish_load()
        return self.jobs

    def cancel_load(self) -> None:
        if self.loading is not None:
            job, spec = self.loading
            self.loading = None
            self.updates.append(LoadCancelled(job, spec, self.come_back()))

    def come_back(self) -> int:
        """Begin to load the model again that was let go."""
        if self.let_go is None:
            return 0
        self.jobs += 1
        self.loading, self.let_go = (self.jobs, self.let_go), None
        return self.jobs

    def generate(self, request: Request, hold: bool = False) -> int:
        self.jobs += 1
        self.running = self.jobs
        self.requests.append(request)
        self.tokens = 0
        if self.fail_next:
            self.updates.append(Failed(self.jobs, self.fail_next))
            self.fail_next, self.running = "", 0
            return self.jobs
        self.updates.append(Prefill(self.jobs, 10, 10, 4, 0.01))
        if not self.hold:
            self.say(self.script.popleft() if self.script else WORDS)
            self.finish()
        return self.jobs

    def release(self) -> None:
        self.released = self.jobs

    def abort(self) -> None:
        if self.running:
            self.finish("aborted")

    # -- what a test calls

    def finish_load(self) -> None:
        assert self.loading is not None
        job, spec = self.loading
        self.loading = None
        if self.fail_load:
            self.updates.append(LoadFailed(job, spec, self.fail_load, self.come_back()))
        else:
            self.updates.append(LoadProgress(job, spec, 100, 100))
            self.updates.append(Loaded(job, info(spec)))

    def progress(self, share: float) -> None:
        assert self.loading is not None
        self.updates.append(LoadProgress(*self.loading, int(share * 100), 100))

    def read(self, done: int, total: int) -> None:
        self.updates.append(Prefill(self.running, done, total, 0, 1.0))

    def say(self, text: str) -> None:
        self.tokens += max(1, len(text.split()))
        self.updates.append(
            TextUpdate(self.running, text, self.tokens, self.tokens / 200, 10 + self.tokens)
        )

    def finish(self, reason: str = "length", seed: int = 811402) -> None:
        statistics = Statistics(6, 4, 0.01, self.tokens, self.tokens / 200, 10 + self.tokens, 512)
        spec = self.specs[-1] if self.specs else None
        self.updates.append(
            Done(self.running, reason, seed, statistics, info(spec) if spec else None)  # type: ignore[arg-type]
        )
        self.running = 0

    @property
    def prompt(self) -> str:
        """The text of the last request."""
        prompt = self.requests[-1].prompt
        assert isinstance(prompt, str)
        return prompt

    @property
    def turns(self) -> list[tuple[str, str]]:
        """Who said what in the last request of a chat."""
        prompt = self.requests[-1].prompt
        assert isinstance(prompt, Conversation)
        return [(m.role, m.content) for m in prompt.messages]
