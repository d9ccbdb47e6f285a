"""`fireside inspect`: what a model file holds, told from its header."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fireside.app.cli.options import Sectioned, complete_models, option, read_settings
from fireside.app.cli.output import count, scale, size, table, visible

if TYPE_CHECKING:
    from fireside.engine.checkpoints.types import Checkpoint, Vocabulary
    from fireside.engine.config import ModelConfig

QUANT_NAMES = {"none": "as is", "f16": "f16", "q8": "q8", "q4": "q4"}
LONGEST = 60  # characters of a metadata value


@click.command("inspect", cls=Sectioned)
@click.argument("file", shell_complete=complete_models)
@option("--tensors", is_flag=True, section="Output", help="List every tensor.")
@option("--metadata", is_flag=True, section="Output", help="List what else the file says.")
@option("--json", "as_json", is_flag=True, section="Output", help="All of it as one JSON object.")
@click.pass_context
def inspect(ctx: click.Context, /, file: str, tensors: bool, metadata: bool, as_json: bool) -> int:
    """Tell what a model FILE holds: its shape, types, vocabulary and memory.

    FILE is the path of a file or of a model's folder, or a name that `fireside models` lists.
    Only headers are read, so it is quick with a file of any size.

    Examples:
      fireside inspect storyteller
      fireside inspect stories.gguf --tensors
      fireside inspect model.bin --json | jq .config
    """
    settings = read_settings(ctx, {})
    from fireside.app.catalogue import resolve
    from fireside.engine import open_checkpoint

    checkpoint = open_checkpoint(resolve(file, settings))
    facts = {**describe(checkpoint), "missing": missing(checkpoint, settings.tokenizer)}
    if as_json:
        click.echo(json.dumps(facts, indent=2, default=str))
        return 0
    click.echo(_summary(checkpoint, facts))
    if metadata:
        rows = [[visible(key), _short(value)] for key, value in facts["metadata"].items()]
        click.echo("\n" + table(["METADATA", ""], rows))
    if tensors:
        rows = [
            [visible(t["name"]), " x ".join(map(str, t["shape"])), t["type"], count(t["bytes"])]
            for t in facts["tensors"]
        ]
        click.echo("\n" + table(["TENSOR", "SHAPE", "TYPE", "BYTES"], rows, right={3}))
    return 0


def describe(checkpoint: Checkpoint) -> dict[str, Any]:
    """Everything that --json tells."""
    from fireside.app.catalogue import on_disk
    from fireside.engine.executors import KVS, cache_bytes
    from fireside.engine.model import weights_nbytes

    c = checkpoint.config
    types: dict[str, dict[str, int]] = {}
    for tensor in checkpoint.tensors.values():
        entry = types.setdefault(tensor.block, {"tensors": 0, "weights": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["weights"] += tensor.count
        entry["bytes"] += tensor.nbytes
    return {
        "path": str(checkpoint.path),
        "name": checkpoint.name,
        "format": checkpoint.format,
        "file_bytes": on_disk(checkpoint.path),
        "architecture": c.architecture,
        "parameters": checkpoint.parameters,
        "tied": checkpoint.tied,
        "config": asdict(c),
        "types": types,
        "vocabulary": _vocabulary(checkpoint.vocabulary),
        "memory": weights_nbytes(checkpoint),
        "cache_bytes_per_token": {kv: cache_bytes(c, kv) for kv in KVS},
        "metadata": {k: _plain(v) for k, v in checkpoint.metadata.items()},
        "tensors": [
            {"name": t.name, "shape": list(t.shape), "type": t.block, "bytes": t.nbytes}
            for t in checkpoint.tensors.values()
        ],
    }


def missing(checkpoint: Checkpoint, tokenizer: str) -> str:
    """What is not there and has to be before the model can be run; "" where nothing is."""
    from fireside.engine import CheckpointError
    from fireside.engine.model import find_vocabulary

    try:
        find_vocabulary(checkpoint, Path(tokenizer).expanduser() if tokenizer else None)
    except CheckpointError as error:
        none = error.message.endswith("carries no tokenizer")
        return f"a tokenizer: {error.hint}" if none else f"a tokenizer that fits: {error.message}"
    return ""


def _vocabulary(vocabulary: Vocabulary | None) -> dict[str, Any] | None:
    if vocabulary is None:
        return None
    return {
        "kind": vocabulary.kind,
        "tokens": len(vocabulary),
        "bos_id": vocabulary.bos_id,
        "eos_id": vocabulary.eos_id,
        "unk_id": vocabulary.unk_id,
        "add_bos": vocabulary.add_bos,
        "add_space_prefix": vocabulary.add_space_prefix,
    }


def _plain(value: object) -> object:
    """A metadata value in JSON's terms; a long list by its length alone."""
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    try:
        length = len(value)  # type: ignore[arg-type]
    except TypeError:
        return str(value)
    return list(value) if length <= 16 else f"[{length:,} values]"  # type: ignore[call-overload]


def _short(value: object) -> str:
    text = visible(str(value)).replace("\n", "\\n")
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _context(c: ModelConfig) -> str:
    if c.longest_context == c.context_length:
        return f"{c.context_length:,} tokens"
    return f"{c.context_length:,} tokens; {c.longest_context:,} where --context asks for more"


def _id(token: int) -> str:
    return str(token) if token >= 0 else "none"


def _summary(checkpoint: Checkpoint, facts: dict[str, Any]) -> str:
    c = checkpoint.config
    kv = "" if c.n_kv_heads == c.n_heads else f", {c.n_kv_heads} for keys and values"
    classifier = "shared with the embedding" if checkpoint.tied else "its own"
    v = facts["vocabulary"]
    vocabulary = (
        f"{c.vocab_size:,} tokens, {v['kind']}, begins with {_id(v['bos_id'])}, ends with"
        f" {_id(v['eos_id'])}"
        if v
        else f"{c.vocab_size:,} tokens; the file carries no tokenizer"
    )
    needs = ", ".join(f"{QUANT_NAMES[q]} {size(n)}" for q, n in facts["memory"].items())
    cache = facts["cache_bytes_per_token"].items()
    texts = ", ".join(f"{kv} {size(1000 * nbytes)}" for kv, nbytes in cache)
    lines = [
        ("File", f"{visible(facts['path'])}, {size(facts['file_bytes'])}"),
        ("Name", visible(checkpoint.name)),
        ("Format", checkpoint.format),
        ("Architecture", f"{c.architecture}, {scale(checkpoint.parameters)} weights"),
        ("Layers", f"{c.n_layers} of width {c.dim:,}, feed-forward {c.hidden_dim:,}"),
        ("Heads", f"{c.n_heads} of width {c.head_dim}{kv}"),
        ("Rope", f"base {c.rope_theta:g}, {c.rotary_dim} elements, {c.rope_style}"),
        ("Norm epsilon", f"{c.norm_eps:g}"),
        ("Context", _context(c)),
        ("Vocabulary", vocabulary),
        ("Classifier", classifier),
        ("Memory", needs),
        ("", f"and for every 1,000 tokens of text {texts}"),
    ]
    if facts["missing"]:
        lines.append(("Missing", visible(facts["missing"])))
    for name, entry in facts["types"].items():
        weights = f"{entry['tensors']:,} tensors, {entry['weights']:,} weights"
        lines.append((f"Type {name}", f"{weights}, {size(entry['bytes'])}"))
    return "\n".join(f"{name:14} {value}" for name, value in lines)
