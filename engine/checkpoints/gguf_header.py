"""GGUF's header: metadata and the table of tensors. (ggml, docs/gguf.md)

    magic "GGUF", version u32, tensors u64, metadata entries u64
    entries: key, type u32, value        strings: length u64, UTF-8
    tensors: name, dimensions u32, their sizes u64 (fastest first), type u32, offset u64
    padding to the alignment, then the data that the offsets count from

Nothing in the file is trusted: a length is compared with what is left of the file before anything
is read or allocated, and arrays stay views of what was read until somebody asks for them.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from fireside.engine.arrays import np
from fireside.engine.checkpoints.gguf_strings import StringArray, string_ends
from fireside.engine.checkpoints.source import Source
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.records import record

MAGIC = b"GGUF"
DEFAULT_ALIGNMENT = 32

# Value types of metadata
UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = range(10)
UINT64, INT64, FLOAT64 = 10, 11, 12
# of numbers: struct's letter for each
SCALARS = {
    UINT8: "B",
    INT8: "b",
    UINT16: "H",
    INT16: "h",
    UINT32: "I",
    INT32: "i",
    FLOAT32: "f",
    BOOL: "B",
    UINT64: "Q",
    INT64: "q",
    FLOAT64: "d",
}

# Generous bounds on what a file may hold; each is far above any real one.
MAX_ENTRIES = 1 << 16
MAX_TENSORS = 1 << 16
MAX_NAME = 1 << 10  # bytes of a key or a tensor's name
MAX_STRING = 1 << 24  # bytes of any other string (a chat template is some thousand)
MAX_STRINGS = 1 << 21  # strings in all arrays (vocabularies have some hundred thousand)
MAX_ARRAYS = 1 << 16
MAX_NESTING = 4  # arrays within arrays
MAX_HEADER = 1 << 26  # bytes
MAX_DIMENSIONS = 4  # ggml's own limit
MAX_SIZE = 1 << 48  # of one dimension: products stay exact in Python and tame in NumPy
MAX_ALIGNMENT = 1 << 20

# Read at first, and again where that was too little: a small vocabulary's header fits into the one,
# that of 32,000 pieces into eight times as much.
HEAD_BYTES = 1 << 17


class ShortHeadError(Exception):
    """The header goes on behind the bytes at hand, and so does the file."""


class Metadata(Mapping[str, object]):
    """Key -> int, float, bool, str, NDArray, StringArray or a list of these."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values  # with memoryviews for arrays of numbers

    def __getitem__(self, key: str) -> object:
        return _in_numpy(self._values[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def numbers(self, key: str) -> memoryview | None:
        """An array of numbers as it lies in the file; None where there is none of this name."""
        value = self._values.get(key)
        return value if isinstance(value, memoryview) else None


def _in_numpy(value: object) -> object:
    if isinstance(value, list):
        return [_in_numpy(one) for one in value]
    return np.asarray(value) if isinstance(value, memoryview) else value


@record
class TensorInfo:
    """An entry of the tensor table."""

    name: str
    shape: tuple[int, ...]  # NumPy's order: the slowest dimension first
    ggml_type: int
    offset: int  # from the beginning of the data


@record
class Header:
    """Everything before the data."""

    version: int
    metadata: Metadata
    tensors: list[TensorInfo]
    alignment: int
    data_offset: int  # where the data begins, from the beginning of the file


class Cursor:
    """Reads numbers and strings off a buffer, each checked against what is left of it."""

    def __init__(self, path: Path, view: memoryview, size: int) -> None:
        self.path = path
        self.view = view
        self.size = size  # of the whole file
        self.position = 0
        self.strings_left = MAX_STRINGS
        self.arrays_left = MAX_ARRAYS

    def take(self, size: int, what: str) -> int:
        """Step over `size` bytes; the position before them."""
        start = self.position
        if size > self.size - start:
            raise CheckpointError(
                f"{self.path}: {what} needs {size:,} bytes at {start:,}, but the file has"
                f" {self.size:,}",
                "the file is cut short or damaged: download or copy it again",
            )
        if size > len(self.view) - start:
            raise self.short()
        self.position = start + size
        return start

    def short(self) -> Exception:
        """What to raise where the file goes on behind the bytes at hand."""
        if len(self.view) < MAX_HEADER:
            return ShortHeadError()
        return CheckpointError(f"{self.path}: the header is longer than {MAX_HEADER:,} bytes")

    def u32(self, what: str) -> int:
        """An unsigned number of 4 bytes."""
        return int(struct.unpack_from("<I", self.view, self.take(4, what))[0])

    def u64(self, what: str, limit: int) -> int:
        """An unsigned number of 8 bytes, at most `limit`."""
        number = int(struct.unpack_from("<Q", self.view, self.take(8, what))[0])
        return self.limited(number, what, limit)

    def limited(self, number: int, what: str, limit: int) -> int:
        """The number; CheckpointError where it is more than `limit`."""
        if number > limit:
            raise CheckpointError(
                f"{self.path}: {what} is {number:,}, expected at most {limit:,}",
                "the file is damaged",
            )
        return number

    def string(self, what: str, limit: int) -> str:
        """A string of at most `limit` bytes."""
        length = self.u64(f"the length of {what}", limit)
        start = self.take(length, what)
        try:
            return str(self.view[start : start + length], "utf-8")
        except UnicodeDecodeError:
            raise CheckpointError(
                f"{self.path}: {what} is not valid UTF-8", "the file is damaged"
            ) from None

    def name(self, what: str) -> str:
        """A name, which error messages may show to a terminal: printable."""
        name = self.string(what, MAX_NAME)
        if not name.isprintable():
            raise CheckpointError(f"{self.path}: {what} is {name[:40]!r}, expected printable text")
        return name

    def value(self, key: str, kind: int, depth: int = 0) -> object:
        """A metadata value of type `kind`."""
        if kind == STRING:
            return self.string(key, MAX_STRING)
        if kind == ARRAY:
            return self.array(key, depth)
        if (letter := SCALARS.get(kind)) is None:
            raise CheckpointError(
                f"{self.path}: {key} has value type {kind}, expected 0 to {FLOAT64}",
                "the file is damaged",
            )
        start = self.take(struct.calcsize(letter), key)
        number: int | float = struct.unpack_from(f"<{letter}", self.view, start)[0]
        if kind == FLOAT32:
            number = shortest(number)
        if kind == BOOL:
            if number not in (0, 1):
                raise CheckpointError(f"{self.path}: {key} is {number}, expected 0 or 1")
            return bool(number)
        return number

    def array(self, key: str, depth: int) -> object:
        """An array: a view for numbers, a StringArray for strings, a list for arrays."""
        self.arrays_left -= 1
        if depth == MAX_NESTING or self.arrays_left < 0:
            raise CheckpointError(
                f"{self.path}: {key} nests arrays deeper than {MAX_NESTING}, or has too many",
                "the file is damaged",
            )
        kind = self.u32(f"the element type of {key}")
        if (letter := SCALARS.get(kind)) is not None:
            count = self.u64(f"the length of {key}", self.size)
            size = count * struct.calcsize(letter)
            start = self.take(size, key)
            values = self.view[start : start + size]
            if kind != BOOL:
                return values.cast(letter)  # type: ignore[call-overload]
            if count and (largest := max(values)) > 1:
                raise CheckpointError(f"{self.path}: {key} has {largest}, expected 0 or 1")
            return values.cast("?")
        if kind == STRING:
            count = self.u64(f"the length of {key}", self.strings_left)
            self.strings_left -= count
            return self.strings(key, count)
        if kind == ARRAY:
            count = self.u64(f"the length of {key}", self.arrays_left)
            return [self.array(f"{key}[{i}]", depth + 1) for i in range(count)]
        raise CheckpointError(
            f"{self.path}: {key} has element type {kind}, expected 0 to {FLOAT64}",
            "the file is damaged",
        )

    def strings(self, key: str, count: int) -> StringArray:
        """The strings of an array: one pass over their lengths, none of them decoded."""
        first = self.position
        self.take(8 * count, key)  # the lengths alone
        ends = string_ends(self.view, first, count)
        if ends is None and len(self.view) < self.size:
            raise self.short()
        if ends is None:
            raise CheckpointError(
                f"{self.path}: a string of {key} goes beyond the end of the file",
                "the file is cut short or damaged: download or copy it again",
            )
        self.position = ends[-1] if count else first
        return StringArray(key, self.path, self.view, ends, first)


def shortest(number: float) -> float:
    """The shortest decimal that is this f32: what was meant as 1e-5 is read as 1e-5."""
    for digits in range(6, 10):
        decimal = float(f"{number:.{digits}g}")
        with contextlib.suppress(OverflowError):
            if struct.pack("<f", decimal) == struct.pack("<f", number):
                return decimal
    return number  # not a number


def read_header(source: Source) -> Header:
    """The header of an open GGUF file; no more of it is read than needed, or a little."""
    size = HEAD_BYTES
    while True:
        try:
            return parse(source.path, source.read_bytes(0, min(size, source.size)), source.size)
        except ShortHeadError:
            size *= 8


def parse(path: Path, data: memoryview, size: int | None = None) -> Header:
    """The header of a GGUF file that begins with the bytes `data`. CheckpointError names what is
    wrong.

    size: of the whole file, where `data` is only its beginning: ShortHeadError if that is too
    little.

    What is checked here is all that the header says by itself: numbers in range, names unique,
    offsets aligned. Whether the tensors lie within the file depends on their types: `gguf.read`.
    """
    cursor = Cursor(path, data, len(data) if size is None else size)
    if data[:4].tobytes() != MAGIC:
        raise CheckpointError(f"{path}: not a GGUF file", "it should begin with the letters GGUF")
    cursor.take(4, "the magic")
    version = check_version(path, cursor.u32("the version"))
    tensor_count = cursor.u64("the number of tensors", MAX_TENSORS)
    entry_count = cursor.u64("the number of metadata entries", MAX_ENTRIES)
    metadata: dict[str, object] = {}
    for i in range(entry_count):
        key = cursor.name(f"key {i} of the metadata")
        if key in metadata:
            raise CheckpointError(f"{path}: {key} is there twice", "the file is damaged")
        metadata[key] = cursor.value(key, cursor.u32(f"the type of {key}"))
        if cursor.position > MAX_HEADER:
            raise CheckpointError(f"{path}: the header is longer than {MAX_HEADER:,} bytes")
    alignment = check_alignment(path, metadata.get("general.alignment", DEFAULT_ALIGNMENT))
    tensors: list[TensorInfo] = []
    seen: set[str] = set()
    for i in range(tensor_count):
        info = tensor_info(cursor, i, alignment)
        if info.name in seen:
            raise CheckpointError(
                f"{path}: tensor {info.name} is there twice", "the file is damaged"
            )
        seen.add(info.name)
        tensors.append(info)
    data_offset = cursor.position + -cursor.position % alignment
    return Header(version, Metadata(metadata), tensors, alignment, data_offset)


def show(value: object) -> str:
    """A metadata value as an error message can bear it."""
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, int | float):
        return str(value)
    return f"an array of {len(value)}" if hasattr(value, "__len__") else "something else"


def check_version(path: Path, version: int) -> int:
    """The version, 2 or 3 (they differ in that 3 may be big-endian)."""
    if version in (2, 3):
        return version
    if 0 < int.from_bytes(version.to_bytes(4, "little"), "big") < 16:
        raise UnsupportedError(
            f"{path}: a big-endian GGUF file", "convert it to little-endian (gguf-py can)"
        )
    raise UnsupportedError(f"{path}: GGUF version {version}", "versions 2 and 3 are read")


def check_alignment(path: Path, alignment: object) -> int:
    """general.alignment: a power of two of at least 8, so that every weight can be addressed."""
    if (
        type(alignment) is not int
        or not 8 <= alignment <= MAX_ALIGNMENT
        or alignment & (alignment - 1)
    ):
        raise CheckpointError(
            f"{path}: general.alignment is {show(alignment)}, expected a power of two from 8 to"
            f" {MAX_ALIGNMENT}"
        )
    return alignment


def tensor_info(cursor: Cursor, i: int, alignment: int) -> TensorInfo:
    """Entry `i` of the tensor table."""
    name = cursor.name(f"the name of tensor {i}")
    dimensions = cursor.u32(f"the dimensions of tensor {name}")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise CheckpointError(
            f"{cursor.path}: tensor {name} has {dimensions} dimensions, expected 1 to"
            f" {MAX_DIMENSIONS}"
        )
    start = cursor.take(8 * dimensions + 12, f"the entry of tensor {name}")
    sizes = struct.unpack_from(f"<{dimensions}Q", cursor.view, start)
    cursor.limited(max(sizes), f"a size of tensor {name}", MAX_SIZE)
    if 0 in sizes:
        raise CheckpointError(f"{cursor.path}: tensor {name} has a size of 0, expected 1 or more")
    ggml_type, offset = struct.unpack_from("<IQ", cursor.view, start + 8 * dimensions)
    cursor.limited(offset, f"the offset of tensor {name}", cursor.size)
    if offset % alignment:
        raise CheckpointError(
            f"{cursor.path}: tensor {name} is at offset {offset:,}, expected a multiple of"
            f" {alignment}"
        )
    return TensorInfo(name, tuple(reversed(sizes)), ggml_type, offset)
