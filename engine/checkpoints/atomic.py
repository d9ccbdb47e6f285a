"""Files that are there whole or not at all."""

from __future__ import annotations

import importlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from fireside.engine.errors import CheckpointError, FiresideError

fcntl: Any = None
with suppress(ImportError):  # not a Unix: what a killed program left stays
    fcntl = importlib.import_module("fcntl")

FLUSHED_EVERY = 0.25  # seconds


@contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[BinaryIO]:
    """A new file to write that takes the place of `path` when the block ends without an error.

    Until then, and after an error, `path` is what it was; a reader that has opened the old file
    keeps it. What a program that was killed had written of `path` is removed. size: about how many
    bytes it will have. FiresideError where the disk has less left, CheckpointError where it does
    not let us.
    """
    try:
        remove_left(path)
        check_space(path, size)
        part, file = begin(path)
        try:
            with file:
                with flushing(file):
                    yield file
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
        finally:
            with suppress(OSError):  # after the replacement there is nothing to remove
                part.unlink()
        _sync_folder(path.parent)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{path}: cannot be written: {reason}", "check the folder, its permissions and space"
        ) from error


def is_ours(path: Path, file: BinaryIO) -> bool:
    """Lock the open `file`, which is that of `path`.

    False where somebody else has it locked, or has put another there meanwhile. Where files cannot
    be locked nobody has.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return True  # not every file system has locks
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


def begin(path: Path) -> tuple[Path, BinaryIO]:
    """A new hidden file beside `path`, locked for as long as it is open."""
    while True:
        part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.unfinished")
        file = part.open("xb")
        if is_ours(part, file):
            return part, file
        file.close()  # somebody takes it for one that was left


def remove_left(path: Path) -> None:
    """Remove the beginnings of `path` that nobody writes any more: their lock is free."""
    if fcntl is None:
        return
    ours = re.compile(rf"\.{re.escape(path.name[:100])}\.[0-9a-f]{{8}}\.unfinished")
    for left in path.parent.iterdir():
        if ours.fullmatch(left.name):
            with suppress(OSError), left.open("rb") as file:
                if is_ours(left, file):
                    left.unlink()


@contextmanager
def flushing(file: BinaryIO) -> Iterator[None]:
    """Meanwhile what is written goes on to the disk, rather than all of it at the end."""
    done = threading.Event()
    sync = getattr(os, "fdatasync", os.fsync)

    def flush() -> None:
        while not done.wait(FLUSHED_EVERY):
            sync(file.fileno())

    with ThreadPoolExecutor(1, "flush") as pool:
        flushed = pool.submit(flush)
        try:
            yield
        finally:
            done.set()
        flushed.result()


def check_space(path: Path, size: int) -> None:
    """FiresideError where the disk that `path` is to lie on has less than `size` bytes left."""
    try:
        free = shutil.disk_usage(path.parent).free
    except OSError:
        return  # writing will tell what is wrong
    if free < size:
        raise FiresideError(
            f"{path}: {size / 1e9:,.2f} GB are to be written, and {free / 1e9:,.2f} GB are free",
            "make room, or choose another disk or a smaller type",
        )


def _sync_folder(folder: Path) -> None:
    """Make the new name last too; not every file system offers that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
