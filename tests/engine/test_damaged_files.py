"""Thousands of damaged files: each is refused with a CheckpointError, or opens and is sound.

Never another exception, never a warning, a long wait or memory beyond what a small file needs; and
nothing is run, or written, or read but the model's own files. (tests/damaged.py makes the damage)
"""

from __future__ import annotations

import base64
import json
import os
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fireside.engine.checkpoints import gguf_writer, open_checkpoint
from fireside.engine.errors import CheckpointError
from tests.damaged import write
from tests.damaged_samples import (
    TELLING,
    VOCABULARY,
    Sample,
    samples,
    use_checkpoint,
    use_tokenizer,
)
from tests.model_files import gguf_file
from tests.models import random_checkpoint
from tests.torch_files import zipped

COUNT = int(os.environ.get("FIRESIDE_DAMAGED_FILES", "200"))  # of each sample
SAMPLES = samples()
# Samples are watched in a process for each of these
READERS = {
    "GGUF": "GGUF", "ggml of before GGUF": "gg", "llama2.c": "llama2.c", "PyTorch": ".pt",
    "Meta": "Meta", "Hugging Face": "Hugging Face", "tokenizers": "tok", "tiktoken": "tiktoken",
}  # fmt: skip
# What is damaged there is not all noticed: weights, templates and keys that nobody asks for
LITTLE_NOTICED = (".pt unpacked, data/0", "Hugging Face, chat_template.jinja")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as on Linux")


def test_every_sample_has_a_reader() -> None:
    for name in SAMPLES:
        readers = [key for key, start in READERS.items() if name.startswith(start)]
        assert len(readers) == 1, name


@needs_linux
@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_refused_or_sound(tmp_path: Path, reader: str) -> None:
    names = [name for name in SAMPLES if name.startswith(READERS[reader])]
    command = [sys.executable, "-m", "tests.damaged", str(tmp_path), str(COUNT), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["name"] for result in results] == names
    for result in results:
        assert result["whole"], result
        assert result["megabytes"] < 100, result
        if result["name"] not in LITTLE_NOTICED:
            assert result["refused"] * 8 >= COUNT // SAMPLES[result["name"]].share, result


def check(path: Path, data: bytes, use: Callable[[Path], None]) -> bool:
    """Whether the file opens; fails where it does anything but open or be refused."""
    path.write_bytes(data)
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            use(path)
        opened, error = True, ""
    except CheckpointError as refusal:
        opened = False
        error = str(refusal)
    assert time.process_time() - start < 1
    assert opened or str(path) in error
    assert error.isprintable()
    return opened


# Single files, and where their headers end
ALONE: dict[str, Sample] = {
    name: sample
    for name, sample in SAMPLES.items()
    if sample.opened == "file" and "pickle" not in name and sample.share == 1
}


@pytest.mark.parametrize("name", ALONE)
def test_every_truncation_is_noticed(tmp_path: Path, name: str) -> None:
    data, use = ALONE[name].data, ALONE[name].use
    path = tmp_path / "file"
    rng = random.Random(6)
    early = range(0, min(300, len(data)), 3)
    for length in {len(data) - 1, *early, *rng.choices(range(len(data)), k=60)}:
        opened = check(path, data[:length], use)
        # a vocabulary that ends after a whole piece cannot be told from a smaller one
        assert not opened or name.startswith(("tokenizer", "GGUF vocabulary"))


@pytest.mark.parametrize("name", ALONE)
def test_headers_with_any_number_in_any_place(tmp_path: Path, name: str) -> None:
    data, use = ALONE[name].data, ALONE[name].use
    path = tmp_path / "file"
    for at in range(44):
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
    check(tmp_path / "file", beginning + rest, use_tokenizer)


WEIRD: tuple[object, ...] = (
    0, 1, -1, 3, 2**31, 2**32 - 1, 2**64 - 1, -(2**63), True, False, "", "llama", "\x1b[2J",
    "é" * 99,
    0.0, -1.5, 1e38, float("inf"), float("nan"), [], ["a"], ["<unk>"] * len(VOCABULARY),
    np.zeros(0, np.float32), np.zeros(len(VOCABULARY), np.int8), np.full(3, np.nan, np.float64),
    np.full(len(VOCABULARY), 2**40), np.full(len(VOCABULARY), 1e300), np.full(len(VOCABULARY), 5),
    np.full(len(VOCABULARY), -np.inf),
)  # fmt: skip


def test_metadata_of_any_type_and_value(tmp_path: Path) -> None:
    model = replace(random_checkpoint(TELLING, 3, "Q8_0"), vocabulary=VOCABULARY)
    keys = [
        *gguf_writer.describe(TELLING, "", []),
        *gguf_writer.describe_vocabulary(VOCABULARY),
        *("general.alignment", "llama.rope.scaling.type", "llama.expert_count"),
        *("tokenizer.ggml.eot_token_id", "llama.attention.sliding_window"),
    ]
    for key in keys:
        for value in WEIRD:
            check(tmp_path / "file", gguf_file(model, {key: value})[0], use_checkpoint)


@pytest.mark.parametrize("name", ["llama2.c v1", "GGUF"])
def test_a_giant_costs_no_more_than_its_header(tmp_path: Path, name: str) -> None:
    """A header that promises terabytes, in a file that is as long (and sparse)."""
    path = tmp_path / "giant"
    path.write_bytes(SAMPLES[name].data)
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


