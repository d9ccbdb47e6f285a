"""The catalogue of models: what is found, how it is named, what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fireside import assets
from fireside.app import catalogue
from fireside.app.paths import Paths
from fireside.app.settings import Settings
from fireside.engine import CheckpointError
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.config import ModelConfig
from tests.hf_files import llama_folder
from tests.model_files import llama2c, small_vocabulary, tokenizer_bin
from tests.models import random_checkpoint

CONFIG = ModelConfig("llama", 64, 96, 2, 4, 2, 300, 256, 16)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "config.toml", tmp_path / "data", tmp_path)


@pytest.fixture
def folder(paths: Paths) -> Path:
    """The user's own models folder with a GGUF, a llama2.c file and its tokenizer, and rubbish."""
    folder = paths.models_dir
    (folder / "karpathy").mkdir(parents=True)
    vocabulary = small_vocabulary(CONFIG.vocab_size)
    checkpoint = random_checkpoint(CONFIG, seed=1)
    gguf_writer.write(folder / "tiny.gguf", CONFIG, checkpoint.tensors, vocabulary, "Tiny", "Q8_0")
    (folder / "karpathy" / "old.bin").write_bytes(llama2c(checkpoint, 1))
    (folder / "karpathy" / "tokenizer.bin").write_bytes(tokenizer_bin(vocabulary))
    (folder / "lonely.bin").write_bytes(llama2c(checkpoint, 0))
    (folder / "damaged.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    (folder / "notes.txt").write_text("none of your business", encoding="utf-8")
    (folder / ".hidden.gguf").write_bytes(b"GGUF")
    (folder / "large-00002-of-00002.gguf").write_bytes(b"GGUF")  # opened by the first part
    return folder


def test_what_is_found(folder: Path, paths: Paths) -> None:
    entries = {entry.name: entry for entry in catalogue.find_models(Settings(), paths)}
    assert list(entries) == ["storyteller", "damaged", "lonely", "old", "tiny"]
    tiny = entries["tiny"]
    assert (tiny.title, tiny.architecture, tiny.context, tiny.problem) == ("Tiny", "llama", 256, "")
    assert tiny.source == "local"
    assert next(iter(tiny.blocks)) == "Q8_0"
    assert tiny.file_bytes == (folder / "tiny.gguf").stat().st_size
    assert tiny.memory["q4"] < tiny.memory["q8"] == tiny.memory["none"] < 4 * tiny.parameters
    assert entries["old"].problem == ""
    assert entries["lonely"].problem == "carries no tokenizer"
    assert entries["lonely"].parameters == tiny.parameters
    assert entries["damaged"].problem
    assert str(folder) not in entries["damaged"].problem


def test_folders_of_hugging_face_are_one_model(folder: Path, paths: Paths) -> None:
    model = random_checkpoint(replace(CONFIG, rope_style="half"), seed=1)
    where = llama_folder(folder / "Llama-3.2-tiny", model, files=2)
    entries = {entry.name: entry for entry in catalogue.find_models(Settings(), paths)}
    assert list(entries) == ["storyteller", "damaged", "Llama-3.2-tiny", "lonely", "old", "tiny"]
    found = entries["Llama-3.2-tiny"]
    assert found.problem == "carries no tokenizer"
    assert found.format == "Hugging Face (safetensors, 2 files)"
    assert 0 < found.memory["none"] < found.file_bytes + 30 * 4096  # matrices begin on pages
    assert catalogue.resolve("Llama-3.2-tiny", Settings(), paths) == where
    (where / "config.json").write_text("{}")
    entries = {entry.name: entry for entry in catalogue.find_models(Settings(), paths)}
    assert "model_type" in entries["Llama-3.2-tiny"].problem


def test_a_file_in_two_folders_is_listed_once(folder: Path, paths: Paths) -> None:
    names = [f.name for f in catalogue.model_files(Settings(models_dir=str(folder)), paths)]
    assert names.count("tiny") == 1


def test_names_tell_files_of_one_stem_apart(folder: Path, paths: Paths, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tiny.bin").write_bytes(b"x")
    (other / "old.bin").write_bytes(b"x")
    (other / "storyteller.gguf").write_bytes(b"x")
    found = catalogue.model_files(Settings(models_dir=str(other)), paths)
    names = [file.name for file in found]
    assert len(set(names)) == len(names)
    assert {"tiny.bin", "tiny.gguf", "storyteller", "storyteller.gguf"} <= set(names)
    for file in found:
        if file.source == "local":
            assert catalogue.resolve(file.name, Settings(models_dir=str(other)), paths) == file.path


def test_resolve_takes_names_and_paths(folder: Path, paths: Paths) -> None:
    tiny = folder / "tiny.gguf"
    assert catalogue.resolve("tiny", Settings(), paths) == tiny
    assert catalogue.resolve("tiny.gguf", Settings(), paths) == tiny
    assert catalogue.resolve(tiny, Settings(), paths) == tiny
    if assets.storyteller().exists():
        assert catalogue.resolve("storyteller", Settings(), paths) == assets.storyteller()


def test_resolve_names_the_closest(folder: Path, paths: Paths) -> None:
    with pytest.raises(CheckpointError, match=r"no model called 'tinny'.*there is tiny"):
        catalogue.resolve("tinny", Settings(), paths)


@pytest.mark.parametrize(
    ("origin", "remedy"),
    [
        ("--model", "name another, or leave the flag out"),
        ("FIRESIDE_MODEL", "give another with --model, or unset FIRESIDE_MODEL"),
        ("/home/ann/config.toml", "give another with --model, or take its line out of that file"),
    ],
)
@pytest.mark.parametrize("model", ["gone", "/nowhere/gone.gguf"])
def test_a_missing_model_is_told_with_who_set_it(
    paths: Paths, origin: str, remedy: str, model: str
) -> None:
    with pytest.raises(CheckpointError) as error:
        catalogue.chosen(Settings(model=model, origins={"model": origin}), paths)
    assert f"the model was set by {origin}" in error.value.message
    assert model in error.value.message
    assert remedy in error.value.hint


def test_a_missing_embedded_model_is_told(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "storyteller", lambda: Path("/nowhere.gguf"))
    (entry,) = catalogue.find_models(Settings(), paths)
    assert entry.problem == "it is missing from this installation"
    with pytest.raises(CheckpointError, match="missing from this installation"):
        catalogue.resolve("storyteller", Settings(), paths)


def test_a_folder_that_is_not_there_is_no_mistake(paths: Paths) -> None:
    files = catalogue.model_files(Settings(models_dir="/nowhere/at/all"), paths)
    assert [file.name for file in files] == ["storyteller"]
