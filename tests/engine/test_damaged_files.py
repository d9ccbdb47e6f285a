"""Thousands of damaged files: each is refused with a CheckpointError, or opens and is sound.

Never another exception, never a warning, a long wait or memory beyond what a small file needs.
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.engine.checkpoints import gguf_writer, open_checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError
from fireside.engine.tokenizers import from_vocabulary, read_vocabulary
from tests.model_files import (
    ggml_legacy,
    gguf_file,
    llama2c,
    sentencepiece_model,
    small_vocabulary,
    tokenizer_bin,
)
from tests.models import random_checkpoint

VOCABULARY = small_vocabulary()
# dim, hidden, layers, heads, kv heads, vocab, context, head_dim
CONFIG = ModelConfig("llama", 8, 10, 2, 4, 2, 6, 5, 2)
WITH_VOCABULARY = replace(CONFIG, vocab_size=len(VOCABULARY), dim=32, n_heads=2, head_dim=16)

Use = Callable[[Path], None]


def use_checkpoint(path: Path) -> None:
    """Open a model and touch everything that a loader touches."""
    checkpoint = open_checkpoint(path)
    size = path.stat().st_size
    assert checkpoint.nbytes <= size
    assert checkpoint.name.isprintable()
    for tensor in checkpoint.tensors.values():
        assert tensor.to_float32().shape == tensor.shape
    if checkpoint.vocabulary is not None:
        assert len(checkpoint.vocabulary) == checkpoint.config.vocab_size
        tell(path)


def tell(path: Path) -> None:
    """Read a vocabulary and tokenise with it."""
    tokenizer = from_vocabulary(read_vocabulary(path))
    ids = tokenizer.encode("Once upon a time, été 猫 \n")
    assert all(0 <= i < len(tokenizer.vocabulary) for i in ids if i != -1)
    tokenizer.decode([i for i in ids if i >= 0])
    tokenizer.decode(list(range(len(tokenizer.vocabulary))))
    assert all(0 <= i < len(tokenizer.vocabulary) for i in tokenizer.end_ids)


@cache
def originals() -> dict[str, tuple[bytes, int, Use]]:
    """Name -> a good file, the bytes of its header, what to do with it."""
    model = random_checkpoint(CONFIG, 1)
    untied = random_checkpoint(CONFIG, 2, tied=False)
    carrying = replace(
        random_checkpoint(WITH_VOCABULARY, 3, "Q8_0"), vocabulary=VOCABULARY, name="whole"
    )
    metadata = {"x.list": ["a", "b"], "x.numbers": np.arange(3), "x.no": False, "x.low": -1}
    whole, header = gguf_file(carrying, metadata)
    bare, bare_header = gguf_file(model)
    alone, alone_header = gguf_file(replace(carrying, tensors={}), metadata)
    pieces = sentencepiece_model(VOCABULARY)
    old = replace(random_checkpoint(WITH_VOCABULARY, 4, tied=False), vocabulary=VOCABULARY)
    blocks = replace(
        random_checkpoint(WITH_VOCABULARY, 4, "Q4_0", tied=False), vocabulary=VOCABULARY
    )
    return {
        "llama2.c v0": (llama2c(model, 0), 28, use_checkpoint),
        "llama2.c v0 untied": (llama2c(untied, 0), 28, use_checkpoint),
        "llama2.c v1": (llama2c(model, 1), 41, use_checkpoint),
        "llama2.c v2": (llama2c(model, 2, 4), 41, use_checkpoint),
        "GGUF": (whole, header, use_checkpoint),
        "GGUF without a vocabulary": (bare, bare_header, use_checkpoint),
        "ggml": (ggml_legacy(old, "ggml"), 3000, use_checkpoint),
        "ggmf": (ggml_legacy(old, "ggmf 1"), 6000, use_checkpoint),
        "ggjt 1": (ggml_legacy(blocks, "ggjt 1"), 6000, use_checkpoint),
        "ggjt 3": (ggml_legacy(blocks, "ggjt 3"), 6000, use_checkpoint),
        "GGUF vocabulary": (alone, alone_header, tell),
        "tokenizer.bin": (tokenizer_bin(VOCABULARY), 200, tell),
        "tokenizer.model": (pieces, len(pieces), tell),
    }


NAMES = tuple(originals())


def check(path: Path, data: bytes, use: Use) -> bool:
    """Whether the file opens; fails where it does anything but open or be refused."""
    path.write_bytes(data)
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(path)
        opened, error = True, ""
    except CheckpointError as refusal:
        opened = False
        error = str(refusal)
    assert time.perf_counter() - start < 2
    assert opened or str(path) in error
    assert error.isprintable()
    return opened


INT32 = (0, 1, -1, 2, 7, 255, 65536, 2**31 - 1, -(2**31), 2**30)
INT64 = (0, 1, 2**16, 2**31, 2**32 + 1, 2**40, 2**61, 2**63, 2**64 - 1, 2**64 - 32)


def damaged(name: str, count: int) -> Iterator[bytes]:
    """Some hundred damaged copies of a good file, the same every time."""
    data, header, _ = originals()[name]
    rng = random.Random(name)
    for length in {*range(0, min(header, 300), 3), *rng.choices(range(len(data)), k=40)}:
        yield data[:length]
    for extra in (b"\0", b"\0" * 32, bytes(4096), b"\xff" * 7, data):
        yield data + extra
    for _ in range(count):
        changed = bytearray(data)
        at = rng.randrange(header)
        kind = rng.randrange(7)
        if kind == 0:  # one bit
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:  # some bits
            for _ in range(rng.randrange(2, 20)):
                changed[rng.randrange(header)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            struct.pack_into("<i", changed, min(at, len(data) - 4), rng.choice(INT32))
        elif kind == 3:
            struct.pack_into("<Q", changed, min(at, len(data) - 8), rng.choice(INT64))
        elif kind == 4:  # bytes lost
            del changed[at : at + rng.choice((1, 2, 4, 8, 31))]
        elif kind == 5:  # bytes that were not there
            changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 31)))
        else:  # a part of the file in the place of another
            source = rng.randrange(header)
            length = rng.randrange(1, 64)
            changed[at : at + length] = data[source : source + length]
        yield bytes(changed)


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_file_opens(tmp_path: Path, name: str) -> None:
    data, _, use = originals()[name]
    assert check(tmp_path / "file", data, use)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_or_sound(tmp_path: Path, name: str) -> None:
    use = originals()[name][2]
    path = tmp_path / "file"
    results = [check(path, data, use) for data in damaged(name, 800)]
    assert results.count(False) > 150  # most are noticed


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation_is_noticed(tmp_path: Path, name: str) -> None:
    data, _, use = originals()[name]
    path = tmp_path / "file"
    rng = random.Random(6)
    for length in (len(data) - 1, *rng.choices(range(len(data)), k=60)):
        opened = check(path, data[:length], use)
        # a vocabulary that ends after a whole piece cannot be told from a smaller one
        assert not opened or name.startswith(("tokenizer", "GGUF vocabulary"))


@pytest.mark.parametrize("name", NAMES)
def test_headers_with_any_number_in_any_place(tmp_path: Path, name: str) -> None:
    data, header, use = originals()[name]
    path = tmp_path / "file"
    for at in range(min(header, 44)):
        for number in (0, -1, 2**31 - 1, -(2**31)):
            changed = bytearray(data)
            struct.pack_into("<i", changed, at, number)
            check(path, bytes(changed), use)


BEGINNINGS = (
    b"",
    b"GGUF\x03\0\0\0",
    b"24ka\x01\0\0\0",
    b"24ka\x02\0\0\0",
    b"tjgg\x03\0\0\0",
    b"\x0a\x0e\x0a\x05",
)


@given(beginning=st.sampled_from(BEGINNINGS), rest=st.binary(max_size=400))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_bytes(tmp_path: Path, beginning: bytes, rest: bytes) -> None:
    assert not check(tmp_path / "file", beginning + rest, use_checkpoint)
    check(tmp_path / "file", beginning + rest, tell)


WEIRD: tuple[object, ...] = (
    0, 1, -1, 3, 2**31, 2**32 - 1, 2**64 - 1, -(2**63), True, False, "", "llama", "\x1b[2J",
    "é" * 99,
    0.0, -1.5, 1e38, float("inf"), float("nan"), [], ["a"], ["<unk>"] * len(VOCABULARY),
    np.zeros(0, np.float32), np.zeros(len(VOCABULARY), np.int8), np.full(3, np.nan, np.float64),
    np.full(len(VOCABULARY), 2**40), np.full(len(VOCABULARY), 1e300), np.full(len(VOCABULARY), 5),
    np.full(len(VOCABULARY), -np.inf),
)  # fmt: skip


def test_metadata_of_any_type_and_value(tmp_path: Path) -> None:
    model = replace(random_checkpoint(WITH_VOCABULARY, 3, "Q8_0"), vocabulary=VOCABULARY)
    keys = [
        *gguf_writer.describe(WITH_VOCABULARY, "", []),
        *gguf_writer.describe_vocabulary(VOCABULARY),
        *("general.alignment", "llama.rope.scaling.type", "llama.expert_count"),
        *("tokenizer.ggml.eot_token_id", "llama.attention.sliding_window"),
    ]
    for key in keys:
        for value in WEIRD:
            check(tmp_path / "file", gguf_file(model, {key: value})[0], use_checkpoint)


@pytest.mark.parametrize("name", NAMES)
def test_little_memory_is_needed(tmp_path: Path, name: str) -> None:
    use = originals()[name][2]
    path = tmp_path / "file"
    files = list(damaged(name, 60))
    tracemalloc.start()
    try:
        for data in files:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            check(path, data, use)
            assert tracemalloc.get_traced_memory()[1] - before < 20 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["llama2.c v1", "GGUF"])
def test_a_giant_costs_no_more_than_its_header(tmp_path: Path, name: str) -> None:
    """A header that promises terabytes, in a file that is as long (and sparse)."""
    path = tmp_path / "giant"
    path.write_bytes(originals()[name][0])
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(CheckpointError, match="longer") if "v1" in name else nullcontext():
            open_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
        assert time.perf_counter() - start < 1
    finally:
        tracemalloc.stop()


def metadata_entry(key: str, kind: int) -> bytes:
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind)


def gguf_start(tensors: int, entries: int) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, entries)


EMPTY_ARRAY = struct.pack("<IQ", 0, 0)
HOSTILE: dict[str, Callable[[], bytes]] = {
    "two million empty strings": lambda: (
        gguf_start(0, 1) + metadata_entry("a", 9) + struct.pack("<IQ", 8, 1 << 21) + bytes(8 << 21)
    ),
    "three million empty strings": lambda: (
        gguf_start(0, 1)
        + metadata_entry("a", 9)
        + struct.pack("<IQ", 8, 3 << 20)
        + bytes(8 * 3 << 20)
    ),
    "arrays in an array": lambda: (
        gguf_start(0, 1)
        + metadata_entry("a", 9)
        + struct.pack("<IQ", 9, 65000)
        + EMPTY_ARRAY * 65000
    ),
    "65,536 entries": lambda: (
        gguf_start(0, 1 << 16)
        + b"".join(metadata_entry(f"k{i}", 0) + b"\0" for i in range(1 << 16))
    ),
    "long strings": lambda: (
        gguf_start(0, 8)
        + b"".join(
            metadata_entry(f"k{i}", 8) + struct.pack("<Q", 15 << 20) + b"a" * (15 << 20)
            for i in range(8)
        )
    ),
    "65,536 tensors in one place": lambda: (
        gguf_start(1 << 16, 0)
        + b"".join(
            struct.pack("<Q", 6) + b"t%05d" % i + struct.pack("<IQIQ", 1, 8, 0, 0)
            for i in range(1 << 16)
        )
        + bytes(64)
    ),
    "the largest version 0": lambda: (
        struct.pack("<7i", 1 << 18, 1 << 20, 4096, 4096, 4096, 1 << 22, 1 << 22) + bytes(10_000)
    ),
}


# Opens each file named; prints the seconds that took, the memory beyond what was needed before
# (bytes) and the error.
IN_A_PROCESS_OF_ITS_OWN = """
import resource, sys, time
from pathlib import Path
from fireside.engine import CheckpointError, open_checkpoint
def peak():
    kilo = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilo
before = peak()
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        open_checkpoint(Path(path))
    except CheckpointError as error:
        print(time.process_time() - start, peak() - before, error)
"""


@pytest.mark.skipif(os.name != "posix", reason="the memory a process needs is asked as on POSIX")
def test_files_made_to_exhaust_a_reader(tmp_path: Path) -> None:
    paths = [tmp_path / name.replace(" ", "-") for name in HOSTILE]
    for path, content in zip(paths, HOSTILE.values(), strict=True):
        path.write_bytes(content())
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, *map(str, paths)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len(paths)
    for path, line in zip(paths, lines, strict=True):
        seconds, memory, error = line.split(" ", 2)
        assert error.startswith(str(path))
        assert float(seconds) < 2
        assert int(memory) < 200 << 20
