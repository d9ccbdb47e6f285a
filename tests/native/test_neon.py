"""NEON's kernels on an emulated 64-bit ARM: the same bits as this machine's own.

Compiled by a cross compiler and run by QEMU's user emulation (Debian: gcc-aarch64-linux-gnu,
libc6-dev-arm64-cross, qemu-user); without them there is nothing to run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import architectures
from fireside.engine.blocks import native
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.executors import KV, Quant
from fireside.engine.executors.native_library import load
from fireside.engine.plan import (
    Attention,
    Embed,
    GatedActivation,
    Plan,
    PlanBuilder,
    RMSNorm,
    SelectRows,
    Slice,
)
from tests.models import SHAPES, VARIATIONS, random_checkpoint, random_tensor
from tests.native.cross import Case, compile_driver, converting, numbers, packing, stepping
from tests.native.steps import Floats, matmul_model
from tests.native.test_packing import any_blocks

COMPILER = "aarch64-linux-gnu-gcc"
OLD, NEW = "cortex-a53", "max"  # a CPU without the dot product, one with it
NUMBERS = ("BF16", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K")
LEVELLED = ("Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4")
ROWS = (1, 2, 5, 16, 17)


def emulator() -> str:
    """Path of QEMU's user emulation; skips where something is missing."""
    found = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if found is None:
        pytest.skip("qemu-aarch64 is not installed (Debian: qemu-user)")
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not installed (Debian: gcc-aarch64-linux-gnu)")
    if load()[0].sizeof("void *") != 8 or sys.byteorder != "little":
        pytest.skip("structures of this machine lie in memory otherwise")
    return found


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    emulator()
    folder = tmp_path_factory.mktemp("driver")
    probe = [COMPILER, "-static", "-fopenmp", "-xc", "-", "-o", str(folder / "probe")]
    program = b'#include <stdio.h>\nint main(void) { return puts("") < 0; }\n'
    if subprocess.run(probe, input=program, capture_output=True, check=False).returncode:
        pytest.skip(f"{COMPILER} has no C library (Debian: libc6-dev-arm64-cross)")
    return compile_driver(COMPILER, ["-DFS_HAVE_DOTPROD=1"], folder)


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def awkward(seed: int, *shape: int) -> Floats:
    """Numbers of all sizes, zeros of both signs among them."""
    rng = np.random.default_rng(seed)
    x = normal(seed, *shape) * np.float32(10) ** rng.integers(-30, 15, shape).astype(np.float32)
    x[rng.random(shape) < 0.2] *= np.float32(-0.0)
    return x


