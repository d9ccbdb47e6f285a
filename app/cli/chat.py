"""`fireside chat`: a conversation line by line, for a pipe or a terminal without a screen."""

from __future__ import annotations

from typing import Any

import click

from fireside.app.cli.options import Sectioned, option, read_settings, settings_options
from fireside.app.cli.start import prepare


@click.command("chat", cls=Sectioned)
@settings_options("Model", "Length", "Sampling", without=["overflow"])
@option("--system", metavar="TEXT", section="Conversation", help="Words that come before it all.")
@option(
    "--template",
    metavar="NAME",
    section="Conversation",
    help="How turns are written for the model: its own template, or plain, llama2, llama3,"
    " chatml, mistral, gemma, phi3, zephyr, vicuna, alpaca."
    "  [default: the setting, else own]",
)
@click.pass_context
def chat(ctx: click.Context, /, system: str | None, template: str | None, **flags: Any) -> int:
    """Talk with a model, line by line.

    Every line you type is answered; a line that begins with / is a command (/help lists them).
    Ctrl-C ends an answer, Ctrl-D the conversation. Lines may be piped in: then only the answers
    are printed. An answer has at most --max-tokens tokens, or passage_tokens (200) where that
    is 0; when the context is full the beginning stays and the oldest turns after it are forgotten.

    Examples:
      fireside chat
      fireside chat --model llama-2-7b-chat.gguf --quant q4 --system "You are a storyteller."
      printf 'Who are you?\\n' | fireside chat --seed 1
    """
    settings = read_settings(ctx, flags)
    prepare(settings)
    from fireside.app.cli.conversation import Conversation

    return Conversation(settings, system or "", template or settings.built_in_template).run()
