"""`fireside perplexity` as a process."""

from __future__ import annotations

import json
import lzma
import os
import pty
import signal
import subprocess
import time
from pathlib import Path

import pytest

from fireside import assets
from tests.command import COMMAND, Cli
from tests.shared import SHARED, needs_shared

VALID = "corpus/tinystories-valid.jsonl.xz"


def write_stories(path: Path, texts: list[str]) -> Path:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    data = lines.encode()
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


def test_table_on_stdout(cli: Cli, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("once upon a time there was a time\n" * 30)
    done = cli("perplexity", text, "--context", "64")
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    head, row, _, how = done.stdout.decode().splitlines()
    assert head.split() == ["MODEL", "PERPLEXITY", "+-", "BITS/CHAR", "BITS/BYTE", "MEMORY"]
    assert row.startswith("tiny ")
    assert "windows of 64" in how


def test_stories_by_content_packed_or_piped(cli: Cli, tmp_path: Path) -> None:
    texts = ["once upon a time", "a time é 猫"]
    plain = write_stories(tmp_path / "stories.jsonl", texts)
    packed = write_stories(tmp_path / "stories.xz", texts)
    facts = [json.loads(cli("perplexity", file, "--json").stdout) for file in (plain, packed)]
    piped = cli("perplexity", "-", "--json", stdin=plain.read_bytes())
    facts.append(json.loads(piped.stdout))
    for each in facts:
        del each["seconds"]
    assert facts[0] == facts[1] == facts[2]
    assert facts[0]["characters"] == sum(map(len, texts))
    assert facts[0]["bytes"] == sum(len(text.encode()) for text in texts)
    as_text = json.loads(cli("perplexity", plain, "--json", "--format", "text").stdout)
    assert as_text["characters"] == len(plain.read_text())


def test_compare(cli: Cli, tmp_path: Path) -> None:
    stories = write_stories(tmp_path / "stories.jsonl", ["once upon a time " * 5] * 4)
    done = cli("perplexity", stories, "--compare", f"none,q8,q4,{cli.model}:q4", "--json")
    assert done.returncode == 0, done.stderr
    exact, q8, q4, file_q4 = json.loads(done.stdout)["models"]
    assert (exact["kl_divergence"], exact["top_1_agreement"]) == (0, 1)
    assert 0 < q8["kl_divergence"] < q4["kl_divergence"]
    assert exact["bytes"] > q8["bytes"] > q4["bytes"]
    assert {k: v for k, v in q4.items() if k != "name"} == {
        k: v for k, v in file_q4.items() if k != "name"
    }
    alone = cli("perplexity", stories, "--quant", "q4", "--json")
    assert json.loads(alone.stdout)["models"][0]["perplexity"] == q4["perplexity"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.txt"], 2, "cannot be read: No such file"),
        (["{text}", "--compare", "q8"], 2, "two or more"),
        (["{text}", "--compare", "none,storyteller"], 1, "other tokens"),
        (["{text}", "--compare", "none,missing"], 3, "no model called 'missing'"),
        (["{text}", "--context", "100000"], 2, "trained on 256 tokens"),
        (["{text}", "--context", "16", "--stride", "17"], 2, "left out"),
        (["{text}", "--stride", "4", "--second-half"], 2, "not both"),
        (["{text}", "--format", "stories"], 2, "line 1 is no JSON object"),
        (["{bytes}"], 2, "not valid UTF-8 at byte 1"),
        (["{xz}"], 2, "cannot be unpacked"),
        (["{empty}"], 1, "no token to count"),
    ],
)
def test_faults_are_one_line(
    cli: Cli, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    files = {
        "text": b"once upon a time",
        "bytes": b"a\xff",
        "xz": b"\xfd7zXZ\0 and no more",
        "empty": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    paths = {name: str(tmp_path / name) for name in files}
    done = cli("perplexity", *(a.format(**paths) for a in arguments))
    assert done.returncode == code, done.stderr
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("fireside: error: ")
    assert words in line


def test_a_signal_ends_it_with_what_is_known(cli: Cli, tmp_path: Path) -> None:
    stories = write_stories(tmp_path / "stories.jsonl", ["once upon a time " * 14] * 30000)
    master, slave = pty.openpty()
    process = subprocess.Popen(  # progress goes to terminals only
        [*COMMAND, "perplexity", str(stories)],
        stdout=subprocess.PIPE,
        stderr=slave,
        env=cli.env(),
    )
    os.close(slave)
    seen = b""
    while b" of " not in seen:
        seen += os.read(master, 4096)
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.stdout is not None
    assert process.stdout.read() == b""
    assert process.wait(60) == 143
    assert time.monotonic() - started < 30
    while b"given up after" not in seen:
        seen += os.read(master, 4096)
    os.close(master)


@needs_shared(VALID)
def test_the_storytellers_figure(cli: Cli) -> None:
    """The figure of its card, which assets/storyteller/evaluate.py measures."""
    model = str(assets.storyteller())
    done = cli("perplexity", SHARED / VALID, "--model", model, "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["models"]
    assert row["bits_per_character"] == pytest.approx(0.6695, abs=0.001)
