"""`fireside perplexity`: how well a model, or several, foretell a text."""

from __future__ import annotations

import json
import lzma
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fireside.app.cli.failures import USAGE, CliError
from fireside.app.cli.interrupts import WATCH, exit_code
from fireside.app.cli.options import (
    Sectioned,
    complete_files,
    option,
    read_settings,
    settings_options,
)
from fireside.app.cli.start import prepare

if TYPE_CHECKING:
    from fireside.app.settings import Settings
    from fireside.engine import Model, Quant
    from fireside.engine.perplexity import Cut, Measured, Text

USUAL_CONTEXT = 2048
WHAT = "What to measure"


@click.command("perplexity", cls=Sectioned)
@click.argument("file", metavar="FILE", shell_complete=complete_files)
@settings_options("Model", without=("context", "overflow", "speculation", "draft"))
@option(
    "--context",
    "window",
    type=click.IntRange(min=2),
    metavar="N",
    section=WHAT,
    help=f"Tokens a window.  [default: the context of the model, at most {USUAL_CONTEXT:,}]",
)
@option(
    "--stride",
    type=click.IntRange(min=1),
    metavar="N",
    section=WHAT,
    help="Tokens from one window to the next; what overlaps counts once.  [default: the context]",
)
@option(
    "--second-half",
    is_flag=True,
    section=WHAT,
    help="Count only the second half of each whole window, as llama.cpp's perplexity program does.",
)
@option(
    "--format",
    "form",
    type=click.Choice(["auto", "text", "stories"]),
    default="auto",
    show_default=True,
    section=WHAT,
    help="FILE is one text, or JSON lines with a `text` each; auto looks at its beginning.",
)
@option(
    "--compare",
    "others",
    metavar="LIST",
    section=WHAT,
    help="Several at once: none, f16, q8, q4, a MODEL or MODEL:q8, parted by commas; all are held"
    " against the first.",
)
@option("--json", "as_json", is_flag=True, section="Output", help="A JSON object instead.")
@click.pass_context
def perplexity(ctx: click.Context, /, file: str, **flags: Any) -> int:
    """Measure how well a model foretells the text in FILE (UTF-8; also .xz; - is standard input).

    Perplexity is the number of tokens among which the model hesitates, on average; less is better.
    It depends on the tokenizer; bits per character and per byte do not. The text is cut into
    windows of --context tokens, each after a BOS, and every token counts once. FILE with JSON lines
    holds stories: each begins after a BOS of its own, and the token that ends it counts too.

    --compare shows what quantising costs: perplexity, how far the distributions are from those of
    the first on average (Kullback-Leibler divergence, in nats), and how often both find the same
    token the likeliest. Exit codes are those of `fireside write`.

    Examples:
      fireside perplexity story.txt
      fireside perplexity wiki.test.raw --model llama.gguf --context 512 --second-half
      fireside perplexity stories.jsonl.xz --compare none,q8,q4
      fireside perplexity book.txt --compare big.gguf,big-Q4_K.gguf,small.gguf:q8
    """
    plan = Asked(
        *(flags.pop(k) for k in ("window", "stride", "second_half", "form", "others", "as_json"))
    )
    if plan.stride is not None and plan.second_half:
        raise click.UsageError("choose --stride or --second-half, not both", ctx)
    if plan.window and plan.stride and plan.stride > plan.window:
        raise click.UsageError("--stride is more than --context: tokens would be left out", ctx)
    settings = read_settings(ctx, flags)
    texts = split(file, read(file), plan.form)
    prepare(settings)
    return run(settings, plan, texts)


@dataclass(frozen=True)
class Asked:
    """What the flags say."""

    window: int | None
    stride: int | None
    second_half: bool
    form: str
    others: str | None
    as_json: bool


# -- the text


