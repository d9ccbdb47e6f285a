"""Measuring: every case in a process of its own, their repeats taking turns, medians.

Taking turns keeps a machine that slows down for a minute from slowing down one case only. It
needs the models in memory at once; where they do not all fit, the cases of one model and thread
count take turns, and where those do not, each case runs alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fireside.app.bench_peers import SCRIPTS
from fireside.engine import CheckpointError, FiresideError, KernelsError, open_checkpoint
from fireside.engine.executors.native_library import ISA_VARIABLE
from fireside.engine.model import weights_nbytes

SHARE_OF_MEMORY = 0.5  # of what is free, that models of cases taking turns may take together
REST_S = 0.05  # between turns: threads of OpenMP may wait busily for some 10 ms after their work
PEER_LIMIT_S = 300.0  # for an answer of a peer, unless told otherwise
LONGEST_ERROR = 120  # characters of what a peer said last
Profile = dict[str, dict[str, float]]  # "decode", "prefill 128" -> operation -> seconds


@dataclass(frozen=True)
class Case:
    """What is measured."""

    path: Path
    quant: str
    kernels: str  # of Fireside, or the name of a peer
    threads: int
    prefill: tuple[int, ...]
    decode: int
    isa: str = ""  # "" is the best there is
    python: str = ""  # the interpreter of a peer
    at: tuple[int, ...] = ()  # positions to decode from, besides the first
    limit_s: float = PEER_LIMIT_S  # a peer that takes longer to answer is given up
    kv: str = "f16"

    def __str__(self) -> str:
        kernels = f"{self.kernels} {self.isa}".rstrip()
        return f"{self.path.stem} {self.quant} {kernels} {self.threads} threads"

    @property
    def is_peer(self) -> bool:
        """Whether another program than Fireside is measured."""
        return self.kernels in SCRIPTS

    def nbytes(self) -> int:
        """About the bytes of its weights in memory."""
        checkpoint = open_checkpoint(self.path)
        needs = 4 * checkpoint.parameters  # NumPy computes in float32
        return needs if self.kernels == "numpy" else weights_nbytes(checkpoint)[self.quant]

    def command(self) -> list[str]:
        """What starts its process."""
        if self.is_peer:
            return [self.python, str(SCRIPTS[self.kernels])]
        return [sys.executable, "-m", "fireside.app.bench_worker"]

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Its process's environment, made from ours."""
        limits = {}
        if self.kernels == "numpy":  # what its BLAS may be built with
            blas = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
            limits = dict.fromkeys(blas, str(self.threads))
        return {**ours, **limits, **({ISA_VARIABLE: self.isa} if self.isa else {})}


@dataclass(frozen=True)
class Result:
    """Medians of a case. Of a peer that failed there is no more than `error`."""

    model: str
    quant: str
    kernels: str
    isa: str
    threads: int
    prefill_tok_s: dict[str, float]  # prompt length -> tokens a second
    decode_tok_s: float | None
    rss_mb: float | None
    kv: str = ""  # how keys and values are kept; ours alone
    blocks: str = ""  # how most weights are stored in the file
    load_s: float | None = None
    bytes_per_token: int | None = None  # weights and cache that a token of the decode reads
    read_gb_s: float | None = None  # how fast this many threads read that here
    floor_tok_s: float | None = None  # the decode speed, were reading all there is to do
    floor_percent: float | None = None  # of that speed
    ratios: dict[str, float] | None = None  # "decode", "prefill 128" -> our speed / the peer's
    profile: Profile | None = None
    error: str = ""
    at_tok_s: dict[str, float] = field(default_factory=dict)  # position -> decode from there


class CaseError(FiresideError):
    """A case's process ended, or said that it cannot."""


