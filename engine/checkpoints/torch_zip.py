"""What torch.save writes: a zip archive, the folder it unpacks to, and the files of before 1.6.

archive   NAME/data.pkl, a pickle (pickles.py), and NAME/data/KEY, the storages; never packed
folder    the same, unpacked: data.pkl and data/KEY
legacy    pickles one behind the other, then each storage behind its count

(PyTorch, torch/serialization.py; PKWARE's APPNOTE for zip.) Of an archive the central directory is
believed only where the local headers say the same, and where no two members overlap. Checksums of
pickles are checked, those of weights are not: that would be to read all of them before the first is
used. torch can leave checksums out; they are 0 then.
"""

from __future__ import annotations

import math
import stat
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from fireside.engine import blocks
from fireside.engine.checkpoints import read_file
from fireside.engine.checkpoints.derived import DerivedTensor, transposed
from fireside.engine.checkpoints.pickles import (
    SIZES,
    Dict,
    PickleError,
    Storage,
    TensorRef,
    load,
    load_dict,
    shown,
)
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.errors import CheckpointError, UnsupportedError

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # a pickle of torch's magic
LEGACY_VERSION = 1001
MAX_LEGACY = 1 << 23  # bytes of a legacy file's pickles
MAX_PICKLE = 1 << 24  # a tensor takes some two hundred
MAX_DIRECTORY = 1 << 23
MAX_MEMBERS = 1 << 15
MAX_TAIL = 22 + 20 + 56  # a torch archive has no comment behind its end record
AGAIN = "the file is cut short or damaged: download or copy it again"
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Member:
    """A stored file of an archive."""

    name: str
    header: int  # where its local header begins
    size: int
    checksum: int  # 0: there is none
    limit: int = 0  # where the next member, or the directory, begins


# A place of a storage: what to make a tensor of `count` numbers at byte `offset` of it
Make = Callable[[str, tuple[int, ...], str, int], Tensor]


@dataclass(frozen=True)
class Saved:
    """What a file of torch holds: the object, and where its storages lie."""

    path: Path
    value: Dict
    places: Mapping[str, tuple[Make, int]]  # storage key -> how to read of it, its bytes
    used: dict[str, int] = field(default_factory=dict)  # bytes of a storage that tensors took

    def tensor(self, name: str, ref: TensorRef) -> Tensor:
        """A tensor of the object, to be asked for once; errors name it by `name`."""
        place = self.places.get(ref.storage.key)
        needed = ref.storage.count * SIZES[ref.storage.dtype]
        if place is None or place[1] < needed:
            there = f"only {place[1]:,} are there" if place else "it is not there"
            raise CheckpointError(
                f"{self.path}: tensor {shown(name)} is in storage {ref.storage.key} of"
                f" {needed:,} bytes, but {there}",
                AGAIN,
            )
        if ref.storage.dtype not in FLOATS:
            raise UnsupportedError(
                f"{self.path}: tensor {shown(name)} is of type {ref.storage.dtype}",
                f"this version reads {', '.join(FLOATS)}",
            )
        used = self.used.get(ref.storage.key, 0)
        self.used[ref.storage.key] = used = used + math.prod(ref.shape) * SIZES[ref.storage.dtype]
        if used > needed:
            raise UnsupportedError(f"{self.path}: tensor {shown(name)} shares numbers with another")
        make, start = place[0], ref.offset * SIZES[ref.storage.dtype]
        if contiguous(ref.shape, ref.stride):
            return make(name, ref.shape, ref.storage.dtype, start)
        if len(ref.shape) == 2 and contiguous(ref.shape[::-1], ref.stride[::-1]):
            return transposed(make(name, ref.shape[::-1], ref.storage.dtype, start), name)
        raise UnsupportedError(
            f"{self.path}: tensor {shown(name)} has shape {list(ref.shape)} and strides"
            f" {list(ref.stride)}",
            "this version reads contiguous tensors and transposed matrices",
        )


