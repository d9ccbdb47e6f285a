"""Files as torch.save writes them, made without torch; and pickles of any sort."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.checkpoints.torch_pt import names
from fireside.engine.checkpoints.types import Checkpoint

STORAGE = {"F32": "FloatStorage", "F16": "HalfStorage", "BF16": "BFloat16Storage"}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass
class Stored:
    """A tensor to write: its numbers, and the dtype they are kept in."""

    values: NDArray[np.float32]
    dtype: str = "F32"
    stride: tuple[int, ...] | None = None  # None: contiguous


class Emitter:
    """Writes pickles of protocol 2 with torch's tensors in them, and collects their storages."""

    def __init__(self, legacy: bool = False) -> None:
        self.out = bytearray()
        self.storages: list[tuple[str, bytes, int]] = []
        self.by_id: dict[int, str] = {}
        self.legacy = legacy

    def pickle(self, value: object) -> bytes:
        self.out = bytearray(b"\x80\x02")
        self.emit(value)
        return bytes(self.out) + b"."

    def emit(self, value: object) -> None:
        match value:
            case None:
                self.out += b"N"
            case bool():
                self.out += b"\x88" if value else b"\x89"
            case int() if -(1 << 31) <= value < 1 << 31:
                self.out += b"J" + struct.pack("<i", value)
            case int():
                size = value.bit_length() // 8 + 1
                self.out += b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
            case float():
                self.out += b"G" + struct.pack(">d", value)
            case str():
                self.out += b"X" + struct.pack("<I", len(value.encode())) + value.encode()
            case Stored():
                self.tensor(value)
            case tuple():
                self.out += b"("
                for item in value:
                    self.emit(item)
                self.out += b"t"
            case list():
                self.out += b"]("
                for item in value:
                    self.emit(item)
                self.out += b"e"
            case Mapping():
                ordered = isinstance(value, OrderedDict)
                self.out += b"ccollections\nOrderedDict\n)R" if ordered else b"}"
                self.out += b"("
                for key, item in value.items():
                    self.emit(key)
                    self.emit(item)
                self.out += b"u"
                if ordered:  # as a module's state dict has it
                    self.emit({"_metadata": {"": {"version": 1}}})
                    self.out += b"b"
            case _:
                raise TypeError(type(value))

    def tensor(self, tensor: Stored) -> None:
        numbers = blocks.get(tensor.dtype).quantise(tensor.values.reshape(-1)).tobytes()
        key = self.by_id.get(id(tensor))
        if key is None:
            key = self.by_id[id(tensor)] = str(len(self.storages))
            self.storages.append((key, numbers, tensor.values.size))
        self.out += b"ctorch._utils\n_rebuild_tensor_v2\n(("
        self.emit("storage")
        self.out += f"ctorch\n{STORAGE[tensor.dtype]}\n".encode()
        for item in (key, "cpu", tensor.values.size, *([None] if self.legacy else [])):
            self.emit(item)
        self.out += b"tQ"
        shape = tensor.values.shape
        step = tensor.stride
        if step is None:
            step = tuple(s // 4 for s in np.zeros(shape, np.float32).strides)
        for item in (0, shape, step, False):
            self.emit(item)
        self.out += b"ccollections\nOrderedDict\n)RtR"


def save(value: object, prefix: str = "archive") -> bytes:
    """`value` as torch.save writes it today."""
    emitter = Emitter()
    data = emitter.pickle(value)
    members = {"data.pkl": data, "byteorder": b"little"}
    members |= {f"data/{key}": numbers for key, numbers, _ in emitter.storages}
    return zipped({f"{prefix}/{name}": content for name, content in members.items()})


def zipped(members: Mapping[str, bytes], packed: bool = False) -> bytes:
    """A zip archive."""
    file = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return file.getvalue()


def save_legacy(value: object) -> bytes:
    """`value` as torch.save wrote it before 1.6."""
    emitter = Emitter(legacy=True)
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    data = emitter.pickle(value)
    parts = [Emitter().pickle(LEGACY_MAGIC), Emitter().pickle(1001), Emitter().pickle(machine)]
    parts += [data, Emitter().pickle([key for key, _, _ in emitter.storages])]
    for _, numbers, count in emitter.storages:
        parts += [struct.pack("<q", count), numbers]
    return b"".join(parts)


def meta_state(checkpoint: Checkpoint, dtype: str = "F32") -> dict[str, Stored]:
    """The weights of a Llama model under Meta's names."""
    known = names(checkpoint.config.n_layers)
    return {
        known[name]: Stored(tensor.to_float32(), dtype)
        for name, tensor in checkpoint.tensors.items()
    }


def llama2c_training(checkpoint: Checkpoint, **more: object) -> dict[str, object]:
    """What llama2.c's train.py saves."""
    c = checkpoint.config
    state: OrderedDict[str, object] = OrderedDict(
        (f"_orig_mod.{name}", tensor) for name, tensor in meta_state(checkpoint).items()
    )
    if checkpoint.tied:
        state["_orig_mod.output.weight"] = state["_orig_mod.tok_embeddings.weight"]
    moment = Stored(np.zeros(3, np.float32))
    return {
        "model": state,
        "optimizer": {"state": {0: {"step": moment, "exp_avg": moment}}, "param_groups": [{}]},
        "model_args": {
            "dim": c.dim, "n_layers": c.n_layers, "n_heads": c.n_heads,
            "n_kv_heads": c.n_kv_heads, "vocab_size": c.vocab_size, "multiple_of": 32,
            "max_seq_len": c.context_length, "dropout": 0.0,
        },
        "iter_num": 100, "best_val_loss": Stored(np.float32(1.5).reshape(())), "config": {},
        **more,
    }  # fmt: skip


def unpack(folder: Path, archive: bytes) -> Path:
    """An archive's members as files; the folder they are in."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        opened.extractall(folder)
        return folder / opened.namelist()[0].split("/")[0]