@dataclass
class Runner:
    """A case's process, and what it answered."""

    case: Case
    process: subprocess.Popen[str]
    log: IO[bytes]  # what a peer says on stderr
    facts: dict[str, Any] = field(default_factory=dict)
    answers: list[dict[str, Any]] = field(default_factory=list)
    profile: Profile | None = None
    error: str = ""  # why a peer is out of the race

    @classmethod
    def start(cls, case: Case, environment: Mapping[str, str]) -> Runner:
        """Load the model; the engine's errors come through."""
        log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by stop)
        try:
            process = subprocess.Popen(
                case.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log if case.is_peer else None,
                text=True,
                env=case.environment(environment),
                start_new_session=True,  # ctrl+c is for us; it ends when we do, see end_with
            )
        except OSError as error:
            log.close()
            raise FiresideError(f"cannot start {case}: {error.strerror}") from error
        runner = cls(case, process, log)
        values = {
            "path": str(case.path.absolute()),
            "quant": case.quant,
            "kernels": case.kernels,
            "threads": case.threads,
            "prefill": case.prefill,
            "decode": case.decode,
            "at": case.at,
            "parent": os.getpid(),
            "kv": case.kv,
        }
        try:
            runner.facts = runner.ask(json.dumps(values)) or {}
        except BaseException:
            runner.stop()
            raise
        return runner

    def ask(self, line: str) -> dict[str, Any] | None:
        """The answer to a line; None once a peer has failed."""
        if self.error:
            return None
        try:
            return self._ask(line)
        except CaseError as error:
            if not self.case.is_peer:
                raise
            self.error = error.message  # it has lost; the others go on
            return None

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        late = threading.Event()
        watch = threading.Timer(self.case.limit_s, self._give_up, [late])
        if self.case.is_peer:
            watch.start()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            watch.cancel()
        if not answer:
            code = self.process.wait()
            if late.is_set():
                raise CaseError(f"no answer within {self.case.limit_s:g} s{self._last_words()}")
            ending = _ending(code)
            raise CaseError(
                f"{ending}{self._last_words()}"
                if self.case.is_peer
                else f"measuring {self.case} ended with {ending}"
            )
        try:
            values: dict[str, Any] = json.loads(answer)
        except ValueError as error:
            raise CaseError(f"measuring {self.case}: no answer, but {answer[:80]!r}") from error
        if "error" in values:
            kinds = {"CheckpointError": CheckpointError, "KernelsError": KernelsError}
            kind = CaseError if self.case.is_peer else kinds.get(values["error"], FiresideError)
            raise kind(values["message"], values["hint"])
        return values

    def _give_up(self, late: threading.Event) -> None:
        late.set()
        self.process.kill()

    def _last_words(self) -> str:
        """What a peer said last, where it said something."""
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").split("\n")
        last = next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")
        return f": {last[:LONGEST_ERROR]}" if last else ""

    def measure(self) -> None:
        """Once more."""
        answer = self.ask("measure")
        if answer is not None:
            self.answers.append(answer)

    def take_profile(self) -> None:
        """Where the time goes; peers do not tell."""
        if not self.case.is_peer:
            self.profile = (self.ask("profile") or {}).get("profile")

    def stop(self) -> None:
        """End the process, whatever it does: it holds nothing that could be lost."""
        self.process.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a line that it did not live to read
                    stream.close()
        self.process.wait()
        self.log.close()

    def result(self) -> Result:
        """Medians; the first round warmed up and does not count."""
        known = {
            "model": self.facts.get("model", self.case.path.stem),
            "quant": self.case.quant,
            "kernels": self.facts.get("kernels", self.case.kernels),
            "isa": self.facts.get("isa", ""),
            "threads": self.facts.get("threads") or self.case.threads,
        }
        if self.error:
            return Result(
                **known, prefill_tok_s={}, decode_tok_s=None, rss_mb=None, error=self.error
            )
        rounds = self.answers[1:]
        prefill = {
            length: round(int(length) / _median(rounds, "prefill_s", length), 2)
            for length in rounds[0]["prefill_s"]
        }
        decode = self.facts["decode"] / _median(rounds, "decode_s")
        at = {
            start: round(count / _median(rounds, "at_s", start), 2)
            for start, count in self.facts.get("at", {}).items()
        }
        result = Result(
            **known,
            prefill_tok_s=prefill,
            decode_tok_s=round(decode, 2),
            rss_mb=round(self.answers[-1]["rss"] / 1e6, 1),
            kv="" if self.case.is_peer else self.case.kv,
            blocks=self.facts.get("blocks", ""),
            load_s=round(self.facts["load_s"], 3),
            profile=self.profile,
            at_tok_s=at,
        )
        if self.case.is_peer:
            return result
        return with_floor(result, self.facts["bytes_per_token"], _median(rounds, "read"))