def keys(count: int) -> str:
    """So many keys of an object."""
    return ",".join(f'"{i:x}":0' for i in range(count))


def long_header() -> bytes:
    text = b"{" + keys(398_000).encode() + b"}"
    return len(text).to_bytes(8, "little") + text


# Just within the limits of the other readers: name of a sample, the file in the place of its own
LIMITS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "keys of config.json": (
        "Hugging Face, config.json", lambda: b"{" + keys(390_000).encode() + b"}"
    ),
    "lists in config.json": (
        "Hugging Face, config.json", lambda: b'{"a":[' + b"[]," * 199_000 + b"0]}"
    ),
    "a long word in config.json": (
        "Hugging Face, config.json", lambda: b'{"a":"' + b"a" * ((1 << 24) - 20) + b'"}'
    ),
    "keys of generation_config.json": (
        "Hugging Face, generation_config.json", lambda: b"{" + keys(390_000).encode() + b"}"
    ),
    "a header of safetensors": ("Hugging Face, model.safetensors", long_header),
    "a long header of safetensors": (
        "Hugging Face, model.safetensors",
        lambda: ((1 << 25) - 9).to_bytes(8, "little") + b"{" + b" " * (1 << 25),
    ),
    "names in an index": (
        "Hugging Face, model.safetensors.index.json",
        lambda: b'{"weight_map":{' + keys(390_000).encode() + b"}}",
    ),
    "dicts in a pickle": (".pt, its pickle", lambda: b"}" * ((1 << 18) - 1) + b"."),
    "memos of a pickle": (".pt, its pickle", lambda: b"}" + b"\x94" * 990_000 + b"."),
    "texts in a pickle": (
        ".pt, its pickle",
        lambda: (b"X" + struct.pack("<I", 1 << 22) + b"a" * (1 << 22)) * 3 + b".",
    ),
    "keys of a dict in a pickle": (
        ".pt, its pickle",
        lambda: b"}" + b"".join(b"J" + struct.pack("<i", i) + b"Ns" for i in range(330_000)) + b".",
    ),
    "members of an archive": (
        ".pt", lambda: zipped({f"x/data/{i}": b"" for i in range(32_000)} | {"x/data.pkl": b"}."})
    ),
    "an archive that unpacks to a giant": (
        ".pt", lambda: zipped({"x/data.pkl": bytes(1 << 27)}, packed=True)
    ),
    "pieces of tokenizer.bin": (
        "tokenizer.bin", lambda: struct.pack("<i", 4) + bytes(8) * ((1 << 21) - 2)
    ),
    "pieces of ggjt": (
        "ggjt 3",
        lambda: b"tjgg" + struct.pack("<8I", 3, 500_000, 8, 256, 2, 1, 4, 0) + bytes(4_000_000),
    ),
    "lines of tiktoken": (
        "tiktoken's",
        lambda: b"".join(base64.b64encode(b"%d" % i) + b" %d\n" % i for i in range(900_000)),
    ),
}  # fmt: skip


# Opens each file named; prints the seconds that took, the memory beyond what was needed before
# (bytes) and the error.
IN_A_PROCESS_OF_ITS_OWN = """
import sys, time
from pathlib import Path
from fireside.engine import CheckpointError, open_checkpoint
from fireside.engine.checkpoints import ggml_legacy, gguf, hf, llama2c, meta, torch_pt
from fireside.engine.tokenizers import files, read_vocabulary
from tests.damaged import peak
before = peak()
for path in sys.argv[2:]:
    start = time.process_time()
    try:
        (read_vocabulary if sys.argv[1] == "tokenizer" else open_checkpoint)(Path(path))
        error = f"{path} opens"
    except CheckpointError as refusal:
        error = refusal
    print(time.process_time() - start, peak() - before, error)
"""


def opened_elsewhere(kind: str, paths: list[Path]) -> list[tuple[float, int, str]]:
    """Seconds, bytes and the error of each."""
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN, kind, *map(str, paths)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(lines) == len(paths)
    found = [line.split(" ", 2) for line in lines]
    return [(float(seconds), int(memory), error) for seconds, memory, error in found]


@needs_linux
def test_files_made_to_exhaust_a_reader(tmp_path: Path) -> None:
    paths = [tmp_path / name.replace(" ", "-") for name in HOSTILE]
    for path, content in zip(paths, HOSTILE.values(), strict=True):
        path.write_bytes(content())
    results = opened_elsewhere("model", paths)
    for path, (seconds, memory, error) in zip(paths, results, strict=True):
        assert error.startswith(f"{path}: ")
        assert seconds < 2, error  # on a busy machine
        assert memory < 200 << 20


@needs_linux
@pytest.mark.parametrize("name", LIMITS)
def test_as_much_as_a_reader_takes(tmp_path: Path, name: str) -> None:
    sample, content = LIMITS[name]
    write(tmp_path, SAMPLES[sample].files(content()))
    kind = "tokenizer" if SAMPLES[sample].use is use_tokenizer else "model"
    ((seconds, memory, error),) = opened_elsewhere(kind, [tmp_path / SAMPLES[sample].opened])
    assert str(tmp_path) in error
    assert seconds < 2, error
    assert memory < 200 << 20, error
