"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from fireside.engine.errors import CheckpointError, FiresideError


@contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[BinaryIO]:
    """A new file to write that takes the place of `path` when the block ends without an error.

    Until then, and after an error, `path` is what it was; a reader that has opened the old file
    keeps it. size: about how many bytes it will have. FiresideError where the disk has less left,
    CheckpointError where it does not let us.
    """
    check_space(path, size)
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        try:
            with part.open("xb") as file:
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
