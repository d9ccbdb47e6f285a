"""`fireside convert` as a process; what it writes in llama.cpp, where that is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside import assets
from fireside.app import bench_shapes
from fireside.engine import load, open_checkpoint
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.config import ModelConfig
from tests import model_files
from tests.command import COMMAND, Cli
from tests.model_files import small_vocabulary
from tests.models import random_checkpoint
from tests.shared import SHARED, needs_shared

NEARLY = 1e-3  # of logits: what other orders of adding up leave
STORIES = "fixtures/stories260K"
PEER = os.environ.get("FIRESIDE_PEER_PYTHON", "")
needs_peer = pytest.mark.skipif(
    not PEER, reason="FIRESIDE_PEER_PYTHON names no Python with llama-cpp-python"
)

# The peer's side: greedy tokens, and the logits after the prompt.
ASK = """
import json, sys
import numpy as np
import llama_cpp
case = json.load(sys.stdin)
model = llama_cpp.Llama(case["path"], n_ctx=256, n_gpu_layers=0, n_threads=1, n_threads_batch=1,
                        logits_all=True, verbose=False)
model.eval(case["ids"])
first = np.array(model.scores[model.n_tokens - 1], np.float64)
new = []
for _ in range(case["count"]):
    new.append(int(np.argmax(model.scores[model.n_tokens - 1])))
    model.eval(new[-1:])
print(json.dumps({"ids": new, "logits": first.tolist(),
                  "tokens": model.tokenize(case["text"].encode(), special=False)}))
