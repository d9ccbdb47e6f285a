"""`fireside completion`: the script that completes commands, flags and model names in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from fireside.app.cli.options import Sectioned


@click.command("completion", cls=Sectioned)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print a completion script for SHELL: commands, flags, values and names of models.

    Add the line for your shell to its start-up file, or run it once to try.

    Examples:
      eval "$(fireside completion bash)"                                      in ~/.bashrc
      eval "$(fireside completion zsh)"                                       in ~/.zshrc
      fireside completion fish > ~/.config/fish/completions/fireside.fish     once
    """
    from fireside.app.cli.failures import COMPLETION_VARIABLE

    root = ctx.find_root().command
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    click.echo(kind(root, {}, "fireside", COMPLETION_VARIABLE).source())
    return 0
