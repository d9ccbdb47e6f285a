"""Thousands of damaged files, opened in a process that is watched.

    python -m tests.damaged FOLDER COUNT SAMPLE...

Each sample is a good model or tokenizer, and one file of it to damage. Every damaged copy opens and
is sound, or is refused by a CheckpointError: in a second, in 200 MB, without any other exception or
warning, with no program run, nothing written and nothing read but the files of the model.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fireside.engine.errors import CheckpointError
from tests.damaged_samples import Files, Sample, samples

SECONDS = 1.0
MEMORY = 200 << 20

# ---- damage

INT32 = (0, 1, -1, 2, 7, 255, 65536, 2**31 - 1, -(2**31), 2**30)
INT64 = (0, 1, 2**16, 2**31, 2**32 + 1, 2**40, 2**61, 2**63, 2**64 - 1, 2**64 - 32)
ODD: tuple[object, ...] = (
    None, True, -1, 0, 1, 2**31, 2**70, 1e308, -0.5, "", "x", "\x1b[2J", "../../etc/passwd", "\0",
    "\ud800", [], {}, [[]], [None] * 3, {"a": {"a": {}}}, "é" * 9999,
)  # fmt: skip


def damaged(sample: Sample, count: int, name: str) -> Iterator[bytes]:
    """`count` damaged copies of a sample's file, the same every time."""
    rng = random.Random(name)
    data = sample.data
    for i in range(count):
        if i % 8 == 0:
            yield data[: rng.randrange(len(data) + 1)]
        elif i % 40 == 1:
            yield data + rng.choice((b"\0", b"\0" * 32, bytes(4096), b"\xff" * 7, data))
        elif i % 2 and data[:2] == b'{"':
            yield changed_json(data, rng)
        else:
            yield changed_bytes(data, rng.choice(sample.places), rng)


def changed_json(data: bytes, rng: random.Random) -> bytes:
    """A value in it is another one; now and then a key is there twice, or nested without end."""
    value = json.loads(data)
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            break
        place = inner
    kind = rng.randrange(12)
    if kind == 0:
        del place[key]
    else:
        place[key] = "@" if kind < 3 else rng.choice(ODD)
    text = json.dumps(value).encode()
    if kind == 1:
        return text.replace(b'"@"', b"[" * 50_000, 1)
    if kind == 2:
        return b'{"a": 1, "a": 2, ' + text[1:].replace(b'"@"', b"9" * 5000, 1)
    return text


def changed_bytes(data: bytes, place: tuple[int, int], rng: random.Random) -> bytes:
    """Some bytes within `place`, or after it, are others."""
    changed = bytearray(data)
    first, last = place
    at = rng.randrange(first, max(first + 1, min(last, len(data))))
    kind = rng.randrange(7)
    if kind == 0:  # one bit
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == 1:  # some bits
        for _ in range(rng.randrange(2, 20)):
            changed[rng.randrange(first, min(last, len(data)) or 1)] ^= 1 << rng.randrange(8)
    elif kind == 2 and len(data) >= 4:
        struct.pack_into("<i", changed, min(at, len(data) - 4), rng.choice(INT32))
    elif kind == 3 and len(data) >= 8:
        struct.pack_into("<Q", changed, min(at, len(data) - 8), rng.choice(INT64))
    elif kind == 4:  # bytes lost
        del changed[at : at + rng.choice((1, 2, 4, 8, 31))]
    elif kind == 5:  # bytes that were not there
        changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 31)))
    else:  # a part of the file in the place of another
        source = rng.randrange(len(data))
        length = rng.randrange(1, 64)
        changed[at : at + length] = data[source : source + length]
    return bytes(changed)


# ---- the watch

RUNS = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "socket.",
    "ctypes.", "pickle.", "webbrowser.", "os.remove", "os.rename", "os.mkdir",
    "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown", "os.putenv",
    "shutil.", "sys.setprofile",
)  # fmt: skip


class Watch:
    """Raises where the program does what no file may make it do."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.on = False
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook, for good."""
        if not self.on:
            return
        if event.startswith(RUNS):
            self.on = False
            raise AssertionError(f"{event} {arguments!r:.200}")
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or flags & 3
            program = str(path).endswith((".py", ".pyc", ".so"))  # what is imported late
            if writes or not (program or str(path).startswith(self.folder)):
                self.on = False
                raise AssertionError(f"opens {path!r:.200}, {mode}, {flags}")


def limit_memory() -> None:
    """This process gets no more than it has, and MEMORY."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak() -> int:
    """Bytes of memory that this process ever had. Not ru_maxrss: that counts its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def write(folder: Path, files: Files) -> None:
    """The files of a sample."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def check(sample: Sample, folder: Path, data: bytes, watch: Watch) -> tuple[bool, float]:
    """Whether a damaged copy opens, and the seconds of computing that took."""
    write(folder, sample.files(data))
    path = folder / sample.opened if sample.opened else folder
    start = time.process_time()
    watch.on = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sample.use(path)
        opened, error = True, ""
    except CheckpointError as refusal:
        opened, error = False, str(refusal)
    finally:
        watch.on = False
    seconds = time.process_time() - start
    assert opened or str(folder) in error, error
    assert error.isprintable(), ascii(error)
    assert len(error) < 1000 + len(str(folder)) * 2, error
    return opened, seconds


def run(name: str, sample: Sample, folder: Path, count: int, watch: Watch) -> dict[str, object]:
    """All damaged copies of one sample."""
    folder.mkdir()
    whole, _ = check(sample, folder, sample.data, watch)
    refused, slowest = 0, 0.0
    for i, data in enumerate(damaged(sample, count // sample.share, name)):
        try:
            opened, seconds = check(sample, folder, data, watch)
            assert seconds < SECONDS, f"{seconds:.2f} s"
        except BaseException:
            print(f"{name}: damaged copy {i}", file=sys.stderr)
            raise
        refused += not opened
        slowest = max(slowest, seconds)
    return {"name": name, "whole": whole, "refused": refused, "seconds": round(slowest, 3)}


def main(place: Path, count: int, names: list[str]) -> None:
    """Prints a line of JSON for each sample."""
    sys.dont_write_bytecode = True
    all_of_them = samples()
    warm_up(place)
    watch = Watch(place)
    limit_memory()
    before = peak()
    for i, name in enumerate(names):
        result = run(name, all_of_them[name], place / str(i), count, watch)
        print(json.dumps({**result, "megabytes": (peak() - before) >> 20}), flush=True)


def warm_up(place: Path) -> None:
    """What is imported when it is first used is imported now: that opens files."""
    folder = place / "warm"
    folder.mkdir()
    for name in (
        "Hugging Face, config.json",
        "Meta, params.json",
        ".pt",
        "GGUF, byte-level",
        "ggjt 1",
    ):
        sample = samples()[name]
        write(folder, sample.files(sample.data))
        try:
            sample.use(folder / sample.opened)
        except CheckpointError:
            continue


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
