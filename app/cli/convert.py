"""`fireside convert`: a model in another format, or with other weights."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fireside.app.cli.failures import FAILURE, USAGE, CliError
from fireside.app.cli.interrupts import WATCH, exit_code
from fireside.app.cli.options import (
    Sectioned,
    complete_files,
    complete_models,
    option,
    read_settings,
    settings_options,
)
from fireside.app.cli.start import prepare

if TYPE_CHECKING:
    from fireside.engine.checkpoints.types import Checkpoint

TYPES = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0",
)  # fmt: skip
OTHERS = (
    "model", "models_dir", "quant", "kernels", "kv", "context", "overflow", "speculation", "draft",
)  # fmt: skip
WHAT = "What to write"
TOKENIZER = "tokenizer.bin"


class GivenUp(Exception):  # noqa: N818  (not an error: somebody asked for it)
    """A signal came."""


@click.command("convert", cls=Sectioned)
@click.argument("source", metavar="SRC", shell_complete=complete_models)
@click.argument("destination", metavar="DST", shell_complete=complete_files)
@option(
    "--to",
    "form",
    type=click.Choice(["gguf", "llama2c-v0", "llama2c-v2"]),
    section=WHAT,
    help="The format.  [default: gguf, unless DST ends in .bin: then it must be said]",
)
@option(
    "--type",
    "kind",
    type=click.Choice(TYPES, case_sensitive=False),
    section=WHAT,
    help="The type of the matrices in a GGUF file.  [default: as they are]",
)
@option(
    "--pure",
    is_flag=True,
    section=WHAT,
    help="All matrices of that type, the classifier too.",
)
@option("--force", is_flag=True, section=WHAT, help="Write over DST where it is there already.")
@settings_options("Model", without=OTHERS)
@click.pass_context
def convert(
    ctx: click.Context,
    /,
    source: str,
    destination: str,
    form: str | None,
    kind: str | None,
    pure: bool,
    force: bool,
    **flags: Any,
) -> int:
    """Write the model SRC as GGUF or as a llama2.c file, DST.

    SRC is anything that `fireside inspect` opens. Its tokenizer goes along, the model's own or the
    one beside it or --tokenizer; for llama2.c it is written as tokenizer.bin beside DST.

    --type quantises. Vectors stay F32, as in llama.cpp, and with types below Q6_K the matrix that
    makes the logits is Q6_K, where most is lost otherwise; --pure quantises it like the others.
    Rows that are no whole blocks of 256 take Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K; those
    that are no whole blocks of 32 F16. llama2c-v0 is F32, llama2c-v2 int8 with a scale for each 64
    weights. DST appears when it is complete; what was cut short leaves nothing under that name.

    Examples:
      fireside convert stories15M.bin stories15M.gguf
      fireside convert ~/models/Llama-3.2-1B llama.gguf --type Q4_K
      fireside convert llama-f16.gguf llama-q8.gguf --type Q8_0 --threads 4
      fireside convert storyteller stories.bin --to llama2c-v0
    """
    settings = read_settings(ctx, flags)
    path = Path(destination).expanduser()
    if form is None:
        if path.suffix == ".bin":
            raise click.UsageError("DST ends in .bin: say --to llama2c-v0, llama2c-v2 or gguf", ctx)
        form = "gguf"
    if form != "gguf" and (kind or pure):
        raise click.UsageError("--type and --pure are for GGUF files", ctx)
    check_destination(path, force)
    prepare(settings)
    from fireside.app.catalogue import resolve
    from fireside.app.cli.output import say
    from fireside.engine import open_checkpoint
    from fireside.engine.executors.cores import default_threads

    checkpoint, own = with_tokenizer(
        open_checkpoint(resolve(source, settings)), settings.tokenizer, say
    )
    beside = None if form == "gguf" else check_tokenizer(checkpoint, path, force, say)
    order = Order(path, form, kind.upper() if kind else None, pure, own)
    return write(checkpoint, order, settings.threads or default_threads(), beside)


class Order:
    """What is to be written."""

    def __init__(self, path: Path, form: str, kind: str | None, pure: bool, own: bool) -> None:
        self.path, self.form, self.kind, self.pure = path, form, kind, pure
        self.own_tokenizer = own


def check_destination(path: Path, force: bool) -> None:
    """CliError where nothing can be written there."""
    if path.is_dir():
        raise CliError(f"{path}: a folder", "give the name of the file to write", USAGE)
    if path.exists() and not force:
        raise CliError(f"{path} is there already", "--force writes over it", FAILURE)
    if not path.parent.is_dir():
        raise CliError(f"{path.parent}: no such folder", "make it first", FAILURE)


def with_tokenizer(checkpoint: Checkpoint, given: str, say: Any) -> tuple[Checkpoint, bool]:
    """The checkpoint with the vocabulary it is used with; whether that is the file's own."""
    from fireside.engine import FiresideError
    from fireside.engine.model import find_vocabulary

    if checkpoint.vocabulary is not None and not given:
        return checkpoint, True
    try:
        vocabulary = find_vocabulary(checkpoint, Path(given).expanduser() if given else None)
    except FiresideError as error:
        if given:
            raise
        say(f"fireside: note: {error.message}; it is written without one")
        return checkpoint, True
    return replace(checkpoint, vocabulary=vocabulary), False


def check_tokenizer(checkpoint: Checkpoint, path: Path, force: bool, say: Any) -> bytes | None:
    """The tokenizer.bin that belongs beside a llama2.c file; None where it is not to be written."""
    from fireside.engine import UnsupportedError
    from fireside.engine.checkpoints.llama2c_writer import tokenizer_bin

    if checkpoint.vocabulary is None:
        return None
    try:
        data = tokenizer_bin(checkpoint.vocabulary)
    except UnsupportedError as error:
        say(f"fireside: note: no {TOKENIZER} is written: {error.message}")
        return None
    beside = path.with_name(TOKENIZER)
    if beside.exists():
        if beside.read_bytes() == data:
            return None
        if not force:
            raise CliError(
                f"{beside} is there already, and is another tokenizer",
                "choose another folder; --force writes over it",
                FAILURE,
            )
    return data


def write(checkpoint: Checkpoint, order: Order, threads: int, beside: bytes | None) -> int:
    """Write, with progress on stderr; the exit code."""
    from fireside.app.cli.output import Progress, say, size
    from fireside.engine import convert as engine
    from fireside.engine.checkpoints.atomic import replacing

    progress = Progress()
    started = time.perf_counter()

    def tell(done: int, total: int) -> None:
        if WATCH.caught:
            raise GivenUp
        seconds = time.perf_counter() - started
        left = seconds * (total - done) / max(done, 1)
        rate = f"{size(round(done / seconds))}/s" if seconds else ""
        progress.show(f"writing {order.path.name} {done / total:4.0%}, {rate}, {left:.0f} s left")

    with WATCH.calling(lambda: None):
        try:
            engine.convert(
                checkpoint,
                order.path,
                order.form,
                order.kind,
                pure=order.pure,
                own_tokenizer=order.own_tokenizer,
                threads=threads,
                progress=tell,
            )
            if beside is not None:
                with replacing(order.path.with_name(TOKENIZER)) as file:
                    file.write(beside)
        except GivenUp:
            progress.clear()
            say("fireside: note: given up; nothing was written")
            return exit_code(WATCH.caught)
    progress.clear()
    written = order.path.stat().st_size
    seconds = time.perf_counter() - started
    more = f" and {TOKENIZER}" if beside is not None else ""
    say(f"{order.path}{more}: {size(written)} in {seconds:.1f} s")
    return 0
