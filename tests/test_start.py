"""Starting and loading, as processes: what is in memory, what is imported, what the file may do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fireside.engine import CheckpointError, load
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.config import ModelConfig
from fireside.engine.executors import native_library
from tests.model_files import small_vocabulary
from tests.models import random_checkpoint

VOCABULARY = small_vocabulary(288)
native = pytest.mark.skipif(bool(native_library.load()[2]), reason="no C kernels here")


def run(code: str, *args: str | Path, **environment: str) -> str:
    """What a fresh Python prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def written(folder: Path, dim: int, layers: int) -> Path:
    """A random model in float32."""
    config = ModelConfig("llama", dim, 2 * dim, layers, 8, 8, len(VOCABULARY), 64, dim // 8)
    path = folder / "model.gguf"
    checkpoint = random_checkpoint(config, 1)
    gguf_writer.write(path, config, checkpoint.tensors, VOCABULARY)
    return path


PEAK = """
import sys
from pathlib import Path
from fireside.engine import load
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
load(sys.argv[1], quant="q8", threads=2)  # what is needed whatever the size
before = peak()
model = load(sys.argv[2], quant="q8", threads=2)
print(model.nbytes, peak() - before)
"""


@native
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_of_loading_is_the_result(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    small, large = written(tmp_path / "small", 64, 1), written(tmp_path, 1024, 3)
    weights, grown = map(int, run(PEAK, small, large).split())
    assert large.stat().st_size > 3.5 * weights
    # what the file itself would have added is far more
    assert grown < 1.1 * weights + (6 << 20)


TRUNCATED = """
import os, sys
from fireside.engine import Sampling, Token, load
model = load(sys.argv[1], quant=sys.argv[2], kernels=sys.argv[3])
os.truncate(sys.argv[1], 0)
events = model.session().generate("a", Sampling(seed=1), max_tokens=8)
print(sum(isinstance(event, Token) for event in events))
"""


@pytest.mark.parametrize("quant", ["none", "q4"])
@pytest.mark.parametrize("kernels", ["auto", "numpy"])
def test_a_loaded_model_needs_its_file_no_more(tmp_path: Path, kernels: str, quant: str) -> None:
    assert int(run(TRUNCATED, written(tmp_path, 64, 2), quant, kernels)) > 0


@pytest.mark.parametrize("kernels", ["auto", "numpy"])
def test_a_file_cut_short_while_it_is_loaded(tmp_path: Path, kernels: str) -> None:
    path = written(tmp_path, 64, 2)

    def cut(done: int, total: int) -> None:
        if done > total // 4:
            os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(CheckpointError, match="changed while it was read"):
        load(path, kernels=kernels, progress=cut)


IMPORTED = """
import os, sys
from fireside.app.cli import main
arguments = ["-n", "60", "-t", "0", "--stats"] if len(sys.argv) > 3 else ["-n", "1"]
code = main(["write", "--model", sys.argv[1], *arguments, "--kernels", sys.argv[2], "a"])
assert code == 0
print("\\n" + " ".join(sys.modules))
print(os.environ.get("OPENBLAS_NUM_THREADS"))
"""


@native
def test_a_story_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    home = {"FIRESIDE_CONFIG": str(tmp_path / "c.toml"), "FIRESIDE_DATA_DIR": str(tmp_path)}
    os_environ = {**home, "OPENBLAS_NUM_THREADS": ""}
    path = written(tmp_path, 64, 1)
    *_, modules, _ = run(IMPORTED, path, "auto", **os_environ).splitlines()
    heavy = {"textual", "rich", "sqlite3", "hashlib", "secrets", "numpy.random", "asyncio"}
    heavy |= {"click", "dataclasses", "inspect", "typing", "logging", "json", "tempfile"}
    assert heavy.isdisjoint(modules.split())
    # nor what reads other formats, knows other architectures, computes otherwise, converses
    names = {"checkpoints.hf", "checkpoints.pickles", "architectures.gemma", "chat"}
    names |= {"executors.numpy_executor", "tokenizers.bpe"}
    names |= {"speculation.speculator", "speculation.draft"}  # there is one word to come
    assert "numpy" not in modules.split()  # C computes, and a short story needs no array
    assert names.isdisjoint(m.removeprefix("fireside.engine.") for m in modules.split())
    *_, modules, _ = run(IMPORTED, path, "native", "guesses", **os_environ).splitlines()
    assert "fireside.engine.speculation.lookup" in modules.split()
    assert "numpy" not in modules.split()  # nor do guesses


@native
@pytest.mark.parametrize(("kernels", "threads"), [("native", "1"), ("numpy", "None")])
def test_numpy_starts_threads_only_where_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernels: str, threads: str
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    home = {"FIRESIDE_CONFIG": str(tmp_path / "c.toml"), "FIRESIDE_DATA_DIR": str(tmp_path)}
    assert run(IMPORTED, written(tmp_path, 64, 1), kernels, **home).splitlines()[-1] == threads
