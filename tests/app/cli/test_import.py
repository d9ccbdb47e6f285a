"""`fireside import` as a process."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests import model_files, torch_files
from tests.command import Cli
from tests.model_files import small_vocabulary
from tests.models import SHAPES, random_checkpoint


def models(cli: Cli) -> Path:
    return cli.home / "models"


def names(cli: Cli) -> list[str]:
    return [entry["name"] for entry in json.loads(cli("models", "--json").stdout)]


@pytest.mark.parametrize("how", ["", "--copy", "--link"])
def test_a_file(cli: Cli, how: str) -> None:
    done = cli("import", cli.model, *([how] if how else []), "--name", "mine.gguf")
    assert done.returncode == 0, done.stderr
    path = models(cli) / "mine.gguf"
    assert done.stdout.decode() == f"{path}\n"
    assert path.read_bytes() == cli.model.read_bytes()
    assert path.is_symlink() == (how == "--link")
    assert path.samefile(cli.model) == (how != "--copy")
    assert "mine" in names(cli)
    assert [p.name for p in models(cli).iterdir()] == ["mine.gguf"]


def test_a_tokenizer_goes_along(cli: Cli, tmp_path: Path) -> None:
    vocabulary = small_vocabulary(300)
    config = replace(SHAPES["plain"], vocab_size=len(vocabulary))
    source = tmp_path / "from"
    source.mkdir()
    (source / "s.bin").write_bytes(model_files.llama2c(random_checkpoint(config, 1), 1))
    refused = cli("import", source / "s.bin")
    assert refused.returncode == 3
    assert b"carries no tokenizer" in refused.stderr
    assert not models(cli).exists()
    (source / "tokenizer.bin").write_bytes(model_files.tokenizer_bin(vocabulary))
    done = cli("import", source / "s.bin")
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (models(cli) / "s").iterdir()) == ["s.bin", "tokenizer.bin"]
    assert "s" in names(cli)
    assert cli("write", "once", "-n", "3", "--model", "s").returncode == 0


def test_nothing_is_replaced_without_force(cli: Cli, tmp_path: Path) -> None:
    assert cli("import", cli.model).returncode == 0
    again = cli("import", cli.model)
    assert again.returncode == 0
    assert b"is there already" in again.stderr
    other = tmp_path / "tiny.gguf"
    other.write_bytes(cli.model.read_bytes() + bytes(32))
    refused = cli("import", other)
    assert refused.returncode == 1
    assert b"is there already" in refused.stderr
    assert cli("import", other, "--force").returncode == 0
    assert (models(cli) / "tiny.gguf").samefile(other)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [(b"no model at all", 3, "not a model file"), (None, 3, "no such file")],
)
def test_what_cannot_run_stays_out(
    cli: Cli, tmp_path: Path, content: bytes | None, code: int, words: str
) -> None:
    if content is not None:
        (tmp_path / "x.gguf").write_bytes(content)
    done = cli("import", tmp_path / "x.gguf")
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert not models(cli).exists()
    bad = cli("import", cli.model, "--name", "../x")
    assert bad.returncode == 2
    assert not (cli.home / "x").exists()


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no symbolic links here")
@pytest.mark.parametrize("how", ["", "--copy", "--link"])
def test_a_folder(cli: Cli, tmp_path: Path, how: str) -> None:
    vocabulary = small_vocabulary(300)
    config = replace(SHAPES["plain"], vocab_size=len(vocabulary), hidden_dim=192)
    folder = tmp_path / "Some-1.5"
    folder.mkdir()
    checkpoint = random_checkpoint(config, 1, tied=False)
    (folder / "consolidated.00.pth").write_bytes(
        torch_files.save(torch_files.meta_state(checkpoint))
    )
    parameters = {
        "dim": config.dim, "n_layers": config.n_layers, "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads, "vocab_size": config.vocab_size,
        "multiple_of": 64, "norm_eps": 1e-5,
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(parameters))
    (folder / "tokenizer.model").write_bytes(model_files.sentencepiece_model(vocabulary))
    done = cli("import", folder, *([how] if how else []))
    assert done.returncode == 0, done.stderr
    target = models(cli) / "Some-1.5"
    assert target.is_symlink() == (how == "--link")
    assert "Some-1.5" in names(cli)
    assert cli("write", "once", "-n", "3", "--model", "Some-1.5").returncode == 0
