"""The process that `fireside bench` measures one case in: JSON lines in, JSON lines out.

A process a case: the resident memory is the case's own, NumPy's thread count can be set, and the
repeats of all cases can take turns. The first line describes the case and is answered when the
model is loaded; every further line is answered with one measurement. It ends with its input.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireside.engine import FiresideError, architectures, executors, open_checkpoint
from fireside.engine.executors import Executor, Quant
from fireside.engine.session import CHUNK


class Case:
    """A loaded model and what is measured on it; sampler and tokenizer are no part of that."""

    def __init__(
        self, path: str, quant: Quant, kernels: str, threads: int, prefill: list[int], decode: int
    ) -> None:
        checkpoint = open_checkpoint(Path(path))
        architecture = architectures.get(checkpoint.config.architecture)
        plan = architecture.plan(checkpoint.config, checkpoint.tied)
        kind = executors.choose(kernels)
        started = time.perf_counter()
        self.executor: Executor = kind.build(plan, checkpoint, quant, threads, None)
        self.load_s = time.perf_counter() - started
        self.name = checkpoint.name
        context = checkpoint.config.context_length
        self.prefill = [length for length in prefill if length <= context]
        self.decode = min(decode, context)
        longest = max([*self.prefill, self.decode])
        # whatever tokens: the work does not depend on them
        rng = np.random.default_rng(1)
        self.ids = rng.integers(0, checkpoint.config.vocab_size, longest).astype(np.int32)
        self.cache = self.executor.new_cache(longest)

    def facts(self) -> dict[str, Any]:
        """What it is."""
        e = self.executor
        facts = {"model": self.name, "kernels": e.name, "isa": e.isa, "threads": e.threads}
        return {**facts, "load_s": self.load_s, "decode": self.decode}

    def measure(self) -> dict[str, Any]:
        """Seconds of each prefill, and of `decode` single tokens, from an empty cache."""
        prefill = {str(length): _seconds(self._push, length, CHUNK) for length in self.prefill}
        return {"prefill_s": prefill, "decode_s": _seconds(self._push, self.decode, 1)}

    def _push(self, length: int, chunk: int) -> None:
        """The first `length` tokens, `chunk` at a time: as a session does it."""
        for start in range(0, length, chunk):
            tokens: NDArray[np.int32] = self.ids[start : min(start + chunk, length)]
            wanted = chunk == 1 or start + chunk >= length
            self.executor.step(self.cache, tokens, start, "last" if wanted else "none")


def _seconds(function: Any, *arguments: int) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def resident_bytes() -> int:
    """Memory of this process that is in RAM; its peak where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says what there is to say
    try:
        case = Case(**json.loads(sys.stdin.readline()))
    except FiresideError as error:
        kind = type(error).__name__
        _answer({"error": kind, "message": error.message, "hint": error.hint})
        return
    _answer(case.facts())
    for _ in sys.stdin:
        _answer({**case.measure(), "rss": resident_bytes()})


def _answer(values: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