def alone(kind: str, width: int, x: Floats) -> Case:
    """One operation that is no matmul: its input is the embedding, its output the logits."""
    b = PlanBuilder()
    a, logits = b.buffer("a", x.shape[1]), b.buffer("logits", width)
    head = width // 2 if kind == "attention" else 16
    b.add(Embed("x", a))
    if kind == "attention":  # two query heads, one of keys and values
        mixed = b.buffer("mixed", width)
        q, k, v = Slice("a", 0, width), Slice("a", width, head), Slice("a", width + head, head)
        b.add(Attention(0, q, k, v, mixed, head, head**-0.5))
        b.add(SelectRows(mixed, logits))
    elif kind == "norm":
        b.add(SelectRows(a, b.buffer("chosen", width)))
        b.add(RMSNorm("w", Slice("chosen", 0, width), logits, 1e-5))
    else:
        b.add(SelectRows(a, b.buffer("chosen", 2 * width)))
        gate, up = Slice("chosen", 0, width), Slice("chosen", width, width)
        b.add(GatedActivation(gate, up, logits))
    plan = Plan(tuple(b.ops), logits, 1, 1, head, b.buffers)
    config = ModelConfig("llama", x.shape[1], 1, 1, 1, 1, len(x), 64, head)
    tensors = {"x": random_tensor("x", x), "w": random_tensor("w", normal(3, width))}
    checkpoint = Checkpoint(Path("test"), "test", "test", config, tensors, None)
    tokens = np.arange(len(x), dtype=np.int32)
    return stepping(f"{kind} {width}", plan, checkpoint, tokens, 1 + len(x) // 2)


def cases() -> list[Case]:
    """Every kernel, whole or beside a vector's end."""
    found = []
    for block in ("F32", "F16", "Q8_0", "Q4_0"):
        for n in ROWS:
            for rows, cols in ((67, 96), (16, 33 if block.startswith("F") else 32)):
                for x in (normal(n, n, cols), awkward(n, n, cols)):
                    model = matmul_model(normal(5, rows, cols), x, block)
                    tokens = np.arange(n, dtype=np.int32)
                    found.append(stepping(f"{block} {rows}x{cols}, {n} rows", *model, tokens, n))
        # a scale that is no half is infinite, and the sign of a NaN is each machine's own
        limit = np.float32(3e38 if block == "F32" else 6e4)
        tensor = random_tensor("w", np.clip(awkward(6, 19, 64), -limit, limit), block)
        kinds = ["F32", "Q8", "Q4"] + ["F16"] * (block == "F16")
        found += [packing(tensor, kind) for kind in kinds]
    for block in NUMBERS:
        for n in ROWS:
            for x in (normal(n, n, 256), awkward(n, n, 256)):
                model = matmul_model(normal(5, 67, 256), x, block)
                tokens = np.arange(n, dtype=np.int32)
                found.append(stepping(f"{block}, {n} rows", *model, tokens, n))
        tensor = random_tensor("w", normal(6, 19, 512), block)
        found += [packing(tensor, kind) for kind in (block, "F32", "Q8", "Q4")]
    for block in ("Q2_K", "Q3_K", "IQ4_XS", *LEVELLED):
        cols = 352 if block in LEVELLED else 256
        matrix = any_blocks(6, 67, cols, block)
        for n in ROWS:
            plan, checkpoint = matmul_model(normal(5, 67, cols), normal(n, n, cols), "F32")
            checkpoint = replace(checkpoint, tensors={**checkpoint.tensors, "w": matrix})
            tokens = np.arange(n, dtype=np.int32)
            found.append(stepping(f"{block}, {n} rows", plan, checkpoint, tokens, n))
        found += [packing(matrix, kind) for kind in (block, "F32", "Q8")]
    floats = random_tensor("w", normal(8, 7, 768) * np.geomspace(1e-3, 1e3, 7)[:, None])
    found += [converting(floats, block) for block in sorted(native.WRITTEN)]
    for width in (1, 16, 50):
        x = np.concatenate([normal(7, 3, width), awkward(8, 3, width)])
        found.append(alone("norm", width, x))
        x = np.concatenate([x * np.float32(30), normal(9, 6, width)], 1)
        found.append(alone("silu", width, x))
    for head in (6, 16, 48, 64):
        found.append(alone("attention", 2 * head, normal(head, 37, 4 * head)))
    return found


def models(shapes: Iterable[str]) -> list[Case]:
    """Whole steps of models, with all kinds of weights."""
    found = []
    kinds: list[tuple[Quant, str, KV]] = [
        ("none", "F32", "f32"),
        ("none", "F16", "f16"),
        ("q8", "F32", "f16"),
        ("q4", "F32", "q8"),
    ]
    for shape in shapes:
        config = (SHAPES | VARIATIONS)[shape]
        plan = architectures.get("llama").plan(config, True)
        tokens = np.random.default_rng(9).integers(0, config.vocab_size, 70).astype(np.int32)
        for quant, block, kv in kinds:
            checkpoint = random_checkpoint(config, 2, block)
            for piece in (70, 7, 1):
                name = f"{shape} {quant} {block}, {piece} at a time"
                found.append(stepping(name, plan, checkpoint, tokens, piece, quant, kv))
    return found


def run(driver: Path, cpu: str, *args: str) -> str:
    command = [emulator(), "-cpu", cpu, str(driver), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def differing(driver: Path, asked: list[Case], cpu: str, kernels: str, threads: int) -> list[str]:
    """Names of the cases whose results are not the expected bytes."""
    source, result = driver.with_name("cases"), driver.with_name("results")
    source.write_bytes(numbers(len(asked)) + b"".join(case.data for case in asked))
    run(driver, cpu, kernels, str(threads), str(source), str(result))
    got, at, wrong = result.read_bytes(), 0, []
    assert len(got) == sum(len(case.expected) for case in asked)
    for case in asked:
        if got[at : at + len(case.expected)] != case.expected:
            wrong.append(case.name)
        at += len(case.expected)
    return wrong


@pytest.mark.parametrize(("cpu", "best"), [(OLD, "neon"), (NEW, "neon_dotprod")])
def test_the_best_that_the_cpu_has_is_chosen(driver: Path, cpu: str, best: str) -> None:
    usable = run(driver, cpu).split()
    assert usable[:2] == ["reference", "neon"]
    assert usable[-1] == best


@pytest.mark.parametrize(
    ("cpu", "kernels"), [(OLD, "reference"), (OLD, "neon"), (NEW, "neon_dotprod")]
)
def test_every_kernel_gives_the_same_bits(driver: Path, cpu: str, kernels: str) -> None:
    assert differing(driver, cases(), cpu, kernels, 1) == []


@pytest.mark.parametrize(
    ("cpu", "kernels", "threads", "shapes"),
    [
        (OLD, "neon", 2, SHAPES | VARIATIONS),
        (NEW, "neon_dotprod", 1, SHAPES | VARIATIONS),
        (OLD, "reference", 1, ["odd"]),  # ten times slower
    ],
)
def test_whole_models_give_the_same_bits(
    driver: Path, cpu: str, kernels: str, threads: int, shapes: Iterable[str]
) -> None:
    assert differing(driver, models(shapes), cpu, kernels, threads) == []
