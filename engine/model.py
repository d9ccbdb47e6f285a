"""`load`: a file becomes a Model, which is immutable and may carry many sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fireside.engine import architectures, executors
from fireside.engine.checkpoints import open_checkpoint
from fireside.engine.checkpoints.types import Checkpoint, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, FiresideError
from fireside.engine.executors import KV, Executor, Progress, Quant
from fireside.engine.records import changed, record
from fireside.engine.session import Session
from fireside.engine.speculation import Speculation
from fireside.engine.tokenizers import Tokenizer, from_vocabulary, read_vocabulary

MAX_THREADS = 1024


@record
class Need:
    """Memory that a model will take, in bytes, known before any of it is."""

    weights: int  # as laid out
    cache_per_token: int
    context: int  # tokens it was trained for: as many as a session has unless told otherwise


class Model:
    """A checkpoint, its tokenizer and an executor with the weights laid out."""

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: Tokenizer, executor: Executor, quant: Quant
    ) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = tokenizer
        self.executor = executor
        self.quant = quant
        # A text never goes on behind a new beginning: llama2.c's models end a story with a BOS.
        self.end_ids = (tokenizer.end_ids | {tokenizer.vocabulary.bos_id}) - {-1}

    @property
    def name(self) -> str:
        """What to call it to a person."""
        return self.checkpoint.name

    @property
    def config(self) -> ModelConfig:
        """Its shape."""
        return self.checkpoint.config

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in memory."""
        return self.executor.nbytes

    def encode(self, text: str) -> list[int]:
        """Ids of `text`, at least one: an empty text is a BOS, or the end of the text before it.

        FiresideError where the model has neither.
        """
        v = self.tokenizer.vocabulary
        ids = self.tokenizer.encode(text) or [v.bos_id if v.bos_id >= 0 else v.eos_id]
        if ids == [-1]:
            raise FiresideError(
                "this model has no token for the beginning of a text", "give it some words"
            )
        return ids

    def session(
        self, context: int = 0, speculation: Speculation = "auto", draft: Model | None = None
    ) -> Session:
        """A new timeline; `context` tokens, 0 = as many as the model was trained for.

        draft: a small model with the same tokens that guesses ahead; UnsupportedError where its
        tokens are others.
        """
        return Session(self, context, speculation, draft)


def load(
    path: str | Path,
    *,
    quant: Quant = "none",
    kernels: str = "auto",
    threads: int = 0,
    kv: KV = "f16",
    tokenizer: str | Path | None = None,
    progress: Progress | None = None,
    admit: Callable[[Need], None] | None = None,
    context: int = 0,
) -> Model:
    """Open the model file at `path` and lay its weights out for the chosen kernels.

    quant: "none" = as the file has them, "f16" = cast to halfs, "q8" or "q4" = quantised now.
    kernels: "auto", "native" or "numpy". threads: 0 = as many as there are cores to use. kv: how
    the cache keeps keys and values: "f16", "f32" or "q8" (int8 blocks). tokenizer: a file for
    checkpoints that carry none (a `tokenizer.bin`, `tokenizer.model` or `tokenizer.json` beside the
    model is found by itself), or a folder.
    progress(done, total) counts bytes; what it raises ends the loading.
    admit(need) is called before memory is taken, and may raise to refuse. context: tokens that
    sessions will have at most, for models that turn positions otherwise in long texts (Phi-3); 0 =
    what the model has without that. Raises CheckpointError, UnsupportedError, KernelsError.
    """
    if quant not in executors.QUANTS:
        raise FiresideError(f"unknown quantisation {quant!r}", "choose none, f16, q8 or q4")
    if kv not in executors.KVS:
        raise FiresideError(f"unknown kind of cache {kv!r}", "choose f16, f32 or q8")
    if not 0 <= threads <= MAX_THREADS:
        raise FiresideError(f"threads is {threads}", f"choose 0 (automatic) to {MAX_THREADS}")
    kind = executors.choose(kernels)
    checkpoint = open_checkpoint(Path(path))
    checkpoint = changed(checkpoint, config=checkpoint.config.for_context(context))
    architecture = architectures.get(checkpoint.config.architecture)
    vocabulary = find_vocabulary(checkpoint, tokenizer)
    plan = architecture.plan(checkpoint.config, checkpoint.tied)
    if admit:
        c = checkpoint.config
        weights = kind.weights_nbytes(plan, checkpoint, quant)
        kept: KV = "f32" if kind.name == "numpy" else kv
        admit(Need(weights, executors.cache_bytes(c, kept), c.context_length))
    executor = kind.build(plan, checkpoint, quant, threads, progress, kv)
    return Model(checkpoint, from_vocabulary(vocabulary), executor, quant)


def weights_nbytes(checkpoint: Checkpoint) -> dict[str, int]:
    """Bytes that the weights take in memory, by how they may be kept; UnsupportedError for models
    that no plan can be made of."""
    kind = executors.choose()
    c = checkpoint.config
    plan = architectures.get(c.architecture).plan(c, checkpoint.tied)
    return {quant: kind.weights_nbytes(plan, checkpoint, quant) for quant in executors.QUANTS}


def find_vocabulary(checkpoint: Checkpoint, tokenizer: str | Path | None) -> Vocabulary:
    """The vocabulary given, else the checkpoint's own, else the one beside it."""
    size = checkpoint.config.vocab_size
    if tokenizer is not None:
        vocabulary = read_vocabulary(Path(tokenizer), size)
        where = str(tokenizer)
    elif checkpoint.vocabulary is not None:
        vocabulary, where = checkpoint.vocabulary, str(checkpoint.path)
    else:
        names = ("tokenizer.bin", "tokenizer.model", "tokenizer.json")
        places = [checkpoint.path.with_name(name) for name in names]
        if checkpoint.path.is_dir():
            places[:0] = [checkpoint.path / name for name in reversed(names)]
        found = next((p for p in places if p.is_file()), None)
        if found is None:
            raise CheckpointError(
                f"{checkpoint.path} carries no tokenizer",
                "name its tokenizer.bin, tokenizer.model or tokenizer.json with --tokenizer",
            )
        vocabulary, where = read_vocabulary(found, size), str(found)
    if len(vocabulary) != size:
        raise CheckpointError(
            f"{where}: the tokenizer has {len(vocabulary)} tokens, the model {size}",
            "choose the tokenizer that belongs to the model",
        )
    return vocabulary
