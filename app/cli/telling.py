"""From a prompt and settings to a story on stdout: loading, generating, showing."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fireside.app.catalogue import chosen, resolve
from fireside.app.cli.interrupts import WATCH, exit_code
from fireside.app.cli.output import Progress, TextOut, say
from fireside.app.cli.presenters import PRESENTERS, Story
from fireside.app.memory import available, needed, require
from fireside.app.settings import Settings
from fireside.engine import (
    ContextSlid,
    Finished,
    FiresideError,
    Model,
    PrefillProgress,
    Session,
    load,
)
from fireside.engine.hints import Literal
from fireside.engine.records import changed, record
from fireside.engine.speculation import drafts

Form = Literal["text", "json", "jsonl"]


@record
class Output:
    """How the story is to be shown."""

    form: Form = "text"
    echo: bool = True
    stats: bool = False
    alternatives: int = 0


@record
class Turn:
    """The prompt is a turn of a conversation; see chat.choose for the template's name."""

    system: str
    template: str


def load_model(settings: Settings, progress: Progress) -> tuple[Model, float]:
    """(the model of the settings, the seconds it took)."""
    started = time.perf_counter()
    if settings.speculation == "draft" and not settings.draft:
        raise FiresideError("--speculation draft needs a draft", "name a small model with --draft")
    model = load_from(chosen(settings), settings, progress)
    return model, time.perf_counter() - started


def new_session(model: Model, settings: Settings, progress: Progress) -> Session:
    """A session of the model, and the draft of the settings beside it."""
    draft = None
    if settings.draft and drafts(settings.speculation):
        if model.executor.name == "native":
            draft = load_from(resolve(settings.draft, settings), settings, progress)
        else:
            say("fireside: note: the draft is not used: only the native kernels guess")
    return model.session(settings.context, settings.speculation, draft)


def load_from(path: Path, settings: Settings, progress: Progress) -> Model:
    """The model at `path`, loaded as the settings say where there is room for it."""

    def show(done: int, total: int) -> None:
        progress.show(f"loading {path.name} {done / max(total, 1):4.0%}")

    model = load(
        path,
        quant=settings.quant,
        kernels=settings.kernels,
        threads=settings.threads,
        kv=settings.kv,
        tokenizer=Path(settings.tokenizer).expanduser() if settings.tokenizer else None,
        progress=show,
        admit=lambda need: require(path.name, needed(need, settings.context), available()),
        context=settings.context,
    )
    progress.clear()
    return model


@record
class Start:
    """All that a generation needs, ready."""

    model: Model
    session: Session
    seed: int
    asked: str | list[int]
    stop: tuple[str, ...]
    load_s: float


def begin(
    settings: Settings, prompt: str, turn: Turn | None, progress: Progress, guessing: bool = True
) -> Start:
    """Load the model, choose a seed where none is set, put the prompt as the model wants it."""
    if turn is not None:
        from fireside.engine import chat  # here and below: most stories are no conversations

        if turn.template not in ("", chat.OWN):
            chat.get(turn.template)  # a wrong name is told before anything is loaded
    seed = settings.sampling.seed
    seed = int.from_bytes(os.urandom(4)) if seed is None else seed
    model, load_s = load_model(settings, progress)
    if guessing:
        session = new_session(model, settings, progress)
    else:
        session = model.session(settings.context, "off")
    asked: str | list[int] = prompt
    stop = settings.stop
    if turn is not None:
        asked, stops = as_turn(model, prompt, turn)
        stop = (*stops, *stop)
    return Start(model, session, seed, asked, stop, load_s)


def tell(settings: Settings, prompt: str, output: Output, turn: Turn | None = None) -> int:
    """Write the story, or the answer where the prompt is a turn; the exit code."""
    out, progress = TextOut(), Progress()
    start = begin(settings, prompt, turn, progress)
    session = start.session
    shown = prompt if output.echo and turn is None else ""
    story = Story(start.model, shown, start.seed, start.load_s)
    presenter = PRESENTERS[output.form](out, story)
    events = session.generate(
        start.asked,
        changed(settings.sampling, seed=start.seed),
        max_tokens=settings.max_tokens,
        stop=start.stop,
        alternatives=output.alternatives,
        overflow=settings.overflow,
    )
    dropped = 0
    begun = False  # from the first word on, the terminal's line is the story's
    finished: Finished | None = None
    with WATCH.calling(session.abort) as watch:
        for event in events:
            if watch.caught:
                session.abort()  # again: generate() forgets an abort from before it began
            if isinstance(event, PrefillProgress):
                if not begun:
                    progress.show(f"reading {event.done:,} of {event.total:,} tokens")
            elif not begun and not isinstance(event, ContextSlid):
                progress.clear()
                begun = True
            if isinstance(event, ContextSlid):
                dropped = event.dropped
            elif isinstance(event, Finished):
                finished = event
            presenter.show(event)
    assert finished is not None  # a generation ends with it
    out.end_line()
    _say_what_is_missing(finished, dropped)
    if output.stats:
        say_statistics(story, finished)
    return exit_code(watch.caught) if watch.caught else 0


def as_turn(model: Model, prompt: str, turn: Turn) -> tuple[list[int], tuple[str, ...]]:
    """The ids of a conversation that begins with `prompt`, and the texts that end an answer."""
    from fireside.engine import chat

    template = chat.choose(model.tokenizer.vocabulary, turn.template)
    system = [chat.Message("system", turn.system)] if turn.system else []
    messages = [*system, chat.Message("user", prompt)]
    return chat.prompt(template, messages, model.tokenizer).ids(model.tokenizer), template.stops


def _say_what_is_missing(finished: Finished, dropped: int) -> None:
    size = finished.statistics.context_size
    if finished.reason == "context":
        say(
            f"fireside: note: the story ends here because the context of {size:,} tokens is full;"
            " --overflow slide goes on"
        )
    if dropped:
        say(
            f"fireside: note: the text outgrew the context of {size:,} tokens: {dropped:,} of its"
            " tokens, after the beginning, were no longer seen at the end"
        )


def say_statistics(story: Story, finished: Finished) -> None:
    """Three lines on stderr."""
    facts = story.facts(finished)
    times, counts = facts["timings"], finished.statistics
    reused = f", {counts.reused_tokens:,} from the cache" if counts.reused_tokens else ""
    threads = f", {facts['threads']} threads" if facts["threads"] else ""  # 0: NumPy decides
    say(
        f"{facts['model']}, quant {facts['quant']}, {facts['kernels']} kernels ({facts['isa']})"
        f"{threads}, seed {facts['seed']}"
    )
    say(
        f"load {times['load_s']:.2f} s;"
        f" prompt {counts.prefill_tokens:,} tokens{reused}, {counts.prefill_s:.2f} s,"
        f" {counts.prefill_tok_s:,.0f} tok/s;"
        f" text {counts.decode_tokens:,} tokens, {counts.decode_s:.2f} s,"
        f" {counts.decode_tok_s:,.0f} tok/s"
    )
    guessed = (
        f"; guessed ahead {counts.guessed_tokens:,}, {counts.accepted_tokens:,} of them right"
        if counts.guessed_tokens
        else ""
    )
    say(
        f"ended: {finished.reason}; context {counts.context_used:,} of {counts.context_size:,}"
        f" tokens{guessed}"
    )
