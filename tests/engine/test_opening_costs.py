"""What it costs to open a large file and to load it: a header's time, and no memory twice."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import architectures, executors
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig
from tests.gguf_models import VOCABULARY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as on Linux")

# dim, hidden, layers, heads, kv heads, vocab, context, head_dim
LARGE = ModelConfig("llama", 4096, 11008, 8, 32, 32, len(VOCABULARY), 2048, 128)
MEDIUM = replace(LARGE, dim=1024, hidden_dim=4096, n_layers=2, n_heads=8, n_kv_heads=8)
PROGRAM = """
import json, sys, time
from pathlib import Path
from fireside.engine import architectures, executors, open_checkpoint
from fireside.engine.checkpoints import gguf
def stat(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) << 10
def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])
architectures.get("llama"), executors.names()
before, memory, start = bytes_read(), stat("VmHWM"), time.process_time()
checkpoint = open_checkpoint(Path(sys.argv[1]))
opened = time.process_time() - start, stat("VmHWM") - memory, bytes_read() - before
plan = architectures.get("llama").plan(checkpoint.config, checkpoint.tied)
loaded = {}
if len(sys.argv) > 2:
    before = stat("VmRSS")
    runner = executors.choose("native").build(plan, checkpoint, sys.argv[2], 2, None, "f16")
    loaded = {"result": runner.nbytes, "peak": stat("VmHWM") - before}
print(json.dumps({"seconds": opened[0], "memory": opened[1], "read": opened[2], **loaded}))
"""


def empty_model(path: Path, config: ModelConfig) -> int:
    """A file of F32 weights that are all 0 and take no room on the disk; its bytes."""
    nothing = np.empty(0, np.uint8)
    tensors = {
        name: Tensor(name, shape, "F32", nothing)
        for name, shape in architectures.get("llama").shapes(config).items()
    }
    entries = gguf_writer.lay_out(tensors, None)
    metadata = {
        **gguf_writer.describe(config, "large", entries),
        **gguf_writer.describe_vocabulary(VOCABULARY),
    }
    header = b"".join(gguf_writer.encode_header(metadata, entries))
    size = len(header) + -len(header) % 32 + entries[-1].offset + entries[-1].nbytes
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
    return size


def cost(*arguments: object) -> dict[str, float]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def test_of_a_file_of_gigabytes_the_header_is_read(tmp_path: Path) -> None:
    assert empty_model(tmp_path / "large.gguf", LARGE) > 6 << 30
    found = cost(tmp_path / "large.gguf")
    assert found["read"] < 4 << 20
    assert found["memory"] < 16 << 20
    assert found["seconds"] < 1


@pytest.mark.skipif(bool(executors._REGISTRY["native"].why_not()), reason="no C kernels")
@pytest.mark.parametrize("quant", ["q8", "q4", "f16", "none"])
def test_loading_takes_the_memory_of_what_it_makes(tmp_path: Path, quant: str) -> None:
    assert empty_model(tmp_path / "medium.gguf", MEDIUM) > 120 << 20
    found = cost(tmp_path / "medium.gguf", quant)
    # a page of 2 MB that is not full, and the room of two threads
    assert found["peak"] < 1.1 * found["result"] + (6 << 20), found
