"""What loading takes beside the weights that it makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fireside.app import bench_shapes

# the most memory that a process ever had, before it loads a model and after
PROGRAM = """
import sys
from fireside.engine import load
def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
load(sys.argv[1], quant=sys.argv[3], threads=2)
before = peak()
model = load(sys.argv[2], quant=sys.argv[3], threads=2)
print(model.nbytes, peak() - before)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small file of floats, which brings the program's own memory, and one of 145 MB."""
    paths = []
    for shape in ("64/128/1/4/4/1000", "768/2048/5/12/12/1000"):
        path = tmp_path_factory.mktemp("models") / "model.gguf"
        bench_shapes.make(bench_shapes.parse(shape)[0], "f32", path, lambda *_: None)
        paths.append(path)
    return paths[0], paths[1]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("quant", ["q8", "q4", "f16"])
def test_the_peak_is_the_result_and_little_more(models: tuple[Path, Path], quant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, models), quant],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    weights, grown = map(int, done.stdout.split())
    assert 0.7 * weights < grown < 1.1 * weights