def contiguous(shape: tuple[int, ...], stride: tuple[int, ...]) -> bool:
    """Whether those strides are of numbers that lie one behind the other."""
    expected = 1
    for n, step in zip(reversed(shape), reversed(stride), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is a zip archive, a legacy file, or a folder with a data.pkl."""
    return head.startswith((ZIP, LEGACY)) or (not head and (path / "data.pkl").is_file())


def read(path: Path) -> Saved:
    """What torch.save wrote to `path`; CheckpointError where that is damaged or no dict."""
    if path.is_dir():
        return read_folder(path)
    source = Source(path)
    if source.read(0, min(4, source.size)).tobytes() == ZIP:
        return read_archive(source)
    return read_legacy(source)


# -- archives


def read_archive(source: Source) -> Saved:
    """A zip archive."""
    path = source.path
    members = directory(source)
    pickles = [name for name in members if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path}: a zip archive with {len(pickles)} data.pkl, expected one",
            "this version reads archives that torch.save wrote",
        )
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in members:
        raise UnsupportedError(
            f"{path}: a TorchScript archive, which holds a program", "save its state dict instead"
        )
    check_byteorder(path, stored_text(source, members, f"{prefix}byteorder"))
    value = load_dict(path, stored(source, members[pickles[0]]))
    inside = f"{prefix}data/"
    places = {}
    for name, member in members.items():
        if name.startswith(inside):
            start = data_start(source, member)
            places[name.removeprefix(inside)] = (in_file(source, start), member.size)
    return Saved(path, value, places)


def in_file(source: Source, start: int) -> Make:
    """Tensors of a storage that begins at `start` of an open file."""
    return lambda name, shape, block, offset: FileTensor(name, shape, block, source, start + offset)


def check_byteorder(path: Path, order: str) -> None:
    """UnsupportedError for a machine that keeps its numbers the other way round."""
    if order not in ("", "little"):
        raise UnsupportedError(f"{path}: byte order {shown(order)!r}", "little is read")


def stored(source: Source, member: Member) -> bytes:
    """The bytes of a member."""
    if member.size > MAX_PICKLE:
        raise CheckpointError(
            f"{source.path}: {shown(member.name)} has {member.size:,} bytes, expected at most"
            f" {MAX_PICKLE:,}"
        )
    data = source.read(data_start(source, member), member.size).tobytes()
    if member.checksum and zlib.crc32(data) != member.checksum:
        raise CheckpointError(
            f"{source.path}: member {shown(member.name)} is not what its checksum says", AGAIN
        )
    return data


def stored_text(source: Source, members: Mapping[str, Member], name: str) -> str:
    """The text of a small member; "" where there is none."""
    if name not in members or members[name].size > 64:
        return ""
    return stored(source, members[name]).decode("ascii", "replace").strip()


def directory(source: Source) -> dict[str, Member]:
    """The members by name, from the central directory; they lie apart, before it."""
    path = source.path
    count, size, start = end_record(source)
    if count > MAX_MEMBERS or size > MAX_DIRECTORY or start + size > source.size:
        raise CheckpointError(
            f"{path}: a directory of {count:,} members in {size:,} bytes at {start:,}", AGAIN
        )
    data = source.read(start, size).tobytes()
    members: dict[str, Member] = {}
    at = 0
    for _ in range(count):
        member, at = directory_entry(path, data, at)
        if member.name in members:
            raise CheckpointError(f"{path}: two members called {shown(member.name)}", AGAIN)
        members[member.name] = member
    limit = start
    for member in sorted(members.values(), key=lambda m: m.header, reverse=True):
        # its local header and its name come before its data
        if member.header + 30 + len(member.name.encode()) + member.size > limit:
            raise CheckpointError(
                f"{path}: member {shown(member.name)} overlaps another, or the directory", AGAIN
            )
        members[member.name] = replace(member, limit=limit)
        limit = member.header
    return members


def end_record(source: Source) -> tuple[int, int, int]:
    """Number of members, and size and place of the central directory."""
    path = source.path
    length = min(source.size, MAX_TAIL)
    tail = source.read(source.size - length, length).tobytes()
    if len(tail) < 22 or tail[-22:-18] != b"PK\x05\x06" or tail[-2:] != b"\0\0":
        raise CheckpointError(f"{path}: a zip archive without its end", AGAIN)
    disk, first, here, count, size, start = struct.unpack_from("<4H2I", tail, len(tail) - 18)
    if len(tail) >= MAX_TAIL and tail[-42:-38] == b"PK\x06\x07":
        record, disks = struct.unpack_from("<QI", tail, len(tail) - 34)
        large = source.read(record, 56).tobytes() if record + 56 <= source.size else b""
        if large[:4] != b"PK\x06\x06" or disks > 1:
            raise CheckpointError(f"{path}: a zip archive without its end (64-bit)", AGAIN)
        disk, first, here, count, size, start = struct.unpack_from("<2I4Q", large, 16)
    if disk or first or here != count:
        raise CheckpointError(f"{path}: a zip archive of {disk + 1} parts", AGAIN)
    return count, size, start


def directory_entry(path: Path, data: bytes, at: int) -> tuple[Member, int]:
    """The member described at `at` of the central directory, and the end of its description."""
    if at + 46 > len(data) or data[at : at + 4] != b"PK\x01\x02":
        raise CheckpointError(f"{path}: the directory of the archive is damaged", AGAIN)
    flags, method = struct.unpack_from("<2H", data, at + 8)
    (checksum,) = struct.unpack_from("<I", data, at + 16)
    packed, size, n_name, n_extra, n_comment, disk = struct.unpack_from("<2I4H", data, at + 20)
    (header,) = struct.unpack_from("<I", data, at + 42)
    extra_at = at + 46 + n_name
    end = extra_at + n_extra + n_comment
    if end > len(data):
        raise CheckpointError(f"{path}: the directory of the archive is damaged", AGAIN)
    name = member_name(path, data[at + 46 : extra_at])
    extra = large_numbers(data[extra_at : extra_at + n_extra])
    numbers = [size, packed, header]
    for i, number in enumerate(numbers):
        if number == 0xFFFFFFFF:
            if not extra:
                raise CheckpointError(f"{path}: member {shown(name)} has no 64-bit size", AGAIN)
            numbers[i] = extra.pop(0)
    size, packed, header = numbers
    if method != 0 or size != packed or flags & 0x2041 or disk:
        raise UnsupportedError(
            f"{path}: member {shown(name)} is packed or encrypted",
            "torch.save stores its members as they are",
        )
    return Member(name, header, size, checksum), end


def member_name(path: Path, raw: bytes) -> str:
    """The name of a member: looked up, never used as a path, and refused where it leads out."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name or "\\" in name or "\0" in name or ".." in name.split("/") or name[0] == "/":
        raise CheckpointError(
            f"{path}: a member called {shown(raw.decode('latin-1'))!r}", "the archive is damaged"
        )
    return name


def large_numbers(extra: bytes) -> list[int]:
    """The 64-bit numbers of an extra field, where it has some."""
    at = 0
    while at + 4 <= len(extra):
        tag, size = struct.unpack_from("<2H", extra, at)
        if tag == 1 and at + 4 + size <= len(extra):
            return list(struct.unpack_from(f"<{size // 8}Q", extra, at + 4))
        at += 4 + size
    return []


def data_start(source: Source, member: Member) -> int:
    """Where the data of a member begins; CheckpointError where its local header says otherwise."""
    name = member.name.encode()
    raw = source.read(member.header, 30 + len(name)).tobytes()
    flags, method = struct.unpack_from("<2H", raw, 6)
    packed, size, n_name, n_extra = struct.unpack_from("<2I2H", raw, 18)
    later = flags & 8 or size == packed == 0xFFFFFFFF  # the sizes stand behind it, or in `extra`
    start = member.header + 30 + n_name + n_extra
    if (
        raw[:4] != ZIP
        or method
        or n_name != len(name)
        or raw[30:] != name
        or (not later and (size != member.size or packed != member.size))
        or start + member.size > member.limit
    ):
        raise CheckpointError(
            f"{source.path}: member {shown(member.name)} is not what the directory says", AGAIN
        )
    return int(start)


# -- unpacked folders


def read_folder(path: Path) -> Saved:
    """An archive that somebody unpacked."""
    value = load_dict(path, read_file(path / "data.pkl", MAX_PICKLE))
    if (path / "byteorder").is_file():
        check_byteorder(path, read_file(path / "byteorder", 64).decode("ascii", "replace").strip())
    places = {}
    for file in (path / "data").iterdir() if (path / "data").is_dir() else ():
        status = file.stat()
        if stat.S_ISREG(status.st_mode):
            places[file.name] = (on_demand(file, status.st_size), status.st_size)
    return Saved(path, value, places)


def on_demand(file: Path, size: int) -> Make:
    """Tensors of a file that is opened when they are read: a folder has hundreds of them."""

    def make(name: str, shape: tuple[int, ...], block: str, offset: int) -> Tensor:
        nbytes = blocks.nbytes(blocks.get(block), math.prod(shape))

        def data() -> blocks.Bytes:
            source = Source(file)
            if source.size != size:
                raise source.changed()
            return source.read(offset, nbytes)

        return DerivedTensor(name, shape, block, data)

    return make


# -- files of before PyTorch 1.6


def read_legacy(source: Source) -> Saved:
    """Pickles of magic, version, machine, object and keys; then count and numbers of each key."""
    path = source.path
    data = source.read(0, min(source.size, MAX_LEGACY)).tobytes()
    values: list[object] = []
    at = 0
    try:
        for _ in range(5):
            value, at = load(data, at)
            values.append(value)
    except PickleError as error:
        raise CheckpointError(f"{path}: {error}", error.hint) from None
    _, version, machine, value, keys = values
    if version != LEGACY_VERSION or not isinstance(machine, Dict) or not isinstance(keys, list):
        raise CheckpointError(f"{path}: not a file of torch.save", AGAIN)
    if not machine.get("little_endian", True):
        raise UnsupportedError(f"{path}: of a machine whose byte order is big", "little is read")
    if not isinstance(value, Dict):
        raise UnsupportedError(f"{path}: holds something that is no dict of tensors")
    sizes = storage_sizes(value)
    places: dict[str, tuple[Make, int]] = {}
    for key in keys:
        if not isinstance(key, str) or key not in sizes or key in places:
            raise CheckpointError(f"{path}: the list of storages is damaged", AGAIN)
        kept = sizes[key]
        count = kept.count
        there = int(source.read(at, 8).view("<i8")[0]) if at + 8 <= source.size else -1
        nbytes = count * SIZES[kept.dtype]
        if there != count or at + 8 + nbytes > source.size:
            raise CheckpointError(
                f"{path}: storage {key} is not of {count:,} numbers as it should be", AGAIN
            )
        places[key] = (in_file(source, at + 8), nbytes)
        at += 8 + nbytes
    return Saved(path, value, places)


def storage_sizes(value: Dict) -> dict[str, Storage]:
    """The storages of all tensors of a dict, and of dicts in it: a list of work, no recursion."""
    found: dict[str, Storage] = {}
    work: list[object] = [value]
    seen: set[int] = set()
    while work:
        item = work.pop()
        if isinstance(item, TensorRef):
            found.setdefault(item.storage.key, item.storage)
        elif isinstance(item, dict | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            work.extend(item.values() if isinstance(item, dict) else item)
    return found
