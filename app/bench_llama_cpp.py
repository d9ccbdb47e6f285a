"""The peer's side of `fireside bench --compare llama.cpp`: JSON lines in, JSON lines out.

Run by the interpreter that has llama-cpp-python, which may lack Fireside: nothing but the standard
library and llama_cpp is imported here. The lines are those of bench_worker.py, and so is what is
measured: prompts, and single tokens, from an empty cache, without tokenizer and sampler.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

BATCH = 512  # tokens llama.cpp takes at once, its own default
SETS = ("AMX_INT8", "AVX512_VNNI", "AVX512", "AVX_VNNI", "AVX2", "AVX", "DOTPROD", "NEON")


class Peer:
    """A model loaded by llama.cpp."""

    def __init__(
        self, path: str, threads: int, prefill: list[int], decode: int, **_: object
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
        longest = max([*self.prefill, self.decode])
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
        return {**facts, "threads": self.threads, "load_s": self.load_s, "decode": self.decode}

    def measure(self) -> dict[str, Any]:
        """Seconds of each prefill, and of `decode` single tokens, from an empty cache."""
        prefill = {str(length): self._push(length, BATCH) for length in self.prefill}
        return {"prefill_s": prefill, "decode_s": self._push(self.decode, 1)}

    def _push(self, length: int, chunk: int) -> float:
        """Seconds of the first `length` tokens, `chunk` at a time."""
        self.lib.llama_memory_clear(self.memory, False)
        size = ctypes.sizeof(ctypes.c_int32)
        parts = []  # made before the clock starts
        for start in range(0, length, chunk):
            count = min(chunk, length - start)
            part = (ctypes.c_int32 * count).from_buffer(self.ids, start * size)
            parts.append(self.lib.llama_batch_get_one(part, count))
        started = time.perf_counter()
        for part in parts:
            status = self.lib.llama_decode(self.context, part)
            self.lib.llama_synchronize(self.context)
            if status:
                raise RuntimeError(f"llama_decode ended with status {status}")
        return time.perf_counter() - started


def resident_bytes() -> int:
    """Memory of this process that is in RAM, what it has mapped of the file included."""
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
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Python puts a script's folder first: the modules beside this one are not the peer's.
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(values: dict[str, Any]) -> None:
        out.write(json.dumps(values) + "\n")
        out.flush()

    try:
        peer = Peer(**json.loads(sys.stdin.readline()))
        answer(peer.facts())
        for _ in sys.stdin:
            answer({**peer.measure(), "rss": resident_bytes()})
    except Exception as error:
        answer({"error": type(error).__name__, "message": str(error), "hint": ""})


if __name__ == "__main__":
    main()
