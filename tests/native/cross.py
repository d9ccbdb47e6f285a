"""The C sources compiled for another kind of machine, and run there on cases made here.

A case is what cross_driver.c reads: a weight to pack or to convert, or a model to step. What this
machine's own extension gives for it is the expected result; of a conversion, what NumPy does.
"""

from __future__ import annotations

import runpy
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.executors import KV, Quant
from fireside.engine.executors.native import NativeExecutor, _shape
from fireside.engine.executors.native_library import choose_isa, load
from fireside.engine.executors.native_weights import pack
from fireside.engine.plan import Plan

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Case:
    """`data` is what the driver reads, `expected` what it must write."""

    name: str
    data: bytes
    expected: bytes


def compile_driver(compiler: str, flags: list[str], folder: Path) -> Path:
    """The driver with all sources, with the flags of the extension, linked statically."""
    build = runpy.run_path(str(ROOT / "native/build_native.py"))
    sources = [ROOT / "native" / name for name in build["SOURCES"]]
    sources.append(Path(__file__).with_name("cross_driver.c"))
    command = [compiler, *build["FLAGS"], "-Werror", "-fopenmp", *flags, f"-I{ROOT / 'native'}"]

    def compiled(source: Path) -> str:
        result = folder / f"{source.stem}.o"
        subprocess.run([*command, "-c", str(source), "-o", str(result)], check=True)
        return str(result)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    driver = folder / "driver"
    subprocess.run([*command, "-static", *objects, "-o", str(driver), "-lm"], check=True)
    return driver


def numbers(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


def packing(tensor: Tensor, kind: str) -> Case:
    """A matrix in a file's format packed as `kind`."""
    ffi, lib, _ = load()
    to, source = getattr(lib, f"FS_PACK_{kind}"), getattr(lib, f"FS_FROM_{tensor.block}")
    rows, cols = tensor.shape
    packed = np.zeros(lib.fs_packed_nbytes(to, rows, cols), np.uint8)
    data = np.ascontiguousarray(tensor.data).view(np.uint8).reshape(-1)
    args = (choose_isa()[1], 1, to, ffi.from_buffer(packed), rows, cols, 0, rows, source)
    assert lib.fs_pack(*args, ffi.from_buffer(data), -1, 0) == 0
    asked = numbers(0, to, source, rows, cols, data.nbytes) + data.tobytes()
    return Case(f"{tensor.block} {rows}x{cols} as {kind}", asked, packed.tobytes())


def converting(tensor: Tensor, block: str) -> Case:
    """A matrix in a file's format as `block`, by NumPy."""
    _, lib, _ = load()
    source, to = (getattr(lib, f"FS_FROM_{name}") for name in (tensor.block, block))
    expected = blocks.get(block).quantise(tensor.to_float32().reshape(-1)).tobytes()
    data = np.ascontiguousarray(tensor.data).view(np.uint8).tobytes()
    asked = numbers(2, source, to, tensor.count, len(data), len(expected)) + data
    return Case(f"{tensor.block} as {block} in a file", asked, expected)


def stepping(
    name: str,
    plan: Plan,
    checkpoint: Checkpoint,
    tokens: NDArray[np.int32],
    piece: int,
    quant: Quant = "none",
    kv: KV = "f16",
) -> Case:
    """All logits of `tokens`, `piece` of them at a time."""
    isa, number = choose_isa()
    weights = pack(plan, checkpoint, quant, number, 1, None)
    executor = NativeExecutor(plan, weights, isa, 1, kv)
    cache = executor.new_cache(len(tokens))
    parts = [
        executor.step(cache, tokens[i : i + piece], i, "all").tobytes()
        for i in range(0, len(tokens), piece)
    ]
    shape, kept = _shape(plan, weights, kv)
    data = numbers(1) + _model(shape) + numbers(len(tokens), piece) + tokens.tobytes()
    del kept
    return Case(name, data, b"".join(parts))


def _model(shape: Any) -> bytes:
    ffi, lib, _ = load()

    def array(pointer: Any, count: int) -> bytes:
        return bytes(ffi.buffer(pointer, count * ffi.sizeof(ffi.typeof(pointer).item)))

    def held(pointer: Any, nbytes: int) -> bytes:
        return bytes(ffi.buffer(ffi.cast("char *", pointer), nbytes))

    parts = [numbers(ffi.sizeof("fs_shape"), ffi.sizeof("fs_op")), array(shape, 1)]
    parts += [array(shape.ops, shape.n_ops), array(shape.widths, shape.n_buffers)]
    parts.append(array(shape.matrices, shape.n_matrices))
    for w in shape.matrices[0 : shape.n_matrices]:
        parts.append(held(w.data, lib.fs_packed_nbytes(w.kind, w.rows, w.cols)))
    parts.append(array(shape.vectors, shape.n_vectors))
    parts += [held(w.data, w.cols * 4) for w in shape.vectors[0 : shape.n_vectors]]
    parts.append(array(shape.turns, shape.n_turns))
    for turn in shape.turns[0 : shape.n_turns]:
        parts.append(array(turn.frequency, turn.rotary_dim // 2))
    return b"".join(parts)
