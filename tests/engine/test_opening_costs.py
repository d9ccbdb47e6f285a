"""What it costs to open a large file: a header's time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import architectures
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.config import ModelConfig
from tests.gguf_models import VOCABULARY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted as on Linux")

# dim, hidden, layers, heads, kv heads, vocab, context, head_dim
LARGE = ModelConfig("llama", 4096, 11008, 8, 32, 32, len(VOCABULARY), 2048, 128)
PROGRAM = """
import json, sys, time
from pathlib import Path
from fireside.engine import architectures, open_checkpoint
from fireside.engine.checkpoints import gguf
def stat(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) << 10
def bytes_read():
    return int(Path("/proc/self/io").read_text().split()[1])
architectures.get("llama")
before, memory, start = bytes_read(), stat("VmHWM"), time.process_time()
checkpoint = open_checkpoint(Path(sys.argv[1]))
opened = time.process_time() - start, stat("VmHWM") - memory, bytes_read() - before
print(json.dumps(dict(zip(("seconds", "memory", "read"), opened))))
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


def test_of_a_file_of_gigabytes_the_header_is_read(tmp_path: Path) -> None:
    assert empty_model(tmp_path / "large.gguf", LARGE) > 6 << 30
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "large.gguf")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["read"] < 4 << 20
    assert found["memory"] < 16 << 20
    assert found["seconds"] < 1
