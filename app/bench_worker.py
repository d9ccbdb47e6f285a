"""The process that `fireside bench` measures one case in: JSON lines in, JSON lines out.

A process a case: the resident memory is the case's own, instruction set and NumPy's thread count
can be set, and the repeats of all cases can take turns. The first line describes the case and is
answered when the model is loaded; every line "measure" is answered with one measurement, "profile"
with where the time goes. It ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fireside.app.bench_llama_cpp import end_with, resident_bytes
from fireside.app.catalogue import block_counts
from fireside.engine import FiresideError, architectures, executors, open_checkpoint
from fireside.engine.bursts import burst_for
from fireside.engine.executors import KV, Executor, Quant, native_measure
from fireside.engine.executors.native import NativeExecutor
from fireside.engine.samplers import Sampling, chain_for
from fireside.engine.session import CHUNK

NUMPY_BUFFER = 256 << 20  # bytes, at most, that NumPy's reading rate is measured on
PROFILE_S = 0.2  # a profile is taken for at least so long


class Case:
    """A loaded model and what is measured on it, without a tokenizer.

    Single tokens come in bursts of likeliest ones, as a session tells them; from NumPy, from steps.
    """

    def __init__(
        self,
        path: str,
        quant: Quant,
        kernels: str,
        threads: int,
        prefill: list[int],
        decode: int,
        at: list[int],
        kv: KV,
    ) -> None:
        checkpoint = open_checkpoint(Path(path))
        architecture = architectures.get(checkpoint.config.architecture)
        self.plan = architecture.plan(checkpoint.config, checkpoint.tied)
        kind = executors.choose(kernels)
        started = time.perf_counter()
        self.executor: Executor = kind.build(self.plan, checkpoint, quant, threads, None, kv)
        self.load_s = time.perf_counter() - started
        self.name = checkpoint.name
        self.config = checkpoint.config
        self.blocks = next(iter(block_counts(checkpoint)))
        context = checkpoint.config.context_length
        self.prefill = [length for length in prefill if length <= context]
        self.decode = min(decode, context)
        # position -> tokens written from there: the context may end before
        self.at = {start: min(decode, context - start) for start in at if start < context}
        longest = max([*self.prefill, self.decode, *(sum(item) for item in self.at.items())])
        # whatever tokens: the work does not depend on them
        rng = np.random.default_rng(1)
        self.ids = rng.integers(0, checkpoint.config.vocab_size, longest).astype(np.int32)
        self.cache = self.executor.new_cache(longest)
        chain = chain_for(Sampling(temperature=0.0), 1, self.executor.name)
        self._burst = burst_for(self.executor, chain, frozenset())
        if self.at:  # what stands before a position is read, so it is there
            self._push(0, max(self.at), CHUNK)
        self.asked_threads = threads
        # NumPy computes with float32, whatever the file holds
        sizes = {group: [checkpoint.tensors[n] for n in group] for group in self.plan.weights}
        self._numpy_bytes = 4 * sum(t.count for tensors in sizes.values() for t in tensors)

    def facts(self) -> dict[str, Any]:
        """What it is."""
        e = self.executor
        facts = {"model": self.name, "kernels": e.name, "isa": e.isa, "threads": e.threads}
        more = {"load_s": self.load_s, "decode": self.decode, "at": self.at, "blocks": self.blocks}
        return {**facts, **more, "bytes_per_token": self.bytes_per_token()}

    def bytes_per_token(self) -> int:
        """What a token of the decode reads on average: weights, and the cache up to it."""
        e = self.executor
        weights = self._numpy_bytes
        if isinstance(e, NativeExecutor):
            weights = native_measure.weight_bytes(e, self.plan)
        positions = (self.decode + 1) / 2
        kv: KV = e.kv if isinstance(e, NativeExecutor) else "f32"
        return round(weights + executors.cache_bytes(self.config, kv) * positions)

    def measure(self) -> dict[str, Any]:
        """Seconds of each prefill, and of single tokens from the beginning and from each `at`."""
        self._push(0, 1, 1)  # not timed: other cases had the processor's caches meanwhile
        prefill = {str(length): _seconds(self._push, 0, length, CHUNK) for length in self.prefill}
        decode_s = _seconds(self._tell, 0, self.decode)
        at = {str(start): _seconds(self._tell, start, n) for start, n in self.at.items()}
        rss = resident_bytes()  # before the buffer that reading may take
        speeds = {"prefill_s": prefill, "decode_s": decode_s, "at_s": at}
        return {**speeds, "rss": rss, "read": self.read_rate()}

    def read_rate(self) -> float:
        """Bytes a second that this many threads can read here, of as much as the model is."""
        if isinstance(self.executor, NativeExecutor):
            return native_measure.read_rate(self.executor)
        return numpy_read_rate(min(self._numpy_bytes, NUMPY_BUFFER), self.asked_threads)

    def profile(self) -> dict[str, Any]:
        """Seconds of one step by kind of operation: of a single token, and of each prefill."""
        if not isinstance(self.executor, NativeExecutor):
            return {"profile": None}
        parts = {"decode": self._profile(self.executor, self.decode, self._tell, 0, self.decode)}
        for start, count in self.at.items():
            parts[f"at {start}"] = self._profile(self.executor, count, self._tell, start, count)
        for length in self.prefill:
            parts[f"prefill {length}"] = self._profile(
                self.executor, 1, self._push, 0, length, CHUNK
            )
        return {"profile": parts}

    def _profile(
        self, executor: NativeExecutor, steps: int, run: Callable[..., None], *arguments: int
    ) -> dict[str, float]:
        """Seconds by operation of a step of those that a run has.

        What is left is outside of all operations.
        """
        rounds, wall = 0, 0.0
        native_measure.start_profile(executor)
        while wall < PROFILE_S:
            wall += _seconds(run, *arguments)
            rounds += 1
        parts = dict(native_measure.read_profile(executor))
        parts["outside the operations"] = max(wall - sum(parts.values()), 0.0)
        return {name: seconds / (rounds * steps) for name, seconds in parts.items()}

    def _tell(self, first: int, count: int) -> None:
        """`count` tokens from position `first` on, the likeliest each, as a session draws them."""
        if self._burst is None:
            self._push(first, count, 1)
            return
        text = self.ids[: first + 1].tolist()
        while (left := first + count + 1 - len(text)) > 0:
            told = self._burst.tell(self.cache, text, len(text) - 1, left)
            text += [choice.id for choice in told.choices]

    def _push(self, first: int, length: int, chunk: int) -> None:
        """`length` tokens from position `first` on, `chunk` at a time: as a session does it."""
        end = first + length
        for start in range(first, end, chunk):
            tokens: NDArray[np.int32] = self.ids[start : min(start + chunk, end)]
            wanted = chunk == 1 or start + chunk >= end
            self.executor.step(self.cache, tokens, start, "last" if wanted else "none")


def _seconds(function: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def numpy_read_rate(nbytes: int, threads: int) -> float:
    """Bytes a second that NumPy reads of a buffer, where there is nothing faster to ask."""
    buffer = np.ones(max(nbytes // 4, 1), np.float32)
    parts = np.array_split(buffer, threads)
    with ThreadPoolExecutor(threads) as pool:
        best = min(_seconds(lambda: list(pool.map(np.max, parts))) for _ in range(4))
    return buffer.nbytes / best


def main() -> None:
    """Serve until the input ends."""
    first = sys.stdin.readline()
    if not first:
        return
    values = json.loads(first)
    end_with(values.pop("parent"))
    try:
        case = Case(**values)
    except FiresideError as error:
        kind = type(error).__name__
        _answer({"error": kind, "message": error.message, "hint": error.hint})
        return
    _answer(case.facts())
    for line in sys.stdin:
        _answer(case.profile() if line.strip() == "profile" else case.measure())


def _answer(values: dict[str, Any]) -> None:
    try:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody listens any more
        os._exit(1)


if __name__ == "__main__":
    main()
