"""`fireside bench`: tokens a second, as a Markdown table."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import click

from fireside.app.cli.options import (
    Sectioned,
    complete_models,
    option,
    read_settings,
    settings_options,
    split_integers,
    split_list,
)
from fireside.app.settings import MAX_THREADS

QUANTS = ("none", "q8", "q4")
KERNELS = ("auto", "native", "numpy")
OTHERS = ("model", "tokenizer", "quant", "kernels", "threads", "context", "overflow")


@click.command("bench", cls=Sectioned)
@click.argument("files", nargs=-1, metavar="[FILE]...", shell_complete=complete_models)
@settings_options("Model", without=OTHERS)
@option(
    "--quant",
    "quants",
    default="none,q8,q4",
    show_default=True,
    metavar="LIST",
    section="What to measure",
    help="Weights: any of none, q8, q4.",
)
@option(
    "--threads",
    "threads_list",
    metavar="LIST",
    section="What to measure",
    help="Numbers of threads.  [default: 1 and as many as there are cores to use]",
)
@option(
    "--kernels",
    "kernels_list",
    default="auto",
    show_default=True,
    metavar="LIST",
    section="What to measure",
    help="Any of auto, native, numpy.",
)
@option(
    "--prefill",
    "prefill_list",
    default="32,128,512",
    show_default=True,
    metavar="LIST",
    section="What to measure",
    help="Prompt lengths in tokens.",
)
@option(
    "--decode",
    type=click.IntRange(min=1),
    default=128,
    show_default=True,
    metavar="N",
    section="What to measure",
    help="Tokens to write, one at a time.",
)
@option(
    "--repeat",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    section="What to measure",
    help="How often; the median counts.",
)
@option("--json", "as_json", is_flag=True, section="Output", help="A JSON list instead.")
@click.pass_context
def bench(
    ctx: click.Context,
    /,
    files: tuple[str, ...],
    quants: str,
    threads_list: str | None,
    kernels_list: str,
    prefill_list: str,
    decode: int,
    repeat: int,
    as_json: bool,
    **flags: Any,
) -> int:
    """Measure tokens a second of model FILES (paths or names; default: the model of the settings).

    Prefill is the computing of a prompt, decode that of one token after another from an empty
    context, both without tokenizer and sampler. Every combination of FILE, --quant, --threads and
    --kernels runs in a process of its own; they take turns, so that all see the same weather, and
    each is warmed up once. A prompt longer than the model's context is left out. MB is the
    memory of the process in RAM at the end.

    Examples:
      fireside bench
      fireside bench stories15M.bin stories110M.bin --threads 1,2,4 --quant q8
      fireside bench --kernels native,numpy --json > speeds.json
    """
    quant_items = split_list(quants, QUANTS, "--quant")
    kernel_items = split_list(kernels_list, KERNELS, "--kernels")
    lengths = split_integers(prefill_list, "--prefill", 1 << 20)
    counts = (
        split_integers(threads_list, "--threads", MAX_THREADS) if threads_list is not None else None
    )
    settings = read_settings(ctx, flags)

    from fireside.app import bench as measuring
    from fireside.app.catalogue import resolve
    from fireside.app.cli.output import Progress
    from fireside.app.cli.version import version
    from fireside.engine import open_checkpoint
    from fireside.engine.executors.cores import default_threads

    paths = [resolve(file, settings) for file in files or (settings.model,)]
    for path in paths:
        open_checkpoint(path)  # what is wrong with a file is told before anything is measured
    cases = [
        measuring.Case(path, quant, kernels, threads, tuple(lengths), decode)
        for path in paths
        for quant in quant_items
        for kernels in kernel_items
        for threads in counts or sorted({1, default_threads()})
    ]
    progress = Progress()
    results = measuring.run(cases, repeat, progress.show)
    progress.clear()
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))
        return 0
    click.echo(f"Fireside {version()} on {measuring.machine()}; load {os.getloadavg()[0]:.1f}.")
    click.echo(f"Tokens a second, medians of {repeat}.\n")
    click.echo(measuring.markdown(results, decode))
    return 0
