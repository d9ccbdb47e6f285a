"""A model file that is open: read where it is needed, never mapped.

Of a mapped file that somebody cuts short, the next look at a page ends the program with SIGBUS, and
every page looked at counts as the program's memory. Reading has neither trouble.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from fireside.engine import blocks
from fireside.engine.arrays import np
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.errors import CheckpointError
from fireside.engine.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHANGED_HINT = "leave it alone while it is loaded, and try again"


class Source:
    """An open file of `size` bytes; it is closed when nobody refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be opened: {error}") from None
        weakref.finalize(self, os.close, self.descriptor)
        self._state = self._look()
        self.size = self._state[0]

    def read(self, start: int, size: int) -> NDArray[np.uint8]:
        """`size` bytes from `start` on, read-only; CheckpointError where they are not there."""
        data = np.empty(size, np.uint8)
        self._read_into(memoryview(data.data), start)
        data.flags.writeable = False
        return data

    def read_bytes(self, start: int, size: int) -> memoryview:
        """The same, without NumPy."""
        try:
            data = os.pread(self.descriptor, size, start)
        except OSError as error:
            raise self.unreadable(error) from None
        if len(data) == size:
            return memoryview(data)
        view = memoryview(bytearray(size))  # a signal came between, or the file is cut short
        self._read_into(view, start)
        return view.toreadonly()

    def _read_into(self, view: memoryview, start: int) -> None:
        done = 0
        while done < len(view):
            try:
                got = os.preadv(self.descriptor, [view[done:]], start + done)
            except OSError as error:
                raise self.unreadable(error) from None
            if not got:
                raise self.changed()
            done += got

    def check(self) -> None:
        """CheckpointError where the file was written to since it was opened."""
        if self._look() != self._state:
            raise self.changed()

    def changed(self) -> CheckpointError:
        """What to raise where the file is not what it was."""
        return CheckpointError(f"{self.path}: the file changed while it was read", CHANGED_HINT)

    def unreadable(self, error: OSError) -> CheckpointError:
        """What to raise where the disk does not give the bytes."""
        return CheckpointError(f"{self.path}: cannot be read: {error.strerror or error}")

    def _look(self) -> tuple[int, int]:
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns


class FileTensor(Tensor):
    """A tensor that stays in its file: `data` reads it, anew each time."""

    source: Source
    start: int

    def __init__(
        self, name: str, shape: tuple[int, ...], block: str, source: Source, start: int
    ) -> None:
        # the base is frozen, and its `data` is the property below
        vars(self).update(name=name, shape=shape, block=block, source=source, start=start)

    @property
    def data(self) -> blocks.Bytes:
        """Its bytes as the file has them; CheckpointError where they cannot be read."""
        return self.source.read(self.start, self.nbytes)
