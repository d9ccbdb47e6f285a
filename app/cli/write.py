"""`fireside write` for click: its help, its mistakes, and what writing.py does not read itself."""

from __future__ import annotations

from typing import Any

import click

from fireside.app.cli.options import Sectioned, options
from fireside.app.cli.writing import FLAGS, run


@click.command("write", cls=Sectioned)
@click.argument("prompt", nargs=-1)
@options(FLAGS)
@click.pass_context
def write(ctx: click.Context, /, prompt: tuple[str, ...], **values: Any) -> int:
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
    return run(prompt, values, ctx.obj or {})
