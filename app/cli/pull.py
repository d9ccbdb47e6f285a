"""`fireside pull`: a model from the Hugging Face hub into the models folder."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fireside.app.cli.failures import FAILURE, USAGE, CliError
from fireside.app.cli.interrupts import WATCH, exit_code
from fireside.app.cli.options import Sectioned, option
from fireside.app.paths import Paths

if TYPE_CHECKING:
    from fireside.app.hub import Choice, Repository

WHAT = "What to get"


class GivenUp(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """A signal came."""


@click.command("pull", cls=Sectioned)
@click.argument("model", metavar="OWNER/NAME[:FILE]")
@option("--list", "only_list", is_flag=True, section=WHAT, help="Only list what there is.")
@option(
    "--revision", metavar="NAME", section=WHAT, help="A branch, tag or commit.  [default: main]"
)
@option("--force", is_flag=True, section=WHAT, help="Write over another file of the same name.")
@option("--json", "as_json", is_flag=True, section="Output", help="With --list: a JSON list.")
@click.pass_context
def pull(
    ctx: click.Context,
    /,
    model: str,
    only_list: bool,
    revision: str | None,
    force: bool,
    as_json: bool,
) -> int:
    """Get a model from the Hugging Face hub into your models folder.

    FILE is a file of the repository or a type (Q8_0). Without it a terminal asks; elsewhere
    Q4_K_M is taken, then Q8_0, else another common type, else the smallest. A repository without
    GGUF files is got as a folder: safetensors, configuration and tokenizer; so is a model that
    was cut into several GGUF files.

    The path is printed on standard output. What was cut short is continued by the same command;
    checksums are those of the hub. It needs the package huggingface_hub, and takes HF_TOKEN (for
    private and gated models), HF_ENDPOINT, HF_HUB_OFFLINE and HTTPS_PROXY from the environment.
    Exit codes: 0 done, 1 not got, 2 wrong usage, 3 got, but Fireside cannot run it.

    Examples:
      fireside pull OWNER/NAME --list
      fireside pull OWNER/NAME:Q8_0
      fireside --model "$(fireside pull OWNER/NAME)"
    """
    if as_json and not only_list:
        raise click.UsageError("--json goes with --list", ctx)
    from fireside.app import hub

    try:
        name, wanted = hub.parse(model)
    except hub.HubError as error:
        raise CliError(error.message, error.hint, USAGE) from None
    repository = hub.look_up(name, revision)
    found = hub.choices(repository)
    if only_list:
        show(found, as_json)
        return 0
    if not found:
        raise CliError(
            f"{name} has no GGUF file and no safetensors that Fireside could run",
            "look for a repository with GGUF in its name",
            FAILURE,
        )
    if wanted:
        choice = hub.pick(found, wanted, name)
    elif len(found) > 1 and sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        choice = ask(found)
    else:
        choice = hub.default(found)
    return get(repository, choice, force)


def rows(found: list[Choice]) -> list[list[str]]:
    """Name, type and size of each."""
    from fireside.app.cli.output import size, visible
    from fireside.app.hub import type_of

    return [[visible(c.label), type_of(c) or "-", size(c.size)] for c in found]


def show(found: list[Choice], as_json: bool) -> None:
    """All of them on standard output."""
    from fireside.app.cli.output import table
    from fireside.app.hub import type_of

    if as_json:
        plain = [
            {
                "name": c.label,
                "type": type_of(c),
                "bytes": c.size,
                "files": [f.name for f in c.files],
            }
            for c in found
        ]
        click.echo(json.dumps(plain, indent=2))
    else:
        click.echo(table(["FILE", "TYPE", "SIZE"], rows(found), right={2}))


def ask(found: list[Choice]) -> Choice:
    """The one that a person at the terminal chooses."""
    from fireside.app.cli.output import say, table
    from fireside.app.hub import default

    usual = found.index(default(found)) + 1
    numbered = [[str(i), *row] for i, row in enumerate(rows(found), 1)]
    say(table(["", "FILE", "TYPE", "SIZE"], numbered, right={0, 3}))
    answer = click.prompt("Which one", default=usual, type=click.IntRange(1, len(found)), err=True)
    return found[int(answer) - 1]


def get(repository: Repository, choice: Choice, force: bool) -> int:
    """Get the files of a choice; the exit code."""
    from fireside.app import hub
    from fireside.app.cli.output import Progress, say, size
    from fireside.engine import open_checkpoint

    name = choice.folder or Path(choice.label).name
    progress = Progress()
    started, first = time.perf_counter(), [-1]

    def looking(file: str) -> None:
        progress.show(f"looking at {file}")

    def tell(done: int, total: int) -> None:
        if WATCH.caught:
            raise GivenUp
        if first[0] < 0:
            first[0] = done
        rate = (done - first[0]) / max(time.perf_counter() - started, 1e-3)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 else ""
        progress.show(f"{name}: {size(done)} of {size(total)}, {size(round(rate))}/s{left}")

    with WATCH.calling(lambda: None):
        try:
            models = Paths.find().models_dir
            model, came = hub.get(repository, choice, models, force, looking, tell)
        except GivenUp:
            progress.clear()
            say("fireside: note: given up; the same command goes on from here")
            return exit_code(WATCH.caught)
        finally:
            progress.clear()
    if not came:
        say(f"{model} is there already, and is what the hub has")
    click.echo(str(model))
    open_checkpoint(model)  # what is wrong with it is told, exit code 3
    say(f"use it with --model {model.name if model.is_dir() else model.stem}")
    return 0
