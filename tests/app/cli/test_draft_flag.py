"""`--speculation` and `--draft`: one story, told faster or slower; mistakes are one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fireside.engine import executors
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.config import ModelConfig
from tests.command import Cli
from tests.model_files import small_vocabulary
from tests.models import random_checkpoint

needs_native = pytest.mark.skipif(
    bool(executors.get("native").why_not()), reason="only the C kernels guess"
)


def small_model(path: Path, seed: int, vocabulary: int = 320) -> Path:
    words = small_vocabulary(vocabulary)
    config = ModelConfig("llama", 32, 64, 1, 2, 2, len(words), 128, 16)
    gguf_writer.write(path, config, random_checkpoint(config, seed).tensors, words, path.stem)
    return path


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    return small_model(tmp_path / "draft.gguf", 5)


def written(cli: Cli, *arguments: str | Path) -> dict[str, object]:
    done = cli("write", "--json", "--seed", "3", "-n", "120", *arguments, "once upon a time")
    assert done.returncode == 0, done.stderr
    values: dict[str, object] = json.loads(done.stdout)
    return values


@needs_native
def test_one_story_however_it_is_guessed(cli: Cli, draft: Path, tiny_model: Path) -> None:
    plain = written(cli, "--speculation", "off")
    timings = plain["timings"]
    assert isinstance(timings, dict)
    assert (timings["guessed_tokens"], timings["accepted_tokens"]) == (0, 0)
    for arguments in (
        [],
        ["--draft", draft],
        ["--draft", tiny_model, "--speculation", "draft"],
        ["--draft", tiny_model, "-t", "0.8"],
    ):
        assert written(cli, *arguments)["ids"] == plain["ids"]
    itself = written(cli, "--draft", tiny_model, "--speculation", "draft")["timings"]
    assert isinstance(itself, dict)
    assert itself["accepted_tokens"] > 0


@needs_native
def test_statistics_tell_of_guesses(cli: Cli, tiny_model: Path) -> None:
    done = cli("write", "--stats", "-n", "80", "--draft", tiny_model, "--speculation", "draft")
    assert b"guessed ahead " in done.stderr
    off = cli("write", "--stats", "-n", "80", "--speculation", "off", "hello")
    assert off.returncode == 0
    assert b"guessed" not in off.stderr


@needs_native
def test_a_draft_helps_a_conversation_too(cli: Cli, draft: Path) -> None:
    asked = b"hello\nand then?\n"
    plain = cli("chat", "--seed", "1", "-n", "20", "--speculation", "off", stdin=asked)
    drafted = cli("chat", "--seed", "1", "-n", "20", "--draft", draft, stdin=asked)
    assert plain.returncode == drafted.returncode == 0
    assert plain.stdout == drafted.stdout != b""


@needs_native
def test_a_draft_with_other_tokens_is_one_clear_line(cli: Cli, tmp_path: Path) -> None:
    other = small_model(tmp_path / "other.gguf", 5, 330)
    done = cli("write", "-n", "5", "--draft", other, "x")
    assert done.returncode == 3
    assert done.stderr.count(b"\n") == 1
    assert b"other cannot guess for tiny: it has 330 tokens, the model 320" in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--draft", "nowhere.gguf"], 3, b"no model called 'nowhere.gguf'"),
        (["--speculation", "draft"], 1, b"--speculation draft needs a draft"),
        (["--speculation", "sometimes"], 2, b"'sometimes' is not one of"),
    ],
)
def test_mistakes(cli: Cli, arguments: list[str], code: int, line: bytes) -> None:
    done = cli("write", "-n", "5", "--kernels", "auto", *arguments, "x")
    if arguments[0] == "--draft" and executors.get("native").why_not():
        pytest.skip("only the C kernels guess")
    assert done.returncode == code
    assert line in done.stderr
    assert b"Traceback" not in done.stderr


def test_numpy_says_that_it_does_not_guess(cli: Cli, draft: Path) -> None:
    done = cli("write", "-n", "5", "--kernels", "numpy", "--draft", draft, "x")
    assert done.returncode == 0
    assert b"the draft is not used" in done.stderr
