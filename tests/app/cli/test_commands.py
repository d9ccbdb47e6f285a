"""The other commands: help, version, models, inspect, paths and completion."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fireside.app.cli.root import COMMANDS
from fireside.engine import QUANTS
from tests.command import Cli
from tests.model_files import llama2c, small_vocabulary, tokenizer_bin
from tests.models import SHAPES, random_checkpoint


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_teaches(cli: Cli, command: str) -> None:
    done = cli(*([command] if command else []), "--help")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert text.startswith(f"Usage: fireside {command}".rstrip())
    assert "Examples:\n  " in text
    assert max(map(len, text.splitlines())) <= 100


def test_write_help_has_sections_and_defaults(cli: Cli) -> None:
    text = cli("write", "--help").stdout.decode()
    sections = ["Model:", "Length:", "Sampling:", "Prompt and output:", "Other:", "Examples:"]
    assert [line for line in text.splitlines() if line in sections] == sections
    assert "[default: 0.7]" in text


def test_version_names_the_kernels(cli: Cli) -> None:
    lines = cli("--version").stdout.decode().splitlines()
    assert lines[0].startswith("fireside ")
    assert any(line.startswith("kernels: ") for line in lines)


def test_alone_without_a_terminal_points_to_write(cli: Cli) -> None:
    done = cli()
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"needs a terminal" in done.stderr
    assert b"fireside write" in done.stderr


@pytest.mark.parametrize(("word", "hint"), [("wirte", "did you mean write?"), ("Once", "write")])
def test_an_unknown_command_gets_a_hint(cli: Cli, word: str, hint: str) -> None:
    done = cli(word)
    assert done.returncode == 2
    assert hint in done.stderr.decode()


def test_options_before_the_command_count_too(cli: Cli) -> None:
    done = cli("--quant", "q8", "--threads", "1", "write", "--threads", "2", "--json", "-n", "1")
    values = json.loads(done.stdout)
    assert values["quant"] == "q8"
    assert values["threads"] == 2 or values["kernels"] == "numpy"


def test_flags_environment_file(cli: Cli) -> None:
    cli.config.write_text('quant = "q4"\nmax_tokens = 3\n[sampling]\nseed = 9\n', encoding="utf-8")
    done = cli("write", "--json", "-n", "2", env={"FIRESIDE_QUANT": "q8"})
    values = json.loads(done.stdout)
    assert (values["quant"], values["seed"], len(values["ids"])) == ("q8", 9, 2)
    cli.config.write_text("frob = 1\n", encoding="utf-8")
    done = cli("write")
    assert done.returncode == 2
    assert b"unknown setting 'frob'" in done.stderr
    assert b"known there: model, " in done.stderr


# -- models, inspect, paths ---------------------------------------------------------------------


def test_models_lists_folders_and_reasons(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF" + b"\xff" * 64)
    (tmp_path / "tiny.gguf").write_bytes(cli.model.read_bytes())
    done = cli("models", "--models-dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    rows = {line.split()[0]: line for line in done.stdout.decode().splitlines() if line.strip()}
    assert "cannot run:" in rows["broken"]
    assert "llama" in rows["tiny"]
    assert "storyteller" in rows
    entries = json.loads(cli("models", "--json", "--models-dir", tmp_path).stdout)
    tiny = next(e for e in entries if e["name"] == "tiny")
    assert tiny["memory"].keys() == set(QUANTS)
    assert cli("write", "-n", "1", "-m", "tiny", "--models-dir", tmp_path).returncode == 0


def test_inspect_tells_what_a_file_holds(cli: Cli) -> None:
    text = cli("inspect", cli.model).stdout.decode()
    for words in ("GGUF", "2 of width 64", "4 of width 16, 2 for keys", "320 tokens", "256 tokens"):
        assert words in text
    long = cli("inspect", cli.model, "--tensors", "--metadata").stdout.decode()
    assert "token_embd.weight" in long
    assert "general.name" in long
    facts = json.loads(cli("inspect", cli.model, "--json").stdout)
    assert facts["config"]["dim"] == 64
    assert facts["types"]["F32"]["tensors"] == len(facts["tensors"])
    assert facts["vocabulary"]["tokens"] == 320
    assert facts["missing"] == ""


def test_inspect_tells_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "bare.bin"
    path.write_bytes(llama2c(random_checkpoint(SHAPES["plain"], 1), 1))
    text = cli("inspect", path).stdout.decode()
    assert "Missing        a tokenizer: name its tokenizer.bin" in text
    (tmp_path / "tokenizer.bin").write_bytes(tokenizer_bin(small_vocabulary(300)))
    assert "has 300 tokens, the model 80" in cli("inspect", path).stdout.decode()


def test_inspect_of_what_is_no_model(cli: Cli) -> None:
    done = cli("inspect", __file__)
    assert done.returncode == 3
    assert b"not a model file" in done.stderr


def test_paths(cli: Cli) -> None:
    assert str(cli.config) in cli("paths").stdout.decode()
    values = json.loads(cli("paths", "--json").stdout)
    assert values["config"] == str(cli.config)
    assert values["stories"] == str(cli.home / "stories.db")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli: Cli, shell: str) -> None:
    done = cli("completion", shell)
    assert done.returncode == 0
    assert b"_FIRESIDE_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fireside wr", "plain,write"),
        ("fireside write --quant q", "plain,q8"),
        ("fireside write --model story", "plain,storyteller"),
        ("fireside inspect story", "plain,storyteller"),
        ("fireside write --rep", "plain,--repetition-penalty"),
    ],
)
def test_completion(cli: Cli, words: str, expected: str) -> None:
    number = str(len(words.split()) - 1)
    env = {"_FIRESIDE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": number}
    assert expected in cli(env=env).stdout.decode().splitlines()
