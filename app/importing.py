"""A model that is on the disk already, into the models folder: `fireside import` and the picker."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fireside.engine import FiresideError, open_checkpoint
from fireside.engine.model import find_vocabulary

PIECE = 1 << 22
TOKENIZERS = ("tokenizer.bin", "tokenizer.model", "tokenizer.json")
Tell = Callable[[int, int], None]


@dataclass(frozen=True)
class Brought:
    """Where the model is now, and how it came there: "" where it was there already."""

    path: Path
    word: str  # "linked", "hard-linked", "copied"


def bring(
    source: Path, models: Path, how: str | None, name: str | None, force: bool, tell: Tell
) -> Brought:
    """Put a model's file or folder into the folder `models`, with the tokenizer beside it.

    how: "copy", "link", or None: a hard link, else a copy. name: what to call it, if not as it is
    called. force: in place of another of that name. tell(bytes copied, in all) may raise to give
    up: then nothing is there. FiresideError says what is in the way.
    """
    checkpoint = open_checkpoint(source)  # what cannot run stays out
    find_vocabulary(checkpoint, None)
    source = source.resolve()
    called = name or source.name
    if Path(called).name != called or called.startswith("."):
        raise FiresideError(f"{called!r} is no name for a file", "leave out / and dots before")
    wanted = [(source, models / called)]
    if not source.is_dir() and checkpoint.vocabulary is None:
        beside = next(p for n in TOKENIZERS if (p := source.with_name(n)).is_file())
        folder = models / Path(called).stem
        wanted = [(source, folder / called), (beside, folder / beside.name)]
    target = wanted[0][1]
    if target.exists() or target.is_symlink():
        if target.exists() and target.samefile(source):
            return Brought(target, "")
        if not force:
            raise FiresideError(f"{target} is there already", "--name or --force")
    target.parent.mkdir(parents=True, exist_ok=True)
    words = [place(path, to, how, tell) for path, to in wanted]
    return Brought(target, words[0])


def place(source: Path, target: Path, how: str | None, tell: Tell) -> str:
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
            copy(source, part, tell)
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


def copy(source: Path, target: Path, tell: Tell) -> None:
    """Copy, down to the disk."""
    files = files_of(source)
    total = sum((source / below).stat().st_size for below in files)
    free = shutil.disk_usage(target.parent).free
    if free < total:
        raise FiresideError(
            f"{source.name} takes {total / 1e9:,.2f} GB, and {free / 1e9:,.2f} GB are free",
            "make room, or use --link",
        )
    done = 0
    for below in files:
        (target / below).parent.mkdir(parents=True, exist_ok=True)
        with (source / below).open("rb") as old, (target / below).open("wb") as new:
            while data := old.read(PIECE):
                new.write(data)
                done += len(data)
                tell(done, total)
            new.flush()
            os.fsync(new.fileno())


def remove(path: Path) -> None:
    """Take away a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
