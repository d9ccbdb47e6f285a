"""safetensors and the folders they lie in: read as they are, refused in one line where damaged."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fireside.engine import load
from fireside.engine.checkpoints import open_checkpoint
from fireside.engine.errors import CheckpointError, UnsupportedError
from tests.hf_files import llama_config, llama_folder, llama_tensors, safetensors
from tests.model_files import sentencepiece_model, small_vocabulary
from tests.models import SHAPES, random_checkpoint

CONFIG = replace(SHAPES["odd"], rope_style="half", norm_eps=1e-6, vocab_size=9, n_layers=1)
MODEL = random_checkpoint(CONFIG, 1, "BF16")
UNTIED = random_checkpoint(replace(SHAPES["grouped"], rope_style="half"), 2, "F16", tied=False)


def check_same(path: Path, model: Any) -> None:
    found = open_checkpoint(path)
    assert found.config == model.config
    assert found.tied is model.tied
    assert found.tensors.keys() == model.tensors.keys()
    for name, tensor in model.tensors.items():
        assert found.tensors[name].block == tensor.block
        np.testing.assert_array_equal(found.tensors[name].data, tensor.data)


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("model", [MODEL, UNTIED], ids=["bf16", "f16 untied"])
def test_folders(tmp_path: Path, model: Any, files: int) -> None:
    folder = llama_folder(tmp_path / "model", model, files)
    check_same(folder, model)
    for file in folder.iterdir():
        check_same(file, model)


def test_one_file_of_any_name(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "model", MODEL)
    (folder / "model.safetensors").rename(folder / "finetune.safetensors")
    check_same(folder / "finetune.safetensors", MODEL)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_checkpoint(folder / "finetune.safetensors")


def test_a_folder_tells_a_story(tmp_path: Path) -> None:
    """Its tokenizer is found, and what ends a text."""
    vocabulary = small_vocabulary()
    config = replace(CONFIG, vocab_size=len(vocabulary), dim=32, n_heads=2, n_kv_heads=2)
    model = random_checkpoint(replace(config, head_dim=16), 3)
    folder = llama_folder(tmp_path / "model", model)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(vocabulary))
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 5], "top_p": 0.9}')
    loaded = load(folder, kernels="numpy")
    assert {2, 5} <= loaded.end_ids
    assert loaded.checkpoint.metadata["generation.top_p"] == 0.9
    (folder / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    (folder / "tokenizer.model").unlink()
    assert open_checkpoint(folder).vocabulary is None
    with pytest.raises(UnsupportedError, match="WordPiece"):
        load(folder, kernels="numpy")


# -- headers

Entry = dict[str, Any]
NORM = "model.norm.weight"


def edit(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The model's file with its header changed."""
    data, start = safetensors(llama_tensors(MODEL))
    header = json.loads(data[8:start])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[start:]


def moved(by: int) -> Callable[[dict[str, Any]], object]:
    """The second tensor lies elsewhere."""

    def change(header: dict[str, Any]) -> None:
        entry = list(header.values())[2]
        entry["data_offsets"] = [place + by for place in entry["data_offsets"]]

    return change