def read(file: str) -> str:
    """The text of a file, unpacked where it is .xz; CliError says what is wrong with it."""
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).expanduser().read_bytes()
        if data.startswith(b"\xfd7zXZ\0"):
            data = lzma.decompress(data)
    except OSError as error:
        message = f"{file}: cannot be read: {error.strerror or error}"
        raise CliError(message, code=USAGE) from None
    except lzma.LZMAError as error:
        raise CliError(f"{file}: cannot be unpacked: {error}", "download it again", USAGE) from None
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CliError(
            f"{file}: not valid UTF-8 at byte {error.start}",
            "convert it first, for instance with iconv",
            USAGE,
        ) from None


def split(file: str, text: str, form: str) -> list[str] | str:
    """The stories of JSON lines, or the one text."""
    if form == "text":
        return text
    first = text.lstrip().partition("\n")[0]
    if form == "auto" and not (first.startswith("{") and story(first) is not None):
        return text
    stories = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            found = story(line)
            if found is None:
                raise CliError(
                    f"{file}: line {number} is no JSON object with a text called `text`",
                    "--format text takes the file as one text",
                    USAGE,
                )
            stories.append(found)
    return stories


def story(line: str) -> str | None:
    """The `text` of a line of JSON; None where it has none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    text = value.get("text") if isinstance(value, dict) else None
    return text if isinstance(text, str) else None


# -- the models


def entries(settings: Settings, others: str | None) -> list[tuple[str, str, Quant]]:
    """(what to call it, model, quant) of each model to measure."""
    from fireside.engine import QUANTS

    if others is None:
        return [(settings.quant, settings.model, settings.quant)]
    quants = {str(quant): quant for quant in QUANTS}
    result = []
    for item in filter(None, (item.strip() for item in others.split(","))):
        name, colon, quant = item.rpartition(":")
        if item in quants:
            result.append((item, settings.model, quants[item]))
        elif colon and quant in quants:
            result.append((item, name, quants[quant]))
        else:
            result.append((item, item, settings.quant))
    if len(result) < 2:
        raise click.BadParameter("name two or more.", param_hint="'--compare'")
    return result


def load_all(settings: Settings, others: str | None) -> list[tuple[str, Model]]:
    """The models, loaded, with what to call them."""
    from dataclasses import replace

    from fireside.app.catalogue import chosen, resolve
    from fireside.app.cli.output import Progress
    from fireside.app.cli.telling import load_from

    wanted = entries(settings, others)
    paths = [
        chosen(settings) if model == settings.model else resolve(model, settings)
        for _, model, _ in wanted
    ]  # all are found before the first is loaded
    progress = Progress()
    return [
        (name, load_from(path, replace(settings, quant=quant), progress))
        for (name, _, quant), path in zip(wanted, paths, strict=True)
    ]


# -- measuring


def run(settings: Settings, plan: Asked, texts: list[str] | str) -> int:
    """Measure and print; the exit code."""
    from fireside.app.cli.output import Progress, say
    from fireside.engine import perplexity as engine
    from fireside.engine.executors import Aborted

    loaded = load_all(settings, plan.others)
    models = [model for _, model in loaded]
    engine.check_same_tokens(models)
    cut = cut_for(models, plan)
    tokenizer = models[0].tokenizer
    if isinstance(texts, str):
        encoded = [engine.encode(tokenizer, texts, end=False)]
    else:
        encoded = [engine.encode(tokenizer, text, end=True) for text in texts]
    progress = Progress()
    show = Shown(encoded, progress.show)
    executor = models[0].executor
    started = time.perf_counter()
    with WATCH.calling(executor.abort) as watch:

        def look(found: Measured) -> None:
            if watch.caught:  # an abort that comes as a step ends is forgotten
                raise Aborted
            show(found)

        try:
            found = engine.measure(models, encoded, cut, look)
        except Aborted:
            progress.clear()
            say(f"fireside: note: given up{show.so_far}")
            return exit_code(watch.caught)
    progress.clear()
    seconds = time.perf_counter() - started
    facts = describe(loaded, found, cut)
    if plan.as_json:
        click.echo(json.dumps({**facts, "seconds": round(seconds, 3)}, indent=2))
    else:
        click.echo(as_text(facts))
    return 0


def cut_for(models: list[Model], plan: Asked) -> Cut:
    """How to cut; CliError where a window would be longer than a model's context."""
    from fireside.engine.perplexity import Cut

    longest = min(model.config.context_length for model in models)
    context = plan.window or min(longest, USUAL_CONTEXT)
    if context > longest:
        raise CliError(
            f"--context is {context:,}, and the model was trained on {longest:,} tokens",
            "choose a shorter one",
            USAGE,
        )
    if plan.stride and plan.stride > context:
        raise CliError(
            f"--stride is {plan.stride:,}, more than the context of {context:,} tokens",
            "choose a shorter one",
            USAGE,
        )
    return Cut(context, plan.stride or 0, plan.second_half)


