"""Arrays of strings in GGUF's header: a vocabulary has some 100,000, a text asks for few."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fireside.engine.errors import CheckpointError
from fireside.engine.executors import native_library
from fireside.engine.hints import overload


class StringArray(Sequence[str]):
    """The strings of an array, decoded when asked for."""

    def __init__(
        self, key: str, where: Path, view: memoryview, ends: Sequence[int], first: int
    ) -> None:
        self._key, self._where, self._view = key, where, view
        self._ends, self._first = ends, first

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """String `index`; CheckpointError where it is not UTF-8."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        start = (self._ends[i - 1] if i else self._first) + 8
        return self._decode(i, start, self._ends[i])

    def __iter__(self) -> Iterator[str]:
        joined = self._joined()
        try:
            if joined is not None:
                return iter(str(joined, "utf-8").split("\0")[:-1])
        except UnicodeDecodeError:
            pass  # one by one: which says where
        return iter(self[:])

    def _joined(self) -> bytearray | None:
        """All strings, a zero byte behind each; None where one has such a byte, or without C."""
        ffi, lib, _ = native_library.load()
        count = len(self)
        if lib is None or not count:
            return None
        joined = bytearray(self._ends[-1] - self._first - 7 * count)
        ends, out = ffi.from_buffer("int64_t[]", self._ends), ffi.from_buffer("uint8_t[]", joined)
        data = ffi.from_buffer("uint8_t[]", self._view)
        status = lib.fs_strings_join(data, self._first, count, ends, out)
        return None if status else joined

    def check(self) -> bool:
        """Whether C can find one among them: it is there, and none holds a zero byte.

        CheckpointError where one is not UTF-8.
        """
        joined = self._joined()
        try:
            str(joined or b"", "utf-8")
        except UnicodeDecodeError:
            joined = None
        if joined is None:
            self[:]  # one by one: which says where it is not UTF-8
        return joined is not None

    def finder(self) -> Callable[[str], int | None] | None:
        """A function that finds the first index of a text; None where `check` says no.

        It is made sooner than a dict of all strings, which would look up faster.
        """
        if not self.check():
            return None
        ffi, lib, _ = native_library.load()
        count = len(self)
        size = 1 << (2 * count).bit_length()
        slots = ffi.new_allocator(should_clear_after_alloc=False)("int32_t[]", size)
        view, ends, first = self._view, self._ends, self._first
        buffer = ffi.from_buffer
        lib.fs_strings_index(
            buffer("uint8_t[]", view), first, count, buffer("int64_t[]", ends), slots, size
        )

        def find(text: str) -> int | None:
            # buffers are not kept: Python 3.11 dies of a memoryview in a cycle that has one
            data, places, key = buffer("uint8_t[]", view), buffer("int64_t[]", ends), text.encode()
            at = int(lib.fs_strings_find(data, first, places, slots, size, key, len(key)))
            return at if at >= 0 else None

        return find

    def pieces(self) -> Sequence[str]:
        """All of them, as a tuple or what passes for one. CheckpointError as `check`."""
        find = self.finder()
        return tuple(self) if find is None else Pieces(self, find)

    def _decode(self, i: int, start: int, end: int) -> str:
        try:
            return str(self._view[start:end], "utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(
                f"{self._where}: {self._key}[{i}] is not valid UTF-8", "the file is damaged"
            ) from None


class Pieces(Sequence[str]):
    """The strings of a vocabulary: a tuple that is not made, for a short story asks for few.

    To make it takes as long as all else there is to a header, and a dict of it twice that.
    """

    def __init__(self, strings: StringArray, find: Callable[[str], int | None]) -> None:
        self._strings = strings
        self.find = find  # the first index of a text, or None; of many a dict is quicker

    def __len__(self) -> int:
        return len(self._strings)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        found = self._strings[index]
        return found if isinstance(found, str) else tuple(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._strings)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pieces | tuple):
            return NotImplemented
        return tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


def string_ends(view: memoryview, first: int, count: int) -> Sequence[int] | None:
    """Where each of `count` strings ends that begin at `first`; None: not all lie in `view`."""
    ffi, lib, _ = native_library.load()
    ends = memoryview(bytearray(8 * count)).cast("q")
    if lib is not None:
        data, out = ffi.from_buffer("uint8_t[]", view), ffi.from_buffer("int64_t[]", ends)
        return None if lib.fs_strings_ends(data, len(view), first, count, out) else ends
    length_at = struct.Struct("<Q").unpack_from
    position = first
    for i in range(count):
        if position + 8 > len(view):
            return None
        position += 8 + length_at(view, position)[0]
        if position > len(view):
            return None
        ends[i] = position
    return ends
