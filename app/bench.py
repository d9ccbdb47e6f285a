"""Measuring: every case in a process of its own, their repeats taking turns, medians.

Taking turns keeps a machine that slows down for a minute from slowing down one case only. It
needs all models in memory at once; where they would not fit, the cases run one after another.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fireside.app.catalogue import memory
from fireside.engine import CheckpointError, FiresideError, KernelsError, open_checkpoint

SHARE_OF_MEMORY = 0.5  # of what is free, that models of cases taking turns may take together


@dataclass(frozen=True)
class Case:
    """What is measured."""

    path: Path
    quant: str
    kernels: str
    threads: int
    prefill: tuple[int, ...]
    decode: int

    def __str__(self) -> str:
        return f"{self.path.stem} {self.quant} {self.kernels} {self.threads} threads"

    def nbytes(self) -> int:
        """About the bytes of its weights in memory."""
        checkpoint = open_checkpoint(self.path)
        needs = 4 * checkpoint.parameters  # NumPy computes in float32
        return needs if self.kernels == "numpy" else memory(checkpoint)[self.quant]


@dataclass(frozen=True)
class Result:
    """Medians of a case."""

    model: str
    quant: str
    kernels: str
    isa: str
    threads: int
    prefill_tok_s: dict[str, float]  # prompt length -> tokens a second
    decode_tok_s: float
    rss_mb: float


@dataclass
class Runner:
    """A case's process, and what it answered."""

    case: Case
    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def start(cls, case: Case) -> Runner:
        """Load the model; the engine's errors come through."""
        count = str(case.threads)
        # what NumPy's BLAS may be built with
        blas = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
        limits = dict.fromkeys(blas, count) if case.kernels == "numpy" else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "fireside.app.bench_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **limits},
        )
        runner = cls(case, process)
        values = {
            "path": str(case.path.absolute()),
            "quant": case.quant,
            "kernels": case.kernels,
            "threads": case.threads,
            "prefill": case.prefill,
            "decode": case.decode,
        }
        try:
            runner.facts = runner.ask(json.dumps(values))
        except BaseException:
            runner.stop()
            raise
        return runner

    def ask(self, line: str) -> dict[str, Any]:
        """The answer to a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise FiresideError(f"measuring {self.case} ended with code {self.process.wait()}")
        values: dict[str, Any] = json.loads(answer)
        if "error" in values:
            kinds = {"CheckpointError": CheckpointError, "KernelsError": KernelsError}
            raise kinds.get(values["error"], FiresideError)(values["message"], values["hint"])
        return values

    def measure(self) -> None:
        """Once more."""
        self.answers.append(self.ask("measure"))

    def stop(self) -> None:
        """End the process."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()

    def result(self) -> Result:
        """Medians; the first round warmed up and does not count."""
        rounds = self.answers[1:]
        prefill = {
            length: round(
                int(length) / statistics.median(a["prefill_s"][length] for a in rounds), 2
            )
            for length in rounds[0]["prefill_s"]
        }
        decoded = min(self.case.decode, self.facts["decode"])
        decode_s = statistics.median(a["decode_s"] for a in rounds)
        return Result(
            model=self.facts["model"],
            quant=self.case.quant,
            kernels=self.facts["kernels"],
            isa=self.facts["isa"],
            threads=self.facts["threads"] or self.case.threads,
            prefill_tok_s=prefill,
            decode_tok_s=round(decoded / decode_s, 2),
            rss_mb=round(self.answers[-1]["rss"] / 1e6, 1),
        )


def run(cases: Sequence[Case], repeat: int, tell: Callable[[str], None]) -> list[Result]:
    """Measure all cases, `repeat` times and once to warm up; tell(line) is called as it goes."""
    together = sum(case.nbytes() for case in cases) <= SHARE_OF_MEMORY * free_memory()
    groups = [list(cases)] if together else [[case] for case in cases]
    results: list[Result] = []
    for group in groups:
        runners: list[Runner] = []
        try:
            for case in group:
                tell(f"loading {case}")
                runners.append(Runner.start(case))
            for number in range(repeat + 1):
                for runner in runners:
                    tell(f"round {number} of {repeat}: {runner.case}")
                    runner.measure()
            results += [runner.result() for runner in runners]
        finally:
            for runner in runners:
                runner.stop()
    return results


def free_memory() -> int:
    """Bytes of memory that may be taken; where the system does not tell, not much."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30


def machine() -> str:
    """The processor and how many of its cores there are to use."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return f"{name}, {cores} cores, {platform.system()} {platform.machine()}"


def markdown(results: Sequence[Result], decode: int) -> str:
    """A table that a person can paste."""
    lengths = sorted({int(n) for r in results for n in r.prefill_tok_s})
    head = ["model", "quant", "kernels", "threads"]
    head += [f"prefill {n}" for n in lengths] + [f"decode {decode}", "MB"]
    rows = []
    for r in results:
        kernels = r.kernels if r.kernels == r.isa else f"{r.kernels} {r.isa}"
        speeds = [r.prefill_tok_s.get(str(n)) for n in lengths]
        cells = [f"{speed:,.0f}" if speed is not None else "-" for speed in speeds]
        speed = f"{r.decode_tok_s:,.0f}" if r.decode_tok_s >= 100 else f"{r.decode_tok_s:.1f}"
        rows.append([r.model, r.quant, kernels, str(r.threads), *cells, speed, f"{r.rss_mb:,.0f}"])
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * w if i < 3 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for row in [head, rule, *rows]:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
