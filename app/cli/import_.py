"""`fireside import`: a model on the disk into the models folder."""

from __future__ import annotations

from pathlib import Path

import click

from fireside.app.cli.failures import USAGE, CliError
from fireside.app.cli.interrupts import WATCH, exit_code
from fireside.app.cli.options import Sectioned, complete_files, option
from fireside.app.paths import Paths

HOW = "How"


class GivenUp(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """A signal came."""


@click.command("import", cls=Sectioned)
@click.argument("file", metavar="FILE", shell_complete=complete_files)
@option("--copy", "how", flag_value="copy", section=HOW, help="Copy it.")
@option(
    "--link",
    "how",
    flag_value="link",
    section=HOW,
    help="Refer to where it is (a symbolic link): it must stay there.",
)
@option("--name", metavar="NAME", section=HOW, help="What to call it.  [default: as it is called]")
@option("--force", is_flag=True, section=HOW, help="Take the place of one of that name.")
def import_(file: str, how: str | None, name: str | None, force: bool) -> int:
    """Put a model FILE, or a model's folder, into your models folder (see `fireside paths`).

    It is opened first: what Fireside cannot run stays out. On the same disk the file gets a second
    name there (a hard link), which takes no space and stays when the first one is deleted;
    otherwise it is copied. A tokenizer beside a model that carries none goes along, into a
    folder of theirs. The path is printed on standard output.

    Examples:
      fireside import ~/Downloads/llama-3.2-1b-q4_k_m.gguf
      fireside import stories15M.bin --copy
      fireside import /mnt/big/Llama-3.2-1B --link
    """
    from fireside.app.cli.output import Progress, say
    from fireside.app.importing import bring

    if name is not None and (Path(name).name != name or name.startswith(".")):
        raise CliError(f"{name!r} is no name for a file", "leave out / and dots before", USAGE)
    source = Path(file).expanduser()
    progress = Progress()

    def tell(done: int, total: int) -> None:
        if WATCH.caught:
            raise GivenUp
        progress.show(f"copying {source.name} {done / max(total, 1):4.0%}")

    with WATCH.calling(lambda: None):
        try:
            brought = bring(source, Paths.find().models_dir, how, name, force, tell)
        except GivenUp:
            progress.clear()
            say("fireside: note: given up; nothing was put there")
            return exit_code(WATCH.caught)
        finally:
            progress.clear()
    path = brought.path
    use = f"; use it with --model {path.name if path.is_dir() else path.stem}"
    say(f"{brought.word}{use}" if brought.word else f"{path} is there already")
    click.echo(str(path))
    return 0
