"""The C extension: loading it, choosing an instruction set, handing it arrays.

The only place that turns arrays into pointers: cffi takes any buffer for any pointer, so type,
shape and contiguity are checked here.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Mapping

from fireside.engine.arrays import np
from fireside.engine.errors import KernelsError
from fireside.engine.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

ISA_VARIABLE = "FIRESIDE_ISA"


@functools.cache
def load() -> tuple[Any, Any, str]:
    """(ffi, lib, "") of the extension, or (None, None, why it cannot be used)."""
    # A team that spins between steps takes its cores from everybody: up to 7 ms at the next step.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        # libgomp: after a step the threads wait some 0.3 ms for the next one before they sleep; to
        # wake them costs more than a small model's step can bear
        os.environ.setdefault("GOMP_SPINCOUNT", "8000")
    try:
        module = importlib.import_module("fireside.engine._native")
    except ModuleNotFoundError:
        return None, None, "the C extension was not built"
    except ImportError as error:
        return None, None, f"the C extension does not load: {error}"
    return module.ffi, module.lib, ""


@functools.cache
def instruction_sets() -> Mapping[str, int]:
    """Those that this machine can run, by name, slowest first."""
    ffi, lib, _ = load()
    if lib is None:
        return {}
    names = {ffi.string(lib.fs_isa_name(i)).decode(): i for i in range(lib.fs_isa_count())}
    return {name: i for name, i in names.items() if lib.fs_isa_usable(i)}


def choose_isa(name: str | None = None) -> tuple[str, int]:
    """The instruction set called `name` (default: $FIRESIDE_ISA), else the fastest there is.

    Raises KernelsError for a name that is unknown or that this machine cannot run.
    """
    usable = instruction_sets()
    name = name or os.environ.get(ISA_VARIABLE, "") or list(usable)[-1]
    if name not in usable:
        raise KernelsError(
            f"the instruction set {name!r} is unknown or not on this machine",
            f"set {ISA_VARIABLE} to one of {', '.join(usable)}, or leave it out",
        )
    return name, usable[name]


def pointer(array: NDArray[Any], dtype: DTypeLike, shape: tuple[int, ...], ctype: str) -> Any:
    """A C pointer to the data of `array`, which must be C-contiguous and exactly as stated."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise RuntimeError(
            f"expected a contiguous {np.dtype(dtype)} array {shape},"
            f" got {array.dtype} {array.shape}"
        )
    ffi, _, _ = load()
    return ffi.from_buffer(ctype, array) if array.size else ffi.NULL


def memory(nbytes: int, huge_pages: bool) -> Any:
    """Zeroed memory, given back when nobody refers to it any more. Raises MemoryError."""
    ffi, lib, _ = load()
    block = lib.fs_memory_new(nbytes, huge_pages)
    if block == ffi.NULL:
        raise MemoryError(f"cannot get {nbytes} bytes")
    return ffi.gc(block, lambda p: lib.fs_memory_free(p, nbytes), nbytes)
