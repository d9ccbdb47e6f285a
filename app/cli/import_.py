"""`fireside import`: a model on the disk into the models folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import click

from fireside.app.cli.failures import FAILURE, CliError
from fireside.app.cli.interrupts import WATCH, exit_code
from fireside.app.cli.options import Sectioned, complete_files, option
from fireside.app.settings import Paths

HOW = "How"
PIECE = 1 << 22
TOKENIZERS = ("tokenizer.bin", "tokenizer.model", "tokenizer.json")


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
    from fireside.app.cli.output import say
    from fireside.engine import open_checkpoint
    from fireside.engine.model import find_vocabulary

    source = Path(file).expanduser()
    checkpoint = open_checkpoint(source)
    find_vocabulary(checkpoint, None)
    source = source.resolve()
    called = name or source.name
    if Path(called).name != called or called.startswith("."):
        raise CliError(f"{called!r} is no name for a file", "leave out / and dots before", 2)
    models = Paths.find().models_dir
    wanted = [(source, models / called)]
    if not source.is_dir() and checkpoint.vocabulary is None:
        beside = next(p for n in TOKENIZERS if (p := source.with_name(n)).is_file())
        folder = models / Path(called).stem
        wanted = [(source, folder / called), (beside, folder / beside.name)]
    target = wanted[0][1]
    if target.exists() or target.is_symlink():
        if target.exists() and target.samefile(source):
            say(f"{target} is there already")
            click.echo(str(target))
            return 0
        if not force:
            raise CliError(f"{target} is there already", "--name or --force", FAILURE)
    target.parent.mkdir(parents=True, exist_ok=True)
    with WATCH.calling(lambda: None):
        try:
            done = {place(path, to, how) for path, to in wanted}
        except GivenUp:
            say("fireside: note: given up; nothing was put there")
            return exit_code(WATCH.caught)
    say(f"{done.pop()}; use it with --model {target.name if source.is_dir() else target.stem}")
    click.echo(str(target))
    return 0


def place(source: Path, target: Path, how: str | None) -> str:
    """Put one file or folder there; in a word, how."""
    part = target.with_name(f".{target.name[:150]}.part")
    remove(part)
    try:
        if how == "link":
            part.symlink_to(source)
            word = "linked"
        elif how is None and all(hard_linked(source, part)):
            word = "hard-linked"
        else:
            remove(part)
            copy(source, part)
            word = "copied"
        if target.is_dir() and not target.is_symlink():
            remove(target)
        part.replace(target)
    finally:
        remove(part)
    return word


def files_of(source: Path) -> list[Path]:
    """The file, or those of a folder, hidden ones left out; paths below it."""
    if not source.is_dir():
        return [Path()]
    found = (p.relative_to(source) for p in sorted(source.rglob("*")) if p.is_file())
    return [p for p in found if not any(part.startswith(".") for part in p.parts)]


def hard_linked(source: Path, target: Path) -> list[bool]:
    """Give every file a second name; whether that went for each (it stops at the first)."""
    done: list[bool] = []
    for below in files_of(source):
        (target / below).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link((source / below).resolve(), target / below)
        except OSError:
            return [*done, False]
        done.append(True)
    return done


def copy(source: Path, target: Path) -> None:
    """Copy, with progress; GivenUp where a signal came."""
    from fireside.app.cli.output import Progress, size

    progress = Progress()
    files = files_of(source)
    total = sum((source / below).stat().st_size for below in files)
    free = shutil.disk_usage(target.parent).free
    if free < total:
        raise CliError(
            f"{source.name} takes {size(total)}, and {size(free)} are free",
            "make room, or use --link",
            FAILURE,
        )
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if WATCH.caught:
            raise GivenUp
        progress.show(f"copying {source.name} {done / max(total, 1):4.0%}")

    try:
        for below in files:
            (target / below).parent.mkdir(parents=True, exist_ok=True)
            copy_file(source / below, target / below, tell)
    finally:
        progress.clear()


def copy_file(source: Path, target: Path, tell: Callable[[int], None]) -> None:
    """One file, down to the disk."""
    with source.open("rb") as old, target.open("wb") as new:
        while data := old.read(PIECE):
            new.write(data)
            tell(len(data))
        new.flush()
        os.fsync(new.fileno())


def remove(path: Path) -> None:
    """Take away a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
