"""The three forms of a story on stdout: text, one JSON object, a JSON object a line."""

from __future__ import annotations

from fireside.app.cli.output import TextOut
from fireside.engine import ContextSlid, Event, Finished, Model, PrefillProgress, Token
from fireside.engine.hints import Any, Protocol
from fireside.engine.records import record


@record
class Story:
    """What all forms know of it: the model, the prompt (empty where it is not shown), the seed."""

    model: Model
    prompt: str
    seed: int
    load_s: float

    def setup(self) -> dict[str, Any]:
        """Which model, and on what it runs."""
        executor = self.model.executor
        return {
            "model": self.model.name,
            "quant": self.model.quant,
            "kernels": executor.name,
            "isa": executor.isa,
            "threads": executor.threads,
            "seed": self.seed,
        }

    def facts(self, finished: Finished) -> dict[str, Any]:
        """Everything of --json but the text."""
        s = finished.statistics
        return {
            "ids": list(finished.ids),
            "finish_reason": finished.reason,
            **self.setup(),
            "timings": {
                "load_s": round(self.load_s, 6),
                "prefill_tokens": s.prefill_tokens,
                "prefill_s": round(s.prefill_s, 6),
                "prefill_tok_s": round(s.prefill_tok_s, 3),
                "decode_tokens": s.decode_tokens,
                "decode_s": round(s.decode_s, 6),
                "decode_tok_s": round(s.decode_tok_s, 3),
                "guessed_tokens": s.guessed_tokens,
                "accepted_tokens": s.accepted_tokens,
            },
        }


class Presenter(Protocol):
    """Shows a story's events on stdout."""

    def show(self, event: Event) -> None:
        """Show one."""
        ...


class PlainText:
    """The text as it comes. The prompt waits for the first word, so that no progress line,
    which shares the terminal, ever stands in the middle of it."""

    def __init__(self, out: TextOut, story: Story) -> None:
        self.out = out
        self.prompt = story.prompt

    def show(self, event: Event) -> None:
        """Write its text."""
        if isinstance(event, Token | Finished):
            self.out.write(self.prompt + event.text)
            self.prompt = ""


class OneObject:
    """One JSON object at the end."""

    def __init__(self, out: TextOut, story: Story) -> None:
        self.out = out
        self.story = story
        self.texts = [story.prompt]

    def show(self, event: Event) -> None:
        """Collect its text; write all with the last."""
        if isinstance(event, Token | Finished):
            self.texts.append(event.text)
        if isinstance(event, Finished):
            text = "".join(self.texts)
            _write_line(self.out, {"text": text, **self.story.facts(event)})


class EveryEvent:
    """A JSON object a line: start, prefill, slid, token, finished."""

    def __init__(self, out: TextOut, story: Story) -> None:
        self.out = out
        self.story = story
        self.begun = False

    def show(self, event: Event) -> None:
        """Write it."""
        if not self.begun:
            self.begun = True
            beginning = {"prompt": self.story.prompt, **self.story.setup()}
            self._line("start", {**beginning, "load_s": round(self.story.load_s, 6)})
        if isinstance(event, PrefillProgress):
            self._line("prefill", vars(event))
        elif isinstance(event, ContextSlid):
            self._line("slid", vars(event))
        elif isinstance(event, Token):
            self._token(event)
        else:
            self._line("finished", {"text": event.text, **self.story.facts(event)})

    def _token(self, event: Token) -> None:
        values = dict(vars(event))
        values["alternatives"] = [vars(one) for one in event.alternatives]
        if not event.alternatives:
            del values["alternatives"]
        self._line("token", values)

    def _line(self, name: str, values: dict[str, Any]) -> None:
        _write_line(self.out, {"event": name, **values})


def _write_line(out: TextOut, values: dict[str, Any]) -> None:
    import json  # a story is told as text, as a rule

    out.write(json.dumps(values, ensure_ascii=False) + "\n")


PRESENTERS: dict[str, type[PlainText] | type[OneObject] | type[EveryEvent]] = {
    "text": PlainText,
    "json": OneObject,
    "jsonl": EveryEvent,
}
