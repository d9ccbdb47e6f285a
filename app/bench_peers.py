"""The programs that Fireside is measured beside, and the interpreter that each lives in.

A peer may be installed in an environment of its own: built with other options, or with packages
that Fireside does not want. So it is run by whatever Python is named, as a script.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from fireside.engine import FiresideError
from fireside.engine.checkpoints.types import Checkpoint

LLAMA_CPP = "llama.cpp"
SCRIPTS = {LLAMA_CPP: Path(__file__).with_name("bench_llama_cpp.py")}
FINDS = "import importlib.util, sys; sys.exit(importlib.util.find_spec('llama_cpp') is None)"
FIND_TIMEOUT_S = 60


def check(python: str) -> None:
    """Raise FiresideError unless the interpreter `python` runs and has llama-cpp-python."""
    command = [python, "-c", FINDS]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=FIND_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FiresideError(
            f"cannot run {python}: {reason}", "--peer-python names a Python interpreter"
        ) from error
    if done.returncode:
        raise FiresideError(
            f"llama-cpp-python is not installed for {python}",
            "pip install 'fireside[bench]', or name a Python that has it with --peer-python",
        )


def comparable(checkpoint: Checkpoint) -> None:
    """Raise FiresideError unless a peer can run the same file."""
    if not checkpoint.format.startswith("GGUF"):
        raise FiresideError(
            f"{checkpoint.path} is {checkpoint.format}: only GGUF files can be compared",
            "leave it out, or leave out --compare",
        )
