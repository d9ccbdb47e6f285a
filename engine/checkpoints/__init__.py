"""Checkpoints: files of every format become one `Checkpoint`. One file a format, one registry.

A format is recognised by what a file holds, never by its name. Model files are hostile input: a
reader checks every offset, count, length and shape before it uses it, reads nothing but headers,
and hands out the weights as places in the open file (source.py).
"""

from __future__ import annotations

import importlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from fireside.engine.checkpoints.source import Source
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.records import record

HEAD_BYTES = 512  # what `recognises` is shown of a file

# The files of this package that hold a format, in the order in which they are asked. A file is
# imported when it is asked: to read a GGUF file costs no time for the others.
READERS = ("gguf", "ggml_legacy", "hf", "llama2c", "meta", "torch_pt")


@record
class Format:
    """An entry of the registry.

    `recognises` gets the path and the file's first 512 bytes (fewer where the file is shorter,
    none where the path is a folder) and must not raise; `read` raises CheckpointError.
    """

    name: str
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Path], Checkpoint]


_REGISTRY: dict[str, Format] = {}

# Files that people take for models, by how they begin.
_LOOKS_LIKE = (
    (b"version https://git-lfs", "this is a Git LFS pointer: fetch the file itself (git lfs pull)"),
    (b"<!DOCTYPE", "this is a web page: download the file itself"),
    (b"<html", "this is a web page: download the file itself"),
)


def register(checkpoint_format: Format) -> None:
    """Add an entry; a second one of the same name is a programming error."""
    if checkpoint_format.name in _REGISTRY:
        raise RuntimeError(f"checkpoint format {checkpoint_format.name!r} is registered twice")
    _REGISTRY[checkpoint_format.name] = checkpoint_format


def formats() -> Iterator[Format]:
    """All formats, those of readers that are imported already first."""
    given: set[str] = set()
    for reader in ("", *READERS):
        if reader:
            importlib.import_module(f"{__name__}.{reader}")
        fresh = [entry for name, entry in _REGISTRY.items() if name not in given]
        for entry in fresh:
            given.add(entry.name)
            yield entry


def names() -> tuple[str, ...]:
    """Names of all formats."""
    return tuple(entry.name for entry in formats())


def read_head(path: Path) -> bytes:
    """The first bytes of the file at `path`; b"" for a folder.

    CheckpointError where there is nothing readable. Pipes and devices are refused: they can
    neither be read at will nor be trusted to end.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return b""
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path}: not a regular file", "give the path of a file")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file", "check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise CheckpointError(
            f"{path}: cannot be read: {reason}", "check the path and its permissions"
        ) from None
    if not head:
        raise CheckpointError(f"{path}: the file is empty", "download or copy it again")
    return head


def read_file(path: Path, limit: int) -> bytes:
    """The whole file; CheckpointError where that fails, or it has more than `limit` bytes."""
    source = Source(path)
    if source.size > limit:
        raise CheckpointError(f"{path}: {source.size:,} bytes, expected at most {limit:,}")
    return source.read(0, source.size).tobytes()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the model at `path`: header parsed and checked, weights not read yet.

    CheckpointError where the file is missing, unreadable, damaged or of no known format;
    UnsupportedError where it is sound but holds what this version cannot run.
    """
    path = Path(path)
    try:
        checkpoint = recognise(path).read(path)
    except OSError as error:  # a folder that may not be looked into
        raise CheckpointError(
            f"{path}: cannot be read: {error.strerror or error}",
            "check the path and its permissions",
        ) from None
    check_tensors(checkpoint)
    return checkpoint


def recognise(path: Path) -> Format:
    """The format of the file or folder at `path`; CheckpointError where none knows it."""
    head = read_head(path)
    for checkpoint_format in formats():
        if checkpoint_format.recognises(path, head):
            return checkpoint_format
    hint = f"this version reads {', '.join(names())}"
    if not head:
        raise CheckpointError(f"{path}: a folder, not a model file", hint)
    for beginning, explanation in _LOOKS_LIKE:
        if head.startswith(beginning):
            hint = explanation
    raise CheckpointError(f"{path}: not a model file of a known format", hint)


def check_tensors(checkpoint: Checkpoint) -> None:
    """CheckpointError unless the weights are those of the architecture, no less and no more."""
    # not at import: the architectures themselves use the types of this package
    from fireside.engine import architectures

    config, tensors = checkpoint.config, checkpoint.tensors
    architectures.check_tensors(config, tensors, str(checkpoint.path))
    needed = architectures.get(config.architecture).shapes(config)
    if extra := sorted(tensors.keys() - needed.keys()):
        # a bias, a table of rope factors: to leave it out would run the model, but wrongly
        raise UnsupportedError(
            f"{checkpoint.path}: tensor {extra[0]} is no part of architecture"
            f" {config.architecture}",
            "this version cannot run this variant of the model",
        )