class Shown:
    """Tells on the terminal how far it is."""

    def __init__(self, texts: list[Text], show: Callable[[str], None]) -> None:
        self.total = sum(len(text.ids) for text in texts)
        self.show = show
        self.so_far = ""

    def __call__(self, found: Measured) -> None:
        """A line of what was found so far."""
        losses = found.losses[0]
        if losses.tokens:
            self.so_far = f" after {losses.tokens:,} tokens, perplexity {losses.perplexity:.4f}"
            self.show(f"{losses.tokens:,} of {self.total:,} tokens, {losses.perplexity:.4f}")


# -- what was found


def describe(loaded: list[tuple[str, Model]], found: Measured, cut: Cut) -> dict[str, Any]:
    """Everything, in plain values."""
    rows = []
    tokens = found.losses[0].tokens
    for i, ((name, model), losses) in enumerate(zip(loaded, found.losses, strict=True)):
        row: dict[str, Any] = {
            "name": name,
            "model": model.name,
            "quant": model.quant,
            "kernels": model.executor.name,
            "bytes": model.nbytes,
            "perplexity": plain(losses.perplexity),
            "standard_error": plain(losses.error),
            "nats_per_token": plain(losses.mean),
            "bits_per_character": plain(found.bits_per_character(i)),
            "bits_per_byte": plain(found.bits_per_byte(i)),
        }
        if len(loaded) > 1:
            d = found.distances[i - 1] if i else None
            row["kl_divergence"] = plain(d.nats / tokens) if d else 0.0
            row["top_1_agreement"] = d.agreed / tokens if d else 1.0
        rows.append(row)
    return {
        "tokens": tokens,
        "characters": found.characters,
        "bytes": found.nbytes,
        "context": cut.context,
        "stride": cut.stride or cut.context,
        "second_half": cut.second_half,
        "models": rows,
    }


def plain(number: float) -> float | None:
    """A number that JSON can hold."""
    return number if math.isfinite(number) else None


def as_text(facts: dict[str, Any]) -> str:
    """A table."""
    from fireside.app.cli.output import size, table, visible

    many = len(facts["models"]) > 1
    head = ["MODEL", "PERPLEXITY", "+-", "BITS/CHAR", "BITS/BYTE"]
    head += ["KL", "SAME TOP", "MEMORY"] if many else ["MEMORY"]
    rows = []
    for row in facts["models"]:
        name = row["name"] if many else row["model"]
        numbers = [row[k] for k in ("perplexity", "standard_error")]
        numbers += [row[k] for k in ("bits_per_character", "bits_per_byte")]
        cells = ["-" if n is None else f"{n:.4f}" for n in numbers]
        if many:
            kl = row["kl_divergence"]
            cells += ["-" if kl is None else f"{kl:.6f}", f"{100 * row['top_1_agreement']:.2f}%"]
        rows.append([visible(name), *cells, size(row["bytes"])])
    how = f"{facts['tokens']:,} tokens, {facts['characters']:,} characters"
    how += f"; windows of {facts['context']:,}"
    if facts["second_half"]:
        how += ", the second half of each"
    elif facts["stride"] != facts["context"]:
        how += f", {facts['stride']:,} apart"
    return table(head, rows, right=set(range(1, len(head)))) + "\n\n" + how + "."
