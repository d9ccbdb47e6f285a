"""`fireside models`: which models there are, and what they need."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from fireside.app.cli.options import Sectioned, option, read_settings, settings_options
from fireside.app.cli.output import count, scale, size, table, visible

if TYPE_CHECKING:
    from fireside.app.catalogue import ModelEntry

OTHERS = (
    "model", "tokenizer", "quant", "kernels", "threads", "kv", "context", "overflow", "speculation",
    "draft",
)  # fmt: skip


@click.command("models", cls=Sectioned)
@settings_options("Model", without=OTHERS)
@option("--json", "as_json", is_flag=True, section="Output", help="A JSON list instead of a table.")
@click.pass_context
def models(ctx: click.Context, /, as_json: bool, **flags: Any) -> int:
    """List the models there are.

    The embedded storyteller, the files in --models-dir and those in your own models folder (see
    `fireside paths`), with the memory that their weights take as they are and quantised. A file
    that cannot run is listed with the reason.

    Examples:
      fireside models
      fireside models --models-dir ~/Downloads
      fireside models --json | jq -r '.[].name'
    """
    settings = read_settings(ctx, flags)
    from fireside.app.catalogue import find_models, folders

    entries = find_models(settings)
    if as_json:
        click.echo(json.dumps([_plain(entry) for entry in entries], indent=2))
        return 0
    click.echo(_table(entries))
    looked = ", ".join(str(folder) for folder in folders(settings))
    click.echo(f"\nUse one with --model NAME. Looked for files in {looked}.")
    return 0


def _plain(entry: ModelEntry) -> dict[str, Any]:
    return {**asdict(entry), "path": str(entry.path)}


def _table(entries: list[ModelEntry]) -> str:
    head = ["NAME", "FROM", "KIND", "WEIGHTS", "TYPE", "FILE", "AS IS", "Q8", "Q4", "CONTEXT", ""]
    rows = [_row(entry) for entry in entries]
    return table(head, rows, right={3, 5, 6, 7, 8, 9})


def _row(entry: ModelEntry) -> list[str]:
    name = visible(entry.name)
    on_disk = size(entry.file_bytes) if entry.file_bytes else "-"
    problem = f"cannot run: {visible(entry.problem)}" if entry.problem else ""
    if not entry.architecture:
        return [name, entry.source, "-", "-", "-", on_disk, "-", "-", "-", "-", problem]
    needs = [size(entry.memory.get(quant, 0)) for quant in ("none", "q8", "q4")]
    numbers = [scale(entry.parameters), next(iter(entry.blocks), "-"), on_disk, *needs]
    return [name, entry.source, entry.architecture, *numbers, count(entry.context), problem]
