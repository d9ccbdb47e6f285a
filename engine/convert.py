"""From any model that can be read to GGUF or llama2.c's files.

Types: matrices become the type asked for. What llama.cpp keeps larger stays so, for the same
reasons: vectors (norms, biases), a router's weights and tables of positions are F32; with types
below Q6_K the classifier, which is the embedding where it has none of its own, is Q6_K. Rows that
are no whole blocks of a K type take the type beside it in blocks of 32, else F16.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from fireside.engine import blocks
from fireside.engine.checkpoints import gguf_writer, llama2c_writer
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.errors import UnsupportedError

TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0",
)  # fmt: skip
FORMATS = ("gguf", "llama2c-v0", "llama2c-v2")
BELOW_Q6_K = frozenset(TYPES[TYPES.index("Q5_K") :])
INSTEAD = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # where rows are no whole blocks
UNTOUCHED = ("ffn_gate_inp.weight", "position_embd.weight")

Progress = Callable[[int, int], None]


def types_of(checkpoint: Checkpoint, kind: str | None, pure: bool = False) -> dict[str, str]:
    """The block format of each tensor in a GGUF file.

    kind: one of TYPES; None leaves matrices as they are where GGUF can. pure: matrices are of
    `kind` without exception.
    """
    classifier = "token_embd.weight" if checkpoint.tied else "output.weight"
    result: dict[str, str] = {}
    for name, tensor in checkpoint.tensors.items():
        if len(tensor.shape) == 1 or name.endswith(UNTOUCHED):
            result[name] = "F32"
        elif kind is None:
            own = blocks.get(tensor.block)
            result[name] = own.name if own.ggml_type >= 0 else fitting(tensor, "Q8_0")
        elif name == classifier and kind in BELOW_Q6_K and not pure:
            result[name] = fitting(tensor, "Q6_K")
        else:
            result[name] = fitting(tensor, kind)
    return result


def fitting(tensor: Tensor, kind: str) -> str:
    """`kind`, or the type to take instead where the rows are no whole blocks of it."""
    for name in (kind, INSTEAD.get(kind, kind)):
        if tensor.shape[-1] % blocks.get(name).block_size == 0:
            return name
    return "F16"


def carried(checkpoint: Checkpoint, own_tokenizer: bool) -> Mapping[str, object]:
    """What a GGUF file's metadata says beyond what the writer makes itself.

    own_tokenizer: the tokenizer is the file's own, and goes over entry by entry.
    """
    if not checkpoint.format.startswith("GGUF"):
        return {}
    made = ("general.file_type", "general.quantization_version", "general.alignment")
    result: dict[str, object] = {}
    for key, value in checkpoint.metadata.items():
        if key in made or key.startswith("split.") or isinstance(value, list):
            continue  # a list is an array of arrays, which no reader asks for
        if own_tokenizer or not key.startswith("tokenizer."):
            result[key] = value
    return result


def convert(
    checkpoint: Checkpoint,
    path: Path,
    form: str = "gguf",
    kind: str | None = None,
    *,
    pure: bool = False,
    own_tokenizer: bool = True,
    threads: int = 1,
    progress: Progress = lambda done, total: None,
) -> None:
    """Write `checkpoint`, with its vocabulary if it has one, to the file `path`.

    form: one of FORMATS; kind: see `types_of`, for GGUF alone. The file appears when it is
    complete. progress(bytes done, bytes in all) may raise to give up. UnsupportedError for what
    the format cannot hold, FiresideError where the disk is too small, CheckpointError where
    reading or writing fails.
    """
    if form not in FORMATS:
        raise UnsupportedError(f"unknown format {form!r}", f"choose one of {', '.join(FORMATS)}")
    if form != "gguf":
        version = int(form[-1])
        llama2c_writer.write(path, checkpoint, version, threads, progress)
        return
    gguf_writer.write(
        path,
        checkpoint.config,
        checkpoint.tensors,
        checkpoint.vocabulary,
        checkpoint.name,
        types_of(checkpoint, kind, pure),
        carried(checkpoint, own_tokenizer),
        threads,
        progress,
    )