"""


def test_a_story_stays_the_same(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    done = cli("convert", "tiny.gguf", out, env={"FIRESIDE_MODELS_DIR": str(cli.model.parent)})
    assert done.returncode == 0, done.stderr
    assert done.stdout == b""
    assert b"out.gguf: " in done.stderr
    stories = [
        cli("write", "once upon", "-n", "40", "--seed", "1", "--model", model).stdout
        for model in (cli.model, out)
    ]
    assert stories[0] == stories[1] != b""


def test_to_llama2c_and_back_with_its_tokenizer(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    vocabulary = small_vocabulary(300)
    config = ModelConfig("llama", 64, 96, 2, 4, 2, len(vocabulary), 256, 16)
    source = random_checkpoint(config, seed=3)
    gguf_writer.write(tmp_path / "a.gguf", config, source.tensors, vocabulary)
    out = folder / "m.bin"
    done = cli("convert", tmp_path / "a.gguf", out, "--to", "llama2c-v0")
    assert done.returncode == 0, done.stderr
    assert (folder / "tokenizer.bin").read_bytes() == model_files.tokenizer_bin(vocabulary)
    back = tmp_path / "back.gguf"
    assert cli("convert", out, back).returncode == 0
    stories = [
        cli("write", "once upon", "-n", "30", "--seed", "2", "--model", model).stdout
        for model in (tmp_path / "a.gguf", out, back)
    ]
    assert stories[0] == stories[1] == stories[2] != b""
    # the same tokenizer may lie there already, another one is not written over
    again = cli("convert", tmp_path / "a.gguf", folder / "n.bin", "--to", "llama2c-v2")
    assert again.returncode == 0, again.stderr
    (folder / "tokenizer.bin").write_bytes(b"another")
    refused = cli("convert", tmp_path / "a.gguf", folder / "o.bin", "--to", "llama2c-v2")
    assert refused.returncode == 1
    assert b"is another tokenizer" in refused.stderr
    assert not (folder / "o.bin").exists()


def test_nothing_is_written_over_without_force(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"precious")
    refused = cli("convert", cli.model, out)
    assert refused.returncode == 1
    assert b"is there already; --force writes over it" in refused.stderr
    assert out.read_bytes() == b"precious"
    assert cli("convert", cli.model, out, "--force", "--type", "q8_0").returncode == 0
    assert open_checkpoint(out).tensors["blk.0.attn_q.weight"].block == "Q8_0"
    itself = cli("convert", out, out, "--force", "--type", "F16")
    assert itself.returncode == 0, itself.stderr
    assert open_checkpoint(out).tensors["blk.0.attn_q.weight"].block == "F16"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing", "a.gguf"], 3, "no model called 'missing'"),
        (["{model}", "a.bin"], 2, "say --to"),
        (["{model}", "a.bin", "--to", "llama2c-v0", "--type", "F32"], 2, "are for GGUF files"),
        (["{model}", "nowhere/a.gguf"], 1, "no such folder"),
        (["{model}", "{folder}"], 2, "a folder"),
        (["{model}", "a.gguf", "--type", "Q3_K"], 2, "is not one of"),
        (["{model}", "a.gguf", "--tokenizer", "{model}x"], 3, "no such file"),
    ],
)
def test_faults_are_one_line(
    cli: Cli, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    paths = {"model": str(cli.model), "folder": str(tmp_path)}
    given = [a.format(**paths) for a in arguments]
    if not given[1].startswith("/"):
        given[1] = str(tmp_path / given[1])
    done = cli("convert", *given)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("fireside: error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_is_cut_short_leaves_no_file(cli: Cli, tmp_path: Path, number: int) -> None:
    source, out = tmp_path / "source.gguf", tmp_path / "out" / "out.gguf"
    out.parent.mkdir()
    bench_shapes.make(bench_shapes.parse("768/2048/3/12")[0], "f32", source, lambda *_: None)
    arguments = ("convert", str(source), str(out), "--type", "Q4_K", "--threads", "1")
    process = cli.start(*arguments, env={"FIRESIDE_ISA": "reference"})  # slow enough to be met
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 1 << 20 for p in out.parent.iterdir()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    code = process.wait(60)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert not out.exists()
    if number != signal.SIGKILL:
        assert list(out.parent.iterdir()) == []
        assert process.stderr is not None
        assert b"given up" in process.stderr.read()
        return
    (left,) = out.parent.iterdir()
    assert left.name.endswith(".unfinished")
    again = cli("convert", cli.model, out)  # removes it
    assert again.returncode == 0, again.stderr
    assert list(out.parent.iterdir()) == [out]


def test_a_disk_that_gives_out_leaves_nothing(cli: Cli, tmp_path: Path) -> None:
    source, out = tmp_path / "source.gguf", tmp_path / "out" / "out.gguf"
    out.parent.mkdir()
    bench_shapes.make(bench_shapes.parse("768/2048/1/12")[0], "f32", source, lambda *_: None)
    limit = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({1 << 20},) * 2)"
    program = f"{limit}; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", program, *COMMAND, "convert", source, out, "--type", "Q8_0"]
    done = subprocess.run(command, capture_output=True, env=cli.env({}), check=False, timeout=60)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert f"{out}: cannot be written: File too large" in line
    assert list(out.parent.iterdir()) == []


# -- llama.cpp


def ask(path: Path, ids: list[int], text: str, count: int) -> dict[str, list[float]]:
    case = {"path": str(path), "ids": ids, "text": text, "count": count}
    done = subprocess.run(
        [PEER, "-c", ASK], input=json.dumps(case), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answer: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return answer


def compare(path: Path, count: int, margin: float) -> None:
    """The same tokens of a text, the same logits, and greedy choices that are ours too.

    margin: how far below the top of our logits a choice may be. Where weights are quantised both
    sides round activations, each in its way, so that what is nearly even may go either way.
    """
    text = "Once upon a time there was a little fox who"
    model = load(path, threads=1)
    ids = model.encode(text)
    peer = ask(path, ids, text, count)
    assert peer["tokens"] == ids
    executor = model.executor
    all_ids = np.array([*ids, *peer["ids"][:-1]], np.int32)
    rows = executor.step(executor.new_cache(256), all_ids, 0, "all")[len(ids) - 1 :]
    assert np.corrcoef(peer["logits"], rows[0])[0, 1] > 0.999
    chosen = rows[np.arange(count), np.array(peer["ids"], int)]
    assert (rows.max(axis=1) - chosen).max() <= margin


@needs_peer
@pytest.mark.parametrize(
    "kind",
    ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0"],
)
def test_llama_cpp_says_the_same(cli: Cli, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out.gguf"
    done = cli("convert", str(assets.storyteller()), out, "--type", kind)
    assert done.returncode == 0, done.stderr
    compare(out, 24, NEARLY if kind in ("F32", "F16", "BF16") else 0.25)


@needs_peer
@needs_shared(STORIES)
def test_llama_cpp_reads_what_was_llama2cs(cli: Cli, tmp_path: Path) -> None:
    folder, out = SHARED / STORIES, tmp_path / "out.gguf"
    source = folder / "stories260K.bin"
    done = cli("convert", source, out, "--tokenizer", folder / "tok512.bin")
    assert done.returncode == 0, done.stderr
    compare(out, 100, NEARLY)


@needs_peer
def test_llama_cpp_turns_the_same_elements(cli: Cli, tmp_path: Path) -> None:
    """A model with Hugging Face's rope: its rows go into another order."""
    from fireside.engine.convert import convert

    vocabulary = small_vocabulary(320)
    config = ModelConfig("llama", 128, 256, 2, 8, 4, len(vocabulary), 256, 16, rope_style="half")
    source = replace(random_checkpoint(config, 3), vocabulary=vocabulary)
    convert(source, tmp_path / "out.gguf")
    compare(tmp_path / "out.gguf", 24, NEARLY)
