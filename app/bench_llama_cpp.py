"""The peer's side of `fireside bench --compare llama.cpp`: JSON lines in, JSON lines out.

Run by the interpreter that has llama-cpp-python, which may lack Fireside: nothing but the standard
library and llama_cpp is imported here. The lines are those of bench_worker.py, and so is what is
measured: prompts, and single tokens, from an empty cache, without tokenizer; and without a sampler,
where ours draws the likeliest token.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

BATCH = 512  # tokens llama.cpp takes at once, its own default
PARENT_S = 0.5  # between two looks at whether the parent is there
SETS = ("AMX_INT8", "AVX512_VNNI", "AVX512", "AVX_VNNI", "AVX2", "AVX", "DOTPROD", "NEON")


class Peer:
    """A model loaded by llama.cpp."""

    def __init__(
        self, path: str, threads: int, prefill: list[int], decode: int, at: list[int], **_: object
    ) -> None:
        self.lib: Any = importlib.import_module("llama_cpp")
        # kept, or the library would call what is gone
        self._silence = self.lib.llama_log_callback(lambda *arguments: None)
        self.lib.llama_log_set(self._silence, ctypes.c_void_p(0))
        self.lib.llama_backend_init()
        self.threads = threads
        started = time.perf_counter()
        settings = self.lib.llama_model_default_params()
        settings.n_gpu_layers = 0  # processors are compared
        self.model = self.lib.llama_model_load_from_file(path.encode(), settings)
        if not self.model:
            raise RuntimeError("llama.cpp does not load the file")
        self.load_s = time.perf_counter() - started
        context = self.lib.llama_model_n_ctx_train(self.model)
        self.prefill = [length for length in prefill if length <= context]
        self.decode = min(decode, context)
        self.at = {start: min(decode, context - start) for start in at if start < context}
        longest = max([*self.prefill, self.decode, *(sum(item) for item in self.at.items())])
        self.context = self._new_context(longest)
        self.memory = self.lib.llama_get_memory(self.context)
        words = self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model))
        ids = [7919 * i % words for i in range(longest)]  # whatever tokens
        self.ids = (ctypes.c_int32 * longest)(*ids)

    def _new_context(self, longest: int) -> Any:
        settings = self.lib.llama_context_default_params()
        settings.n_ctx = max(longest, BATCH)
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = self.threads
        context = self.lib.llama_init_from_model(self.model, settings)
        if not context:
            raise RuntimeError("llama.cpp makes no context")
        return context

    def facts(self) -> dict[str, Any]:
        """What it is."""
        told = self.lib.llama_print_system_info().decode(errors="replace")
        isa = next((name.lower() for name in SETS if f"{name} = 1" in told), "")
        facts = {"kernels": f"llama.cpp (llama-cpp-python {self.lib.__version__})", "isa": isa}
        lengths = {"decode": self.decode, "at": self.at}
        return {**facts, **lengths, "threads": self.threads, "load_s": self.load_s}

    def measure(self) -> dict[str, Any]:
        """Seconds of each prefill, and of single tokens from the beginning and from each `at`."""
        self._push(0, 1, 1)  # not timed: other cases had the processor's caches meanwhile
        prefill = {str(length): self._push(0, length, BATCH) for length in self.prefill}
        decode_s = self._push(0, self.decode, 1)
        at = {str(start): self._push(start, count, 1) for start, count in self.at.items()}
        return {"prefill_s": prefill, "decode_s": decode_s, "at_s": at}

    def _push(self, first: int, length: int, chunk: int) -> float:
        """Seconds of `length` tokens from position `first` on, `chunk` at a time."""
        if first:  # what stands before is written anew, not timed
            self._push(0, first, BATCH)
        else:
            self.lib.llama_memory_clear(self.memory, False)
        size = ctypes.sizeof(ctypes.c_int32)
        parts = []  # made before the clock starts
        for start in range(first, first + length, chunk):
            count = min(chunk, first + length - start)
            part = (ctypes.c_int32 * count).from_buffer(self.ids, start * size)
            parts.append(self.lib.llama_batch_get_one(part, count))
        started = time.perf_counter()
        for part in parts:
            status = self.lib.llama_decode(self.context, part)
            self.lib.llama_synchronize(self.context)
            if status:
                raise RuntimeError(f"llama_decode ended with status {status}")
        return time.perf_counter() - started


def end_with(parent: int) -> None:
    """However the parent ends, this process ends soon after, even inside a library that hangs."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def resident_bytes() -> int:
    """Memory of this process that is in RAM, what it has mapped of a file included.

    Its peak where the system does not tell.
    """
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
    first = sys.stdin.readline()
    if not first:
        return
    # Python puts a script's folder first: the modules beside this one are not the peer's.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(values: dict[str, Any]) -> None:
        try:
            out.write(json.dumps(values) + "\n")
            out.flush()
        except BrokenPipeError:  # nobody listens any more
            os._exit(1)

    try:
        values = json.loads(first)
        end_with(values.pop("parent"))
        peer = Peer(**values)
        answer(peer.facts())
        for _ in sys.stdin:
            answer({**peer.measure(), "rss": resident_bytes()})
    except Exception as error:
        answer({"error": type(error).__name__, "message": str(error), "hint": ""})


if __name__ == "__main__":
    main()
