"""Meta's own folders of Llama 1, 2 and 3: params.json, consolidated.NN.pth, tokenizer.model.

A shard may lie there as the folder it unpacks to, consolidated.NN, or consolidated where it is the
only one. Larger models come in shards, each with a part of every matrix.
(meta-llama/llama, llama/model.py;
fairscale's layers: ColumnParallelLinear keeps some rows, RowParallelLinear some columns.)
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from fireside.engine.architectures.common import llama3_factors
from fireside.engine.checkpoints import Format, register, torch_zip
from fireside.engine.checkpoints.derived import joined
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.json_files import read_object
from fireside.engine.checkpoints.pickles import TensorRef, shown
from fireside.engine.checkpoints.torch_pt import TABLES, llama_config, names, plain_names, rows_of
from fireside.engine.checkpoints.types import Checkpoint, Tensor, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

PARAMS = "params.json"
SHARD = re.compile(r"consolidated(?:\.([0-9]{2}))?(?:\.pth)?")
COLUMNS = ("attention.wo.weight", "feed_forward.w2.weight")  # kept in shards of columns
KNOWN = {
    "dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier",
    "norm_eps", "rope_theta", "use_scaled_rope", "rope_scaling_factor", "max_seq_len",
    "max_batch_size", "model_parallel_size",
}  # fmt: skip


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is a folder with a params.json and a first shard, or that params.json."""
    folder = path.parent if path.name == PARAMS else path
    at_place = (not head or path.name == PARAMS) and (folder / PARAMS).is_file()
    return at_place and shard(folder, 0) is not None


def shard(folder: Path, number: int) -> Path | None:
    """A shard, packed or unpacked; None where it is not there."""
    names = [f"consolidated.{number:02}.pth", f"consolidated.{number:02}"]
    for name in names if number else [*names, "consolidated"]:
        path = folder / name
        if path.is_file() or (path / "data.pkl").is_file():
            return path
    return None


def shards(folder: Path) -> list[Path]:
    """The shards in order; CheckpointError where one is missing."""
    matches = [match for p in folder.iterdir() if (match := SHARD.fullmatch(p.name))]
    found: list[Path] = []
    for i in range(max((int(match[1] or 0) for match in matches), default=0) + 1):
        path = shard(folder, i)
        if path is None:
            raise CheckpointError(
                f"{folder}: consolidated.{i:02}.pth is missing", "download or copy it again"
            )
        found.append(path)
    return found


def read(path: Path) -> Checkpoint:
    """Open a folder of Meta's."""
    folder = path.parent if path.name == PARAMS else path
    f = Fields(folder / PARAMS, read_object(folder / PARAMS))
    if unknown := sorted(f.metadata.keys() - KNOWN):
        raise UnsupportedError(
            f"{f.path}: {shown(unknown[0])} is not known",
            "this version runs Meta's Llama 1, 2 and 3 models for text",
        )
    saved = [torch_zip.read(one) for one in shards(folder)]
    refs = [plain_names(one.value) for one in saved]
    config = read_config(f, refs)
    tensors: dict[str, Tensor] = {}
    for gguf, name in names(config.n_layers).items():
        parts: list[Tensor] = []
        for one, of_shard in zip(saved, refs, strict=True):
            if (ref := of_shard.pop(name, None)) is not None:
                parts.append(one.tensor(gguf, ref))
        if parts:
            tensors[gguf] = join(folder, gguf, name, parts, len(saved), config)
    for of_shard in refs:
        if rest := of_shard.keys() - set(TABLES):
            raise UnsupportedError(
                f"{folder}: tensor {shown(min(rest))} is no part of a Llama model",
                "this version cannot run this variant of the model",
            )
    vocabulary = read_tokenizer(folder, config.vocab_size)
    count = f", {len(saved)} shards" if len(saved) > 1 else ""
    kind = f"Meta's Llama checkpoint{count}"
    return Checkpoint(
        folder, kind, folder.resolve().name, config, tensors, vocabulary, dict(f.metadata)
    )


def join(
    folder: Path, gguf: str, name: str, parts: list[Tensor], count: int, config: ModelConfig
) -> Tensor:
    """A tensor of its parts, one of each shard."""
    if len(parts) != count or any(
        (p.block, p.shape) != (parts[0].block, parts[0].shape) for p in parts
    ):
        raise CheckpointError(f"{folder}: tensor {name} is not of one kind in all shards")
    if count == 1 or len(parts[0].shape) == 1:  # norms are the same in every shard
        return parts[0]
    by_columns = name.endswith(COLUMNS) or (
        # Llama 1 and 2 cut the embedding's columns, Llama 3 its rows
        name.startswith("tok_embeddings") and parts[0].shape[1] != config.dim
    )
    return joined(parts, gguf, 1 if by_columns else 0)


def read_config(f: Fields, refs: list[dict[str, TensorRef]]) -> ModelConfig:
    """params.json, and what it leaves to the tensors."""
    n_heads = f.integer("n_heads", None, 1, 4096)
    n_kv_heads = f.integer("n_kv_heads", n_heads, 1, n_heads)
    dim = f.integer("dim", None, 1, 1 << 18)
    if n_kv_heads % len(refs):
        raise UnsupportedError(
            f"{f.path}: {n_kv_heads} key/value heads in {len(refs)} shards",
            "this version joins shards of whole heads",
        )
    embedding = refs[0].get("tok_embeddings.weight")
    vocab_size = rows_of(f.path, refs[0], "tok_embeddings.weight")
    if embedding is not None and embedding.shape[1] == dim:
        vocab_size *= len(refs)
    if (said := f.integer("vocab_size", -1, -1, 1 << 22)) not in (-1, vocab_size):
        raise CheckpointError(f"{f.path}: vocab_size is {said}, the embedding has {vocab_size}")
    theta = f.number("rope_theta", 10000.0, 1.0, 1e12)
    scaled = f.boolean("use_scaled_rope", False)
    norm_eps = f.number("norm_eps", 1e-5, 0.0, 1.0)
    hidden = rows_of(f.path, refs[0], "layers.0.feed_forward.w1.weight") * len(refs)
    layers = f.integer("n_layers", None, 1, 4096)
    context = f.integer("max_seq_len", trained_context(theta, scaled, norm_eps), 1, 1 << 22)
    sizes = (dim, hidden, layers, n_heads, n_kv_heads, vocab_size, context)
    config = llama_config(f.path, sizes, norm_eps, theta)
    if not scaled:
        return config
    factor = f.number("rope_scaling_factor", 8.0, 1.0, 1e6)
    factors = llama3_factors(theta, config.rotary_dim, factor, 1.0, 4.0, 8192)
    return replace(config, rope_factors=factors)


def trained_context(theta: float, scaled: bool, norm_eps: float) -> int:
    """Tokens a model was trained for, which params.json does not say: what is known of Meta's."""
    if scaled:
        return 131072  # Llama 3.1 and later
    if theta > 10000:
        return 8192  # Llama 3
    return 2048 if norm_eps < 5e-6 else 4096  # Llama 1, Llama 2


def read_tokenizer(folder: Path, vocab_size: int) -> Vocabulary | None:
    """The tokenizer.model in the folder or above it, if there is one for this model."""
    from fireside.engine.tokenizers import read_vocabulary  # it uses this package's types

    for path in (folder / "tokenizer.model", folder.resolve().parent / "tokenizer.model"):
        if path.is_file():
            return read_vocabulary(path, vocab_size)
    return None


register(Format("Meta's folder (params.json, consolidated.00.pth)", recognises, read))
