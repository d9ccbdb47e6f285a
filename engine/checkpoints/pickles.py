"""Python's pickles, as far as weights need them: an interpreter that can do nothing else.

A pickle is a program for a small stack machine, and the usual interpreter lets it call anything.
This one imports nothing and calls nothing by name: of the names a pickle asks for it knows those
of plain containers and of torch's tensors, and makes descriptions of its own of them; anything else
is refused by its name. What it makes, however deeply nested, is never walked through, compared or
printed here. (Opcodes: CPython, Lib/pickletools.py; names: PyTorch, torch/serialization.py.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from fireside.engine.errors import CheckpointError, UnsupportedError

MAX_OPCODES = 1_000_000  # a state dict has some fifty a tensor
MAX_STACK = 1 << 18
MAX_MEMO = 1 << 20
MAX_TEXT = 1 << 22  # bytes of a string
MAX_KEY = 1 << 31
MAX_DIMENSIONS = 8
HOSTILE_HINT = "it may be meant to run code on this machine: do not open it with other programs"

# Names of storages -> dtypes
STORAGES = {
    "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16", "DoubleStorage": "F64",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL",
}  # fmt: skip
SIZES = {
    "F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip


class PickleError(ValueError):
    """The bytes are no pickle that this interpreter runs; `hint` says what to do about it."""

    def __init__(self, message: str, hint: str = "the file is damaged") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of `count` numbers, kept under `key` beside the pickle."""

    dtype: str  # "F32", "F16", ...
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class TensorRef:
    """Where a tensor lies in its storage: offset and strides in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Name:
    """A name that the pickle asked for, and that is known."""

    text: str


class Dict(dict[str | int, object]):
    """A dict or an OrderedDict; `ordered` ones may have attributes, which are left out."""

    ordered = False


KNOWN = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch", "Size"),
    *(("torch", name) for name in STORAGES),
}


@dataclass
class Machine:
    """The state of one run over `data`."""

    data: bytes
    at: int = 0
    stack: list[object] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)  # lengths of the stack
    memo: dict[int, object] = field(default_factory=dict)
    opcode: str = ""

    # -- reading

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise PickleError(f"the pickle ends within an opcode at {self.at}")
        start, self.at = self.at, end
        return self.data[start:end]

    def number(self, size: int, signed: bool = False) -> int:
        """A little-endian whole number."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self) -> str:
        """Text up to the end of the line."""
        end = self.data.find(b"\n", self.at, self.at + 4096)
        if end < 0:
            raise PickleError(f"no end of a line at {self.at}")
        text = self.take(end - self.at)
        self.at += 1
        return decoded(text)

    def text(self, size_bytes: int) -> str:
        """UTF-8 behind its length."""
        size = self.number(size_bytes)
        if size > MAX_TEXT:
            raise PickleError(f"a string of {size:,} bytes at {self.at}")
        return decoded(self.take(size))

    # -- the stack

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def pop(self) -> object:
        """Take the value on top, which no mark guards."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleError(f"nothing on the stack at {self.at}")
        return self.stack.pop()

    def top(self) -> object:
        """The value on top."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleError(f"nothing on the stack at {self.at}")
        return self.stack[-1]

    def pop_mark(self) -> list[object]:
        """Everything down to the last mark."""
        if not self.marks:
            raise PickleError(f"no mark on the stack at {self.at}")
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def remember(self, index: int) -> None:
        """Keep the value on top in the memo."""
        if len(self.memo) >= MAX_MEMO or not 0 <= index < 1 << 31:
            raise PickleError(f"entry {index} of the memo, of {len(self.memo):,} so far")
        self.memo[index] = self.top()

    def recall(self, index: int) -> None:
        """Push a value out of the memo."""
        if index not in self.memo:
            raise PickleError(f"entry {index} of the memo is not there")
        self.push(self.memo[index])

    # -- opcodes that do more than push a value

    def find(self, module: object, name: object) -> None:
        """GLOBAL: only names of the table are known."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError(f"a name that is no text at {self.at}")
        if (module, name) not in KNOWN:
            asked = shown(f"{module}.{name}")
            raise PickleError(
                f"the pickle asks for {asked}, which weights do not need", HOSTILE_HINT
            )
        self.push(Name(name))

    def reduce(self) -> None:
        """REDUCE: what calling a known name with the arguments on top would make."""
        arguments, name = self.pop(), self.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise PickleError(f"a call of something that has no name at {self.at}", HOSTILE_HINT)
        if name.text == "OrderedDict" and not arguments:
            made = Dict()
            made.ordered = True
            self.push(made)
        elif name.text in ("_rebuild_tensor_v2", "_rebuild_tensor"):
            self.push(rebuild(arguments))
        elif name.text == "_rebuild_parameter" and arguments:
            if not isinstance(arguments[0], TensorRef):
                raise PickleError("a parameter that is no tensor")
            self.push(arguments[0])
        elif name.text == "Size" and len(arguments) == 1 and is_shape(arguments[0]):
            self.push(tuple(arguments[0]))
        else:
            raise PickleError(f"a call of {name.text} with other arguments than its own")

    def build(self) -> None:
        """BUILD: attributes are for ordered dicts (a state dict's `_metadata`), and left out."""
        self.pop()
        target = self.top()
        if not isinstance(target, Dict) or not target.ordered:
            raise PickleError("the pickle sets attributes of an object", HOSTILE_HINT)

    def set_items(self, pairs: list[object]) -> None:
        """SETITEMS: into the dict on top."""
        target = self.top()
        if not isinstance(target, Dict) or len(pairs) % 2:
            raise PickleError(f"entries for something that is no dict at {self.at}")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # of other keys hashing may take long, or the whole of the machine's stack
            if type(key) is str or (type(key) is int and -MAX_KEY < key < MAX_KEY):
                target[key] = value
            else:
                raise PickleError(f"a key of type {type(key).__name__}, or a large number")

    def extend(self, values: list[object]) -> None:
        """APPENDS: to the list on top."""
        target = self.top()
        if not isinstance(target, list):
            raise PickleError(f"entries for something that is no list at {self.at}")
        target.extend(values)

    def persistent(self) -> None:
        """BINPERSID: torch's storages."""
        self.push(storage(self.pop()))


def decoded(data: bytes) -> str:
    """Text of UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise PickleError("a string that is not UTF-8") from None


def shown(text: str) -> str:
    """A text from the file, short and harmless, for an error."""
    return "".join(c if c.isprintable() else "?" for c in text[:80])


def storage(value: object) -> Storage:
    """The storage a persistent id names: ("storage", type, key, device, count[, view])."""
    match value:
        case ("storage", Name() as kind, str() as key, str(), int() as count, *rest) if (
            kind.text in STORAGES and count >= 0 and rest in ([], [None])
        ):
            if not key.isascii() or not key.isalnum() or len(key) > 40:
                raise PickleError(f"a storage called {shown(key)!r}")
            return Storage(STORAGES[kind.text], key, count)
    raise PickleError("a persistent id that names no storage")


def rebuild(arguments: tuple[object, ...]) -> TensorRef:
    """A tensor of (storage, offset, shape, stride, ...), checked against its storage."""
    match arguments:
        case (Storage() as kept, int() as offset, tuple() as shape, tuple() as stride, *_):
            pass
        case _:
            raise PickleError("a tensor that is not of a storage, an offset, a shape and strides")
    if len(shape) != len(stride) or len(shape) > MAX_DIMENSIONS or offset < 0:
        raise PickleError(f"a tensor of {len(shape)} dimensions, {len(stride)} strides")
    last = offset
    for n, step in zip(shape, stride, strict=True):
        if type(n) is not int or type(step) is not int or n < 0 or step < 0:
            raise PickleError("a tensor whose shape or strides are no whole numbers")
        last += (n - 1) * step
    empty = 0 in shape
    if not empty and last >= kept.count:
        raise PickleError(f"a tensor that goes beyond its storage of {kept.count:,} numbers")
    return TensorRef(kept, offset, shape, stride)


def is_shape(value: object) -> TypeGuard[list[object] | tuple[object, ...]]:
    """Whether it is a list or a tuple, and short."""
    return isinstance(value, list | tuple) and len(value) <= MAX_DIMENSIONS


Step = Callable[[Machine], None]


def _long(m: Machine, size: int) -> None:
    if size > 16:
        raise PickleError(f"a whole number of {size:,} bytes")
    m.push(m.number(size, signed=True))


def _tuple(m: Machine, count: int) -> None:
    values = [m.pop() for _ in range(count)]
    m.push(tuple(reversed(values)))


def _named(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    m.find(module, name)


def _set_item(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items([key, value])


def _frame(m: Machine) -> None:
    if m.number(8) > len(m.data) - m.at:
        raise PickleError("a frame that goes beyond the pickle")


OPCODES: dict[int, Step] = {
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number(4, signed=True)),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    0x8A: lambda m: _long(m, m.number(1)),
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    ord("X"): lambda m: m.push(m.text(4)),
    0x8C: lambda m: m.push(m.text(1)),
    ord("}"): lambda m: m.push(Dict()),
    ord("]"): lambda m: m.push([]),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: _tuple(m, 1),
    0x86: lambda m: _tuple(m, 2),
    0x87: lambda m: _tuple(m, 3),
    ord("s"): _set_item,
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    ord("a"): lambda m: m.extend([m.pop()]),
    ord("e"): lambda m: m.extend(m.pop_mark()),
    ord("q"): lambda m: m.remember(m.number(1)),
    ord("r"): lambda m: m.remember(m.number(4)),
    0x94: lambda m: m.remember(len(m.memo)),
    ord("h"): lambda m: m.recall(m.number(1)),
    ord("j"): lambda m: m.recall(m.number(4)),
    ord("c"): lambda m: m.find(m.line(), m.line()),
    0x93: _named,
    ord("Q"): Machine.persistent,
    ord("R"): Machine.reduce,
    ord("b"): Machine.build,
    0x95: _frame,
}
# Opcodes of other things, so that an error can call them by name
FORBIDDEN = {
    ord("i"): "INST", ord("o"): "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX", 0x82: "EXT1",
    0x83: "EXT2", 0x84: "EXT4", ord("P"): "PERSID", 0x96: "BYTEARRAY8", 0x97: "NEXT_BUFFER",
}  # fmt: skip
STOP, PROTO = ord("."), 0x80


def load(data: bytes, start: int = 0) -> tuple[object, int]:
    """The value of the pickle at `start`, and where it ends; PickleError says what is wrong.

    Dicts are `Dict`, tensors `TensorRef`; other values are None, bool, int, float, str, list,
    tuple.
    """
    m = Machine(data, start)
    for _ in range(MAX_OPCODES):
        opcode = m.take(1)[0]
        if opcode == STOP:
            if m.marks or len(m.stack) != 1:
                raise PickleError(f"{len(m.stack)} values at the end of the pickle, expected one")
            return m.stack[0], m.at
        if opcode == PROTO:
            if (version := m.number(1)) > 5:
                raise PickleError(f"a pickle of protocol {version}", "save it with an older one")
            continue
        step = OPCODES.get(opcode)
        if step is None:
            name = FORBIDDEN.get(opcode, f"0x{opcode:02x}")
            hint = HOSTILE_HINT if opcode in FORBIDDEN else "the file is damaged"
            raise PickleError(f"opcode {name} at {m.at - 1}, which weights do not need", hint)
        step(m)
        if len(m.stack) > MAX_STACK or len(m.marks) > MAX_STACK:
            raise PickleError(f"more than {MAX_STACK:,} values on the stack")
    raise PickleError(f"more than {MAX_OPCODES:,} opcodes")


def load_dict(path: Path, data: bytes) -> Dict:
    """The dict that a pickle of the file at `path` holds; CheckpointError where it holds none."""
    try:
        value, _ = load(data)
    except PickleError as error:
        raise CheckpointError(f"{path}: {error}", error.hint) from None
    if not isinstance(value, Dict):
        raise UnsupportedError(f"{path}: a pickle of something that is no dict of tensors")
    return value