HEADERS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an overlap": (moved(-4), "overlap"),
    "a gap": (moved(4), "gap|overlap"),
    "a missing end": (lambda h: h.pop(next(iter(reversed(h)))), "by the header"),
    "a shape": (lambda h: h[NORM].update(shape=[7]), "not its shape"),
    "a dtype": (lambda h: h[NORM].update(dtype="F4"), "of type"),
    "no dtype": (lambda h: h[NORM].pop("dtype"), "described"),
    "more keys": (lambda h: h[NORM].update(more=1), "described"),
    "a negative offset": (lambda h: h[NORM].update(data_offsets=[-4, 140]), "described"),
    "a huge shape": (lambda h: h[NORM].update(shape=[2**62, 2**62]), "not its shape"),
    "a shape of truths": (lambda h: h[NORM].update(shape=[True]), "described"),
    "a shape of fractions": (lambda h: h[NORM].update(shape=[36.0]), "described"),
    "metadata of numbers": (lambda h: h["__metadata__"].update(a=1), "__metadata__"),
    "metadata that is a list": (lambda h: h.update(__metadata__=[]), "__metadata__"),
    "a tensor that is a number": (lambda h: h.update({NORM: 5}), "described"),
    "a strange name": (lambda h: h.update({"\x1b[2J": h.pop(NORM)}), "no part"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(tmp_path: Path, name: str) -> None:
    change, message = HEADERS[name]
    folder = llama_folder(tmp_path / "model", MODEL)
    (folder / "model.safetensors").write_bytes(edit(change))
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert str(caught.value).isprintable()


def test_more_tensors_than_the_architecture_has(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "model", MODEL)
    tensors = llama_tensors(MODEL)
    tensors["model.layers.0.self_attn.lora"] = tensors[NORM]
    (folder / "model.safetensors").write_bytes(safetensors(tensors)[0])
    with pytest.raises(UnsupportedError, match=r"self_attn\.lora is no part of llama"):
        open_checkpoint(folder)


def test_a_missing_classifier_is_noticed(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "model", MODEL)
    config = llama_config(MODEL) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "object is expected"),
        ('{"a": NaN', "not sound JSON"),
        ('{"a": ' + "9" * 10_000 + "}", "not sound JSON"),
        ("\udcff", "not sound JSON"),
        ("", "empty|not sound"),
    ],
)
def test_json_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    folder = llama_folder(tmp_path / "model", MODEL)
    for file in ("config.json", "model.safetensors.index.json"):
        before = (folder / file).read_bytes() if (folder / file).exists() else None
        (folder / file).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(folder)
        if before is not None:
            (folder / file).write_bytes(before)
    raw = text.encode("utf-8", "surrogateescape")
    path = folder / "other.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw)
    with pytest.raises(CheckpointError):
        open_checkpoint(path)


def test_an_index_that_leads_elsewhere(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "model", MODEL, 2)
    index = folder / "model.safetensors.index.json"
    for name in ("../secret", "/etc/passwd", "", ".", "..", "a\\b", "a\0b", 5, "absent"):
        index.write_text(json.dumps({"weight_map": {NORM: name}}))
        with pytest.raises(CheckpointError, match=r"called|missing"):
            open_checkpoint(folder)
    for table in ({}, [], None, {f"t{i}": f"f{i}" for i in range(5000)}):
        index.write_text(json.dumps({"weight_map": table}))
        with pytest.raises(CheckpointError):
            open_checkpoint(folder)


def test_config_json_of_any_value(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "model", MODEL)
    good = llama_config(MODEL)
    weird = (0, -1, 2**31, 2**70, 1.5, 1e308, "x", "", [], {}, [1], {"a": 1}, True, False, None)
    keys = (*good, "rope_parameters", "layer_types", "attention_bias", "partial_rotary_factor")
    for key in keys:
        for value in weird:
            (folder / "config.json").write_text(json.dumps({**good, key: value}))
            try:
                open_checkpoint(folder)
            except CheckpointError as refusal:
                error = str(refusal)
            else:
                error = str(folder)
            assert str(folder) in error
            assert error.isprintable()
    for kind in ("default", "linear", "llama3", "yarn", "longrope", "dynamic", 5):
        for factor in (0, 1, 2.0, -1, 1e9, "x", None):
            for original in (None, 0, 1, 64, 2**40, -5):
                scaling = {"rope_type": kind, "factor": factor, "short_factor": [1.0] * 3}
                scaling |= {"original_max_position_embeddings": original}
                scaling |= {"low_freq_factor": factor, "high_freq_factor": 4.0}
                (folder / "config.json").write_text(json.dumps({**good, "rope_scaling": scaling}))
                with suppress(CheckpointError):
                    open_checkpoint(folder)


def test_a_large_header_costs_little(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "model", MODEL)
    path = folder / "model.safetensors"
    for text in (b"{" + b" " * 2_000_000, b'{"a":' + b"[" * 2_000_000, b'{"a":' + b"[0," * 500_000):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        tracemalloc.start()
        start = time.perf_counter()
        with pytest.raises(CheckpointError):
            open_checkpoint(folder)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
        tracemalloc.stop()
        assert time.perf_counter() - start < 3
