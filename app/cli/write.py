"""`fireside write`: a story on standard output, which holds the text and nothing else."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fireside.app.cli.failures import USAGE, CliError
from fireside.app.cli.options import (
    Sectioned,
    complete_files,
    option,
    read_settings,
    settings_options,
)
from fireside.app.cli.start import prepare

IO = "Prompt and output"
CHAT = "Conversation"


@click.command("write", cls=Sectioned)
@click.argument("prompt", nargs=-1)
@settings_options("Model", "Length", "Sampling")
@option(
    "--prompt-file",
    section=IO,
    metavar="FILE",
    shell_complete=complete_files,
    help="Read the prompt, or its beginning, from a file (UTF-8).",
)
@option("--no-echo", is_flag=True, section=IO, help="Leave the prompt out of the text.")
@option(
    "--json",
    "as_json",
    is_flag=True,
    section=IO,
    help="One JSON object at the end: text, ids, finish_reason, model, timings, ...",
)
@option(
    "--jsonl",
    "as_jsonl",
    is_flag=True,
    section=IO,
    help="A JSON object a line for every event, as it happens.",
)
@option(
    "--alternatives",
    type=click.IntRange(0, 100),
    default=0,
    metavar="N",
    section=IO,
    help="With --jsonl: the N likeliest tokens beside each chosen one.",
)
@option(
    "--count",
    type=click.IntRange(1, 64),
    default=1,
    metavar="N",
    section=IO,
    help="N stories (up to 64) with the seed, the seed + 1, ..., computed together. A line with a"
    " form feed between them; with --json a list.  [default: 1]",
)
@option("--stats", is_flag=True, section=IO, help="Speed and counts at the end, on stderr.")
@option(
    "--chat",
    "as_chat",
    is_flag=True,
    section=CHAT,
    help="The prompt is something said to the model, and the text its answer.",
)
@option("--system", metavar="TEXT", section=CHAT, help="With --chat: words that come before it.")
@option(
    "--template",
    metavar="NAME",
    section=CHAT,
    help="With --chat: how turns are written for the model (see fireside chat --help).",
)
@click.pass_context
def write(
    ctx: click.Context,
    /,
    prompt: tuple[str, ...],
    prompt_file: str | None,
    no_echo: bool,
    as_json: bool,
    as_jsonl: bool,
    alternatives: int,
    count: int,
    stats: bool,
    as_chat: bool,
    system: str | None,
    template: str | None,
    **flags: Any,
) -> int:
    """Write a story that begins with PROMPT to standard output.

    What is piped in is a prompt too. The parts are joined in this order: --prompt-file, standard
    input, PROMPT. One line break at the end of the file and of standard input is dropped, and a
    space is put between two parts where neither has white space there.

    Exit codes: 0 done, 1 failure, 2 wrong usage, 3 model missing or unreadable, 4 prompt too long
    for the context, 130 interrupted (what was written so far is out).

    Examples:
      fireside write "Once upon a time" -n 200
      fireside write --seed 7 -t 0.9 -p 0.95 "The dragon"    the same story every time
      echo "Long ago" | fireside write > story.txt
      fireside write --prompt-file draft.txt --no-echo >> draft.txt
      fireside write --chat "Tell me of a fox."              an answer instead
      fireside write --count 5 --seed 1 "One day"            five of them
      fireside write --json -n 50 "One day" | jq .timings.decode_tok_s
    """
    if as_json and as_jsonl:
        raise click.UsageError("choose --json or --jsonl, not both", ctx)
    if not as_chat and (system is not None or template is not None):
        raise click.UsageError("--system and --template need --chat", ctx)
    if as_jsonl and count > 1:
        raise click.UsageError("--count goes with --json, not with --jsonl", ctx)
    settings = read_settings(ctx, flags)
    text = gather(prompt_file, prompt)
    prepare(settings)
    from fireside.app.cli.telling import Form, Output, Turn, tell

    form: Form = "json" if as_json else "jsonl" if as_jsonl else "text"
    turn = Turn(system or "", template or settings.built_in_template) if as_chat else None
    output = Output(form, not no_echo, stats, alternatives)
    if count > 1:
        from fireside.app.cli.telling_many import tell_many

        return tell_many(settings, text, output, count, turn)
    return tell(settings, text, output, turn)


@dataclass(frozen=True)
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