def _median(rounds: Sequence[dict[str, Any]], *keys: str) -> float:
    """The median of a value, `keys` deep in each answer."""
    values: list[float] = []
    for answer in rounds:
        value: Any = answer
        for key in keys:
            value = value[key]
        values.append(float(value))
    return max(statistics.median(values), 1e-9)  # a clock may stand still


def _ending(code: int) -> str:
    """How a process ended."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def with_floor(result: Result, nbytes: int, bytes_s: float) -> Result:
    """`result` with what the memory would allow: `nbytes` a token at `bytes_s`."""
    floor = bytes_s / nbytes
    return dataclasses.replace(
        result,
        bytes_per_token=nbytes,
        read_gb_s=round(bytes_s / 1e9, 2),
        floor_tok_s=round(floor, 2),
        floor_percent=round(100 * (result.decode_tok_s or 0) / floor, 1),
    )


def run(
    cases: Sequence[Case],
    repeat: int,
    profile: bool,
    environment: Mapping[str, str],
    tell: Callable[[str], None],
) -> list[Result]:
    """Measure all cases, `repeat` times and once to warm up; tell(line) is called as it goes.

    environment: as it was when Fireside began. Loading the extension here may have changed how
    OpenMP waits, which a peer would inherit. The results are in the order of the cases.
    """
    results: dict[Case, Result] = {}
    for group in groups(cases):
        runners: list[Runner] = []
        try:
            for case in group:
                tell(f"loading {case}")
                runners.append(Runner.start(case, environment))
            for number in range(repeat + 1):
                for runner in runners:
                    tell(f"round {number} of {repeat}: {runner.case}")
                    time.sleep(REST_S)
                    runner.measure()
            for runner in runners if profile else ():
                tell(f"profile: {runner.case}")
                runner.take_profile()
            results |= {runner.case: runner.result() for runner in runners}
        finally:
            for runner in runners:
                runner.stop()
    compare(results)
    return [results[case] for case in cases]


def groups(cases: Sequence[Case]) -> list[list[Case]]:
    """The cases that take turns: all, or those of one model and thread count, or each alone."""
    room = SHARE_OF_MEMORY * free_memory()
    needs = {case: case.nbytes() for case in cases}
    if sum(needs.values()) <= room:
        return [list(needs)]
    rows: dict[tuple[Path, int], list[Case]] = {}
    for case in needs:
        rows.setdefault((case.path, case.threads), []).append(case)
    result: list[list[Case]] = []
    for row in rows.values():
        fits = sum(needs[case] for case in row) <= room
        result += [row] if fits else [[case] for case in row]
    return result


def compare(results: dict[Case, Result]) -> None:
    """Give every case with a peer its ratios, and the peer the floor of that case."""
    for peer_case in [case for case in results if case.is_peer]:
        where = (peer_case.path, peer_case.quant, peer_case.threads)
        for case, result in list(results.items()):
            if case.is_peer or (case.path, case.quant, case.threads) != where:
                continue
            peer = results[peer_case]
            results[case] = dataclasses.replace(result, ratios=ratios(result, peer))
            # what the file is called and holds, and the floor, are the same for both
            known: dict[str, Any] = {"model": result.model, "blocks": result.blocks}
            if peer.floor_tok_s is None and peer.decode_tok_s and result.floor_tok_s:
                known["floor_tok_s"] = result.floor_tok_s
                known["floor_percent"] = round(100 * peer.decode_tok_s / result.floor_tok_s, 1)
            results[peer_case] = dataclasses.replace(peer, **known)


def ratios(ours: Result, theirs: Result) -> dict[str, float] | None:
    """Our speeds over the peer's; None where it has none."""
    if not theirs.decode_tok_s:
        return None
    parts = (
        ("prefill", ours.prefill_tok_s, theirs.prefill_tok_s),
        ("at", ours.at_tok_s, theirs.at_tok_s),
    )
    result = {
        f"{name} {key}": round(value / peers[key], 3)
        for name, own, peers in parts
        for key, value in own.items()
        if peers.get(key)
    }
    return {**result, "decode": round((ours.decode_tok_s or 0) / theirs.decode_tok_s, 3)}


def free_memory() -> int:
    """Bytes of memory that may be taken; where the system does not tell, not much."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 << 30
