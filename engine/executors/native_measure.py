"""Measuring the native executor: the time of each kind of operation, and what the memory allows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from fireside.engine.executors.native import NativeExecutor
from fireside.engine.executors.native_library import load
from fireside.engine.plan import Embed, Experts, Plan, weight_groups

# the constants of fireside.h -> what a person calls them
OPERATIONS = {
    "FS_EMBED": "embedding",
    "FS_NORM": "norms alone",
    "FS_MATMUL": "matrices",
    "FS_PREPARING": "norms, activations and rounding before matrices",
    "FS_ROPE": "rope alone",
    "FS_ATTENTION": "attention, with rope",
    "FS_ACTIVATE": "activations alone",
    "FS_ADD": "additions alone",
    "FS_BIAS": "biases alone",
    "FS_SCALE": "scales and soft caps of logits",
    "FS_EXPERTS": "experts",
    "FS_SELECT": "choosing rows",
    "FS_WAITING": "waiting for the other threads",
}
# what an instruction set does, as far as that can be said in a line
SERVES = {
    "reference": "everything, in plain C",
    "avx2": "everything; q8 and q4 by vpmaddubsw",
    "avx_vnni": "everything; q8 and q4 by vpdpbusd on 256 bits",
    "avx512_vnni": "everything; q8 and q4 by vpdpbusd on 512 bits",
    "amx_int8": "q8 and q4 from 12 rows on (prompts), in tiles; the rest as avx512_vnni",
}
ROOM = 64  # of the array that the extension writes to: as many kinds as it may ever have
PASS_S = 0.03  # a reading lasts at least so long
READINGS = 3


def instruction_sets() -> dict[str, bool]:
    """All that the extension was built with, slowest first, and whether this machine has them."""
    ffi, lib, _ = load()
    if lib is None:
        return {}
    numbers = range(lib.fs_isa_count())
    return {ffi.string(lib.fs_isa_name(i)).decode(): bool(lib.fs_isa_usable(i)) for i in numbers}


def start_profile(executor: NativeExecutor) -> None:
    """Take the time from here on."""
    _, lib, _ = load()
    lib.fs_profile(executor._model, 1)


def read_profile(executor: NativeExecutor) -> Mapping[str, float]:
    """Seconds by kind of operation since `start_profile`, which this ends.

    Those of the first thread: what it worked, and apart from that what it waited at the barriers.
    """
    ffi, lib, _ = load()
    seconds = ffi.new("double[]", ROOM)
    lib.fs_profile_read(executor._model, seconds)
    lib.fs_profile(executor._model, 0)
    return {name: seconds[getattr(lib, key)] for key, name in OPERATIONS.items()}


def weight_bytes(executor: NativeExecutor, plan: Plan) -> int:
    """Bytes of weights that one token reads; of an embedding of its own that is one row."""
    groups = executor._weights.groups
    read: set[tuple[str, ...]] = set()
    part = 0
    for op in plan.ops:
        match op:
            case Experts():
                all_experts = sum(groups[group].nbytes for group in weight_groups(op))
                part += all_experts * op.used // op.router.width
            case Embed():
                pass
            case _:
                read.update(weight_groups(op))
    for op in plan.ops:
        if isinstance(op, Embed):
            tables = [groups[group] for group in weight_groups(op) if group not in read]
            part += sum(table.nbytes // max(table.rows, 1) for table in tables)
    return part + sum(groups[group].nbytes for group in read)


def read_rate(executor: NativeExecutor) -> float:
    """Bytes a second at which the executor's threads can read its weights, where they lie.

    The best of a few readings: this is what the machine can do, and nothing makes it faster than
    it is.
    """
    _, lib, _ = load()
    weights = executor._weights

    def seconds(passes: int) -> float:
        started = time.perf_counter()
        lib.fs_read_memory(weights.data, weights.nbytes, executor.threads, passes)
        return time.perf_counter() - started

    passes = math.ceil(PASS_S / max(seconds(1), 1e-7))
    best = min(seconds(passes) for _ in range(READINGS))
    return weights.nbytes * passes / best
