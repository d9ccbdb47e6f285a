"""`fireside bench`: tokens a second, as a Markdown table."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fireside.app.cli.failures import USAGE, CliError
from fireside.app.cli.options import (
    Sectioned,
    complete_models,
    option,
    read_settings,
    settings_options,
    split_integers,
    split_list,
)
from fireside.app.settings import MAX_THREADS, Settings

if TYPE_CHECKING:
    from fireside.app.bench import Case

QUANTS = ("none", "f16", "q8", "q4")
USUAL_QUANTS = ("none", "q8", "q4")
KERNELS = ("auto", "native", "numpy")
OTHERS = (
    "model", "tokenizer", "quant", "kernels", "threads", "context", "overflow", "speculation",
    "draft",
)  # fmt: skip


@click.command("bench", cls=Sectioned)
@click.argument("files", nargs=-1, metavar="[FILE]...", shell_complete=complete_models)
@settings_options("Model", without=OTHERS)
@option(
    "--quant",
    "quants",
    metavar="LIST",
    section="What to measure",
    help="Weights: any of none, f16, q8, q4.  [default: none,q8,q4; none with --compare]",
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
    "--at",
    "at_list",
    metavar="LIST",
    section="What to measure",
    help="Positions in the context: write as many tokens from there too, a column each.",
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
@option(
    "--isa",
    "isa_list",
    metavar="LIST",
    section="What to measure",
    help="Instruction sets of the native kernels, slower ones too; `list` shows them and exits.",
)
@option(
    "--compare",
    type=click.Choice(["llama.cpp"]),
    section="What to measure",
    help="Measure this peer beside Fireside, on the same GGUF files as they are (--quant none).",
)
@option(
    "--peer-python",
    metavar="PATH",
    envvar="FIRESIDE_PEER_PYTHON",
    section="What to measure",
    help="The Python that has the peer (llama-cpp-python).  [default: Fireside's own]",
)
@option(
    "--peer-limit",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    metavar="S",
    section="What to measure",
    help="Give a peer up that takes longer than so many seconds for one round.",
)
@option(
    "--profile",
    is_flag=True,
    section="What to measure",
    help="Show too where the time of a step goes.",
)
@option(
    "--make-shape",
    "shape_list",
    metavar="LIST",
    section="Models to measure on",
    help="Instead of measuring, write random-weight models to FILE (or a folder): NAME[:TYPE].",
)
@option("--json", "as_json", is_flag=True, section="Output", help="A JSON list instead.")
@click.pass_context
def bench(ctx: click.Context, /, files: tuple[str, ...], **flags: Any) -> int:
    """Measure tokens a second of model FILES (paths or names; default: the model of the settings).

    Prefill is the computing of a prompt, decode that of one token after another, the likeliest
    each, from an empty context (or from --at), without tokenizer and guesses (NumPy and llama.cpp:
    whatever tokens, without choosing them). Every combination of FILE,
    --quant, --threads, --kernels and --isa runs in a process of its own; they take turns, so that
    all see the same weather, and each is warmed up once. What does not fit in the model's context
    is left out. MB is the memory of the process in RAM at the end. A peer that fails is a note.

    A token cannot be written faster than its weights and cache are read. GB/s is how fast the
    threads of the row read memory here, measured between the repeats on the weights themselves;
    with the MB that a token reads it gives the floor, and "% of floor" is the decode speed's part
    of that. A ratio (1.50x) is Fireside's speed over the peer's.

    Shapes for --make-shape are 15m, 42m, 110m, 1.1b, 7b, or dim/hidden/layers/heads[/kv[/vocab]];
    types are f32 (the default), f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k,
    q6_k. The same shape always gives the same file.

    Examples:
      fireside bench
      fireside bench stories15M.bin stories110M.bin --threads 1,2,4 --quant q8
      fireside bench --kernels native,numpy --json > speeds.json
      fireside bench --isa list
      fireside bench --threads 1,2 --prefill 1,4,16,64,256,1024 --at 128,512,1024,2000
      fireside bench --make-shape 15m:q8_0,110m:q4_0 models/
      fireside bench models/110m-q4_0.gguf --compare llama.cpp --profile
    """
    asked = Asked.read(flags)
    settings = read_settings(ctx, flags)
    if asked.isa == ["list"]:
        return list_isa()
    if asked.shapes is not None:
        return make_shapes(asked.shapes, files)
    return measure(asked, files, settings)


@dataclass(frozen=True)
class Asked:
    """What to measure, checked. Where something is None, nothing was said."""

    quants: list[str] | None
    threads: list[int] | None
    kernels: list[str]
    isa: list[str]
    prefill: list[int]
    decode: int
    at: list[int]
    repeat: int
    peer: str
    python: str
    peer_limit: float
    profile: bool
    shapes: str | None
    as_json: bool

    @classmethod
    def read(cls, flags: dict[str, Any]) -> Asked:
        """Takes its flags out of `flags`; those that remain are settings."""
        quants, threads = flags.pop("quants"), flags.pop("threads_list")
        isa, at = flags.pop("isa_list"), flags.pop("at_list")
        asked = cls(
            quants=None if quants is None else split_list(quants, QUANTS, "--quant"),
            threads=None if threads is None else split_integers(threads, "--threads", MAX_THREADS),
            kernels=split_list(flags.pop("kernels_list"), KERNELS, "--kernels"),
            isa=[] if isa is None else split_list(isa, None, "--isa"),
            prefill=split_integers(flags.pop("prefill_list"), "--prefill", 1 << 20),
            decode=flags.pop("decode"),
            at=[] if at is None else split_integers(at, "--at", 1 << 20),
            repeat=flags.pop("repeat"),
            peer=flags.pop("compare") or "",
            python=flags.pop("peer_python") or sys.executable,
            peer_limit=flags.pop("peer_limit"),
            profile=flags.pop("profile"),
            shapes=flags.pop("shape_list"),
            as_json=flags.pop("as_json"),
        )
        if asked.peer and asked.quants not in (None, ["none"]):
            raise click.BadParameter(
                "with --compare both sides run the file as it is: only none is possible.",
                param_hint="'--quant'",
            )
        return asked

    def check_isa(self) -> None:
        """UsageError for an instruction set that is not there."""
        from fireside.engine.executors.native_measure import instruction_sets

        if self.isa and "numpy" in self.kernels:
            raise click.UsageError("--isa is for the native kernels alone.")
        if self.isa:
            usable = [name for name, has in instruction_sets().items() if has]
            split_list(",".join(self.isa), usable, "--isa")


def list_isa() -> int:
    """Print the instruction sets."""
    from fireside.app.bench_table import table
    from fireside.engine.executors import choose
    from fireside.engine.executors.native_library import choose_isa
    from fireside.engine.executors.native_measure import SERVES, instruction_sets

    choose("native")  # which tells why, where the extension is missing
    used = choose_isa()[0]
    rows = [
        [name, "yes" if has else "no", "yes" if name == used else "", SERVES[name]]
        for name, has in instruction_sets().items()
    ]
    click.echo(table(["instruction set", "on this machine", "used", "for"], rows, left=4))
    return 0


def make_shapes(text: str, files: tuple[str, ...]) -> int:
    """Write models; what was written is told on stderr."""
    from fireside.app import bench_shapes as shapes
    from fireside.app.cli.output import Progress, say, size
    from fireside.engine import FiresideError

    if len(files) != 1:
        raise click.UsageError("--make-shape needs one FILE to write, or a folder.")
    out = Path(files[0]).expanduser()
    try:
        wanted = [shapes.parse(item) for item in split_list(text, None, "--make-shape")]
    except FiresideError as error:
        raise CliError(error.message, error.hint, USAGE) from error
    if files[0].endswith("/"):
        out.mkdir(parents=True, exist_ok=True)
    if len(wanted) > 1 and not out.is_dir():
        raise click.UsageError(f"{out} is no folder, and there are {len(wanted)} models to write.")
    # all of them, before the first is made
    todo = [(shape, kind, shapes.destination(shape, kind, out)) for shape, kind in wanted]
    for shape, kind, path in todo:
        progress = Progress()

        def tell(done: int, total: int, progress: Progress = progress, path: Path = path) -> None:
            progress.show(f"writing {path}: {100 * done // total}%")

        shapes.make(shape, kind, path, tell)
        progress.clear()
        say(f"{path}: {size(path.stat().st_size)}")
    return 0


def find_cases(asked: Asked, files: tuple[str, ...], settings: Settings) -> list[Case]:
    """Everything to measure, peers behind what they are compared with."""
    from fireside.app import bench_peers
    from fireside.app.bench import Case
    from fireside.app.catalogue import resolve
    from fireside.engine import open_checkpoint
    from fireside.engine.executors.cores import default_threads

    asked.check_isa()
    paths = list(dict.fromkeys(resolve(file, settings) for file in files or (settings.model,)))
    for path in paths:
        checkpoint = open_checkpoint(path)  # before anything is measured
        if asked.peer:
            bench_peers.comparable(checkpoint)
    if asked.peer:
        bench_peers.check(asked.python)
    cases: dict[Case, None] = {}
    at = tuple(asked.at)
    for path in paths:
        for quant in asked.quants or (["none"] if asked.peer else USUAL_QUANTS):
            for threads in asked.threads or sorted({1, default_threads()}):
                shared = (threads, tuple(asked.prefill), asked.decode)
                for kernels in asked.kernels:
                    for isa in asked.isa or [""]:
                        case = Case(path, quant, kernels, *shared, isa, at=at, kv=settings.kv)
                        cases[case] = None
                if asked.peer:
                    peer = (asked.peer, *shared, "", asked.python, at, asked.peer_limit)
                    cases[Case(path, quant, *peer)] = None
    return list(cases)


def measure(asked: Asked, files: tuple[str, ...], settings: Settings) -> int:
    """Measure and print."""
    from fireside.app import bench as measuring
    from fireside.app import bench_table
    from fireside.app.cli.output import Progress

    environment = dict(os.environ)
    cases = find_cases(asked, files, settings)
    progress = Progress()
    results = measuring.run(cases, asked.repeat, asked.profile, environment, progress.show)
    progress.clear()
    if asked.as_json:
        click.echo(json.dumps([asdict(result) for result in results], indent=2))
        return 0
    from fireside.app.cli.version import kernels_text, version

    click.echo(f"Fireside {version()} on {bench_table.machine()}; kernels {kernels_text()}.")
    how = f"medians of {asked.repeat}; cache {settings.kv}; load {os.getloadavg()[0]:.1f}"
    click.echo(f"Tokens a second, {how}.\n")
    click.echo(bench_table.markdown(results, asked.decode))
    if asked.profile:
        click.echo("\nWhere a step's time goes, as the first thread sees it.\n")
        click.echo(bench_table.profiles(results))
    return 0
