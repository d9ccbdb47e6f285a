"""The `fireside` command: alone it opens the terminal application; its subcommands are lazy."""

from __future__ import annotations

import importlib
import keyword
import sys
from typing import Any

import click

from fireside.app.cli.failures import USAGE, CliError
from fireside.app.cli.interrupts import WATCH
from fireside.app.cli.options import Sectioned, option, read_settings, settings_options

COMMANDS = {  # name -> what it does; module and function bear the name (import_ for import)
    "write": "Write a story to standard output.",
    "chat": "Talk with a model, line by line.",
    "models": "List the models there are.",
    "inspect": "Tell what a model file holds.",
    "bench": "Measure tokens a second.",
    "perplexity": "Measure how well a model foretells a text.",
    "convert": "Write a model as GGUF or for llama2.c, quantised if you like.",
    "pull": "Get a model from the Hugging Face hub.",
    "import": "Put a model on the disk into your models folder.",
    "paths": "Show where Fireside keeps things.",
    "completion": "Print a completion script for your shell.",
}


class Root(Sectioned, click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        name = f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name
        module = importlib.import_module(f"fireside.app.cli.{name}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As usual; words that are no command are taken for a story that lacks `write`."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = (
                f"did you mean {close[0]}?"
                if close
                else f'to write from it: fireside write "{args[0]}"'
            )
            raise CliError(f"no command {args[0]!r}", hint, USAGE)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands first, without importing them; then options."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        Sectioned.format_options(self, ctx, formatter)


def show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    """--version: the version, and what computes here."""
    if not value or ctx.resilient_parsing:
        return
    from fireside.app.cli.version import version_text

    click.echo(version_text())
    ctx.exit()


@click.command(
    "fireside",
    cls=Root,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    subcommand_metavar="[COMMAND] ...",
)
@settings_options("Model", "Terminal application", without=["overflow"])
@option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=show_version,
    help="Show the version and the kernels in use, and exit.",
)
@click.pass_context
def fireside(ctx: click.Context, /, **flags: Any) -> int:
    """Write and read stories with a language model that runs on your own CPU.

    Without a command the terminal application opens. Every option may also be set in the
    environment (FIRESIDE_MODEL, FIRESIDE_QUANT, ...) or in config.toml, which `fireside paths`
    shows; flags come first, then the environment, then the file.

    Examples:
      fireside                                     open the terminal application
      fireside --model stories.gguf --quant q8     the same, with another model
      fireside write "Once upon a time"            a story on standard output
      fireside write --help                        everything about that
    """
    ctx.obj = {k: v for k, v in flags.items() if v is not None}
    if ctx.invoked_subcommand is not None:
        return 0
    if not _is_terminal():
        raise CliError(
            "the terminal application needs a terminal",
            'to write to a pipe or a file: fireside write "Once upon a time"',
            USAGE,
        )
    settings = read_settings(ctx, {})
    from fireside.app.tui.app import run

    WATCH.stop()  # the application sees to signals itself
    return int(run(settings))


def _is_terminal() -> bool:
    streams = (sys.stdin, sys.stdout, sys.stderr)  # Textual draws on the last
    return all(stream is not None and stream.isatty() for stream in streams)
