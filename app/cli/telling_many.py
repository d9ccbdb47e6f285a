"""Several continuations of one prompt, told in step: `fireside write --count`."""

from __future__ import annotations

import json

from fireside.app.cli.interrupts import WATCH, exit_code
from fireside.app.cli.output import Progress, TextOut, say
from fireside.app.cli.presenters import Story
from fireside.app.cli.telling import Output, Turn, begin
from fireside.app.settings import Settings
from fireside.engine import Finished, PrefillProgress, Token
from fireside.engine.siblings import generate_many

BETWEEN = "\n\f\n"  # stories in a pipe: a line that holds a form feed


class Stories:
    """Shows stories one after another while all are told at once: later ones wait their turn."""

    def __init__(self, out: TextOut, seeds: list[int], prompt: str) -> None:
        self._out = out
        self._seeds = seeds
        self._waiting = [[prompt] for _ in seeds]
        self._ended = [False for _ in seeds]
        self._turn = -1
        self._next()

    def add(self, index: int, text: str, ended: bool) -> None:
        """More of a story."""
        self._waiting[index].append(text)
        self._ended[index] = ended
        while self._turn < len(self._seeds):
            if any(self._waiting[self._turn]):
                self._out.write("".join(self._waiting[self._turn]))
                self._waiting[self._turn] = []
            if not self._ended[self._turn]:
                return
            self._next()

    def _next(self) -> None:
        self._turn += 1
        if self._turn == len(self._seeds):
            return
        if self._out.is_terminal:
            self._out.end_line()
            say(("\n" if self._turn else "") + f"-- seed {self._seeds[self._turn]}")
        elif self._turn:
            self._out.write(BETWEEN)


def tell_many(
    settings: Settings, prompt: str, output: Output, count: int, turn: Turn | None = None
) -> int:
    """Write `count` stories with the seed of the settings and those after it; the exit code."""
    out, progress = TextOut(), Progress()
    start = begin(settings, prompt, turn, progress, guessing=False)
    if settings.draft:
        say("fireside: note: the draft is not used: with --count nothing is guessed ahead")
    seeds = [(start.seed + i) % 2**64 for i in range(count)]
    shown = prompt if output.echo and turn is None else ""
    stories = None if output.form == "json" else Stories(out, seeds, shown)
    texts = [[shown] for _ in seeds]
    ends: dict[int, Finished] = {}
    events = generate_many(
        start.session,
        start.asked,
        seeds,
        settings.sampling,
        max_tokens=settings.max_tokens,
        stop=start.stop,
        overflow=settings.overflow,
    )
    with WATCH.calling(start.session.abort) as watch:
        for tagged in events:
            if watch.caught:
                start.session.abort()  # again: generate_many() forgets one from before it began
            event = tagged.event
            if isinstance(event, PrefillProgress):
                progress.show(f"reading {event.done:,} of {event.total:,} tokens")
            elif isinstance(event, Token | Finished):
                progress.clear()
                texts[tagged.index].append(event.text)
                if isinstance(event, Finished):
                    ends[tagged.index] = event
                if stories:
                    stories.add(tagged.index, event.text, isinstance(event, Finished))
    if output.form == "json":
        facts = [
            Story(start.model, shown, seed, start.load_s).facts(ends[i])
            for i, seed in enumerate(seeds)
        ]
        objects = [{"text": "".join(text), **more} for text, more in zip(texts, facts, strict=True)]
        out.write(json.dumps(objects, ensure_ascii=False) + "\n")
    out.end_line()
    _say_the_end(list(ends.values()), output.stats)
    return exit_code(watch.caught) if watch.caught else 0


def _say_the_end(ends: list[Finished], stats: bool) -> None:
    full = sum(end.reason == "context" for end in ends)
    if full:
        say(
            f"fireside: note: {full} of {len(ends)} stories end because the context of"
            f" {ends[0].statistics.context_size:,} tokens is full; --overflow slide goes on"
        )
    if stats:
        tokens = sum(end.statistics.decode_tokens for end in ends)
        seconds = max(end.statistics.decode_s for end in ends)
        say(
            f"{len(ends)} stories: {tokens:,} tokens, {seconds:.2f} s,"
            f" {tokens / max(seconds, 1e-9):,.0f} tok/s together"
        )
