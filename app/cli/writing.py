"""What `fireside write` does: a story on standard output, which holds the text and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from fireside.app.cli.failures import USAGE, CliError
from fireside.app.cli.flags import Flag, read, settings_flags
from fireside.app.cli.start import prepare
from fireside.app.settings import load
from fireside.engine.hints import Any
from fireside.engine.records import record

IO = "Prompt and output"
CHAT = "Conversation"

OWN = (
    Flag(
        "prompt_file",
        ("--prompt-file",),
        "text",
        IO,
        "Read the prompt, or its beginning, from a file (UTF-8).",
        metavar="FILE",
        completed="files",
    ),
    Flag("no_echo", ("--no-echo",), "switch", IO, "Leave the prompt out of the text."),
    Flag(
        "as_json",
        ("--json",),
        "switch",
        IO,
        "One JSON object at the end: text, ids, finish_reason, model, timings, ...",
    ),
    Flag(
        "as_jsonl",
        ("--jsonl",),
        "switch",
        IO,
        "A JSON object a line for every event, as it happens.",
    ),
    Flag(
        "alternatives",
        ("--alternatives",),
        "integer",
        IO,
        "With --jsonl: the N likeliest tokens beside each chosen one.",
        metavar="N",
        within=(0, 100),
        default=0,
    ),
    Flag(
        "count",
        ("--count",),
        "integer",
        IO,
        "N stories (up to 64) with the seed, the seed + 1, ..., computed together. A line with a"
        " form feed between them; with --json a list.  [default: 1]",
        metavar="N",
        within=(1, 64),
        default=1,
    ),
    Flag("stats", ("--stats",), "switch", IO, "Speed and counts at the end, on stderr."),
    Flag(
        "as_chat",
        ("--chat",),
        "switch",
        CHAT,
        "The prompt is something said to the model, and the text its answer.",
    ),
    Flag(
        "system",
        ("--system",),
        "text",
        CHAT,
        "With --chat: words that come before it.",
        metavar="TEXT",
    ),
    Flag(
        "template",
        ("--template",),
        "text",
        CHAT,
        "With --chat: how turns are written for the model (see fireside chat --help).",
        metavar="NAME",
    ),
)
FLAGS = (*settings_flags(["Model", "Length", "Sampling"]), *OWN)


def quickly(arguments: list[str]) -> int | None:
    """Do what plain `arguments` say; None where click must look at them."""
    found = read(arguments, FLAGS)
    return None if found is None else run(found[1], found[0], {})


def run(prompt: tuple[str, ...], values: Mapping[str, Any], before: Mapping[str, Any]) -> int:
    """Write the story; the exit code. values: of all FLAGS; before: flags before the command."""
    own = {flag.name: values[flag.name] for flag in OWN}
    _check(own)
    flags = {k: v for k, v in values.items() if k not in own and v is not None and v != ()}
    settings = load({**before, **flags})
    text = gather(own["prompt_file"], prompt)
    prepare(settings)
    from fireside.app.cli.telling import Form, Output, Turn, tell

    form: Form = "json" if own["as_json"] else "jsonl" if own["as_jsonl"] else "text"
    template = own["template"] or settings.built_in_template
    turn = Turn(own["system"] or "", template) if own["as_chat"] else None
    output = Output(form, not own["no_echo"], own["stats"], own["alternatives"])
    if own["count"] > 1:
        from fireside.app.cli.telling_many import tell_many

        return tell_many(settings, text, output, own["count"], turn)
    return tell(settings, text, output, turn)


def _check(own: Mapping[str, Any]) -> None:
    """CliError for flags that do not go together."""
    wrong = ""
    if own["as_json"] and own["as_jsonl"]:
        wrong = "choose --json or --jsonl, not both"
    elif not own["as_chat"] and (own["system"] is not None or own["template"] is not None):
        wrong = "--system and --template need --chat"
    elif own["as_jsonl"] and own["count"] > 1:
        wrong = "--count goes with --json, not with --jsonl"
    if wrong:
        raise CliError(wrong, "see fireside write --help", USAGE)


@record
class Part:
    """A piece of the prompt and where it came from."""

    where: str
    data: bytes

    def text(self) -> str:
        """Decoded; a byte order mark and one line break at the end left out."""
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CliError(
                f"{self.where}: not valid UTF-8 at byte {error.start}"
                f" (0x{self.data[error.start]:02x})",
                "convert it first, for instance with iconv",
                USAGE,
            ) from None
        text = text.removeprefix("\ufeff")
        return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def gather(prompt_file: str | None, words: tuple[str, ...]) -> str:
    """The prompt: file, standard input and arguments, joined."""
    texts = []
    if prompt_file is not None:
        try:
            texts.append(Part(prompt_file, Path(prompt_file).read_bytes()).text())
        except OSError as error:
            message = f"{prompt_file}: cannot be read: {error.strerror or error}"
            raise CliError(message, code=USAGE) from None
    if sys.stdin is not None and not sys.stdin.isatty():
        texts.append(Part("standard input", sys.stdin.buffer.read()).text())
    # what was not UTF-8 in the arguments has been put into surrogates by Python
    argument = " ".join(words).encode("utf-8", "surrogateescape")
    texts.append(Part("the prompt", argument).text() if argument else "")
    return join(texts)


def join(texts: list[str]) -> str:
    """The texts one after another, a space between two that no white space parts."""
    joined = ""
    for text in filter(None, texts):
        apart = not joined or joined[-1].isspace() or text[0].isspace()
        joined += text if apart else " " + text
    return joined
