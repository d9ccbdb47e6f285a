"""Byte-level BPE vocabularies in files, and models that have one."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import Finished, Sampling, Token, load
from fireside.engine.checkpoints import gguf_pretokenizers as pre
from fireside.engine.checkpoints import gguf_writer
from fireside.engine.checkpoints.bpe import Bpe, Bytes, Split
from fireside.engine.checkpoints.gguf_pretokenizers import RECIPES
from fireside.engine.checkpoints.types import CONTROL, NORMAL, USER_DEFINED, Vocabulary
from fireside.engine.errors import CheckpointError, FiresideError, UnsupportedError
from fireside.engine.tokenizers import from_vocabulary, read_vocabulary
from fireside.engine.tokenizers.bpe import BpeTokenizer
from tests.bpe import trained, vocabulary_of
from tests.models import SHAPES, random_checkpoint


def written(path: Path, vocabulary: Vocabulary, **changes: object) -> Path:
    """A GGUF file with this vocabulary and no weights; `changes` by the last part of the key."""
    metadata = gguf_writer.describe_vocabulary(vocabulary)
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    kept = {key: value for key, value in metadata.items() if value is not None}
    path.write_bytes(b"".join(gguf_writer.encode_header(kept, [])))
    return path


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_vocabulary_comes_back_from_gguf(tmp_path: Path, name: str) -> None:
    recipe = RECIPES[name]
    base = vocabulary_of(trained(pre.GPT2))
    assert base.bpe is not None
    bpe = Bpe(base.bpe.merges, (), recipe.steps, ignore_merges=recipe.ignore_merges)
    template = "{{ bos_token }}"
    vocabulary = replace(base, bpe=bpe, end_ids=(2,), chat_template=template)
    back = read_vocabulary(written(tmp_path / "v.gguf", vocabulary))
    assert back.bpe is not None
    assert list(back.bpe.merges or ()) == list(base.bpe.merges or ())
    assert back.bpe.pre_tokenizers == recipe.steps
    assert back.pieces == vocabulary.pieces
    assert np.array_equal(back.types, vocabulary.types)
    for field in ("bos_id", "eos_id", "unk_id", "add_bos", "end_ids", "chat_template", "kind"):
        assert getattr(back, field) == getattr(vocabulary, field), field
    text = "It's 12345 o'clock.\n\n  Été 猫です"
    assert from_vocabulary(back).encode(text) == BpeTokenizer(vocabulary).encode(text)
    assert from_vocabulary(back).decode(from_vocabulary(back).encode(text)) == text


def test_what_gguf_cannot_name_is_not_written() -> None:
    vocabulary = vocabulary_of(trained(pre.GPT2), bpe=Bpe([], (), (Split("x"), Bytes())))
    with pytest.raises(UnsupportedError, match="no name"):
        gguf_writer.describe_vocabulary(vocabulary)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "frobnicate"}, "tokenizer.ggml.pre is 'frobnicate'"),
        ({"pre": 3}, "tokenizer.ggml.pre is 3, expected a text"),
        ({"merges": None}, "merges is missing"),
        ({"merges": "a b"}, "merges is 'a b', expected an array of texts"),
        ({"tokens": None}, "tokens is missing"),
        ({"model": "bert"}, "this version reads 'llama' \\(SPM\\) and 'gpt2' \\(BPE\\)"),
        ({"bos_token_id": 1 << 20}, "bos_token_id is 1048576"),
    ],
    ids=str,
)
def test_damaged_vocabularies_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = written(tmp_path / "v.gguf", vocabulary_of(trained(pre.GPT2)), **changes)
    with pytest.raises(CheckpointError, match=message):
        read_vocabulary(path)


def test_what_ends_a_text_is_no_text(tmp_path: Path) -> None:
    """Some converters give such pieces the wrong type."""
    vocabulary = vocabulary_of(trained(pre.GPT2))
    assert vocabulary.pieces[1] == "<|end|>"
    types = vocabulary.types.copy()
    types[1] = USER_DEFINED
    back = read_vocabulary(written(tmp_path / "v.gguf", replace(vocabulary, types=types)))
    assert back.types[1] == CONTROL
    assert 1 not in from_vocabulary(back).encode("<|end|>")


def test_bos_is_added_as_the_file_or_its_recipe_says(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(trained(pre.GPT2))
    path = tmp_path / "v.gguf"

    def add_bos(**changes: object) -> bool:
        return read_vocabulary(written(path, vocabulary, **changes)).add_bos

    assert not add_bos()
    assert add_bos(add_bos_token=True)
    assert add_bos(pre="llama-bpe", add_bos_token=None)
    assert not add_bos(pre="llama-bpe", add_bos_token=False)
    assert not add_bos(pre="qwen2", add_bos_token=None)
    assert not add_bos(add_bos_token=True, bos_token_id=0xFFFFFFFF)


def test_a_large_vocabulary_is_read_and_used_soon(tmp_path: Path) -> None:
    """As large as Llama 3's: 128,000 pieces, 280,000 merges."""
    rng = random.Random(3)
    base = vocabulary_of(trained(pre.GPT2))
    made = {"".join(rng.choices("abcdefghijklmnop", k=8)) for _ in range(130_000)}
    pieces = (*base.pieces, *sorted(made - set(base.pieces)))[:128_000]
    merges = [f"{p[:4]} {p[4:]}" for p in pieces] + [f"{p[:3]} {p[3:]}" for p in pieces]
    vocabulary = replace(
        base,
        pieces=pieces,
        types=np.where(np.arange(len(pieces)) < 3, CONTROL, NORMAL).astype(np.int32),
        bpe=Bpe((merges * 2)[:280_000], (), RECIPES["llama-bpe"].steps, ignore_merges=True),
    )
    path = written(tmp_path / "v.gguf", vocabulary)
    best = min(_seconds(path) for _ in range(3))
    assert best < 2  # half a second on a quiet machine


def _seconds(path: Path) -> float:
    start = time.process_time()
    from_vocabulary(read_vocabulary(path)).encode("once upon a time")
    return time.process_time() - start


def test_a_model_with_a_byte_level_vocabulary_tells_a_story(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(trained(pre.GPT2))
    config = replace(SHAPES["plain"], vocab_size=len(vocabulary))
    checkpoint = random_checkpoint(config, 3)
    path = tmp_path / "model.gguf"
    gguf_writer.write(path, config, checkpoint.tensors, vocabulary)
    model = load(path, kernels="numpy")
    assert model.end_ids == {0, 1}
    events = list(model.session().generate("the cat", Sampling(seed=1), max_tokens=30))
    end = events[-1]
    assert isinstance(end, Finished)
    assert len(end.ids) > 3
    told = "".join(event.text for event in events if isinstance(event, Token | Finished))
    assert told == model.tokenizer.decode(end.ids)
    assert model.encode("") == [0]


def test_an_empty_text_needs_a_token_that_begins_one(tmp_path: Path) -> None:
    vocabulary = vocabulary_of(trained(pre.GPT2), bos_id=-1)
    config = replace(SHAPES["plain"], vocab_size=len(vocabulary))
    path = tmp_path / "model.gguf"
    tensors = random_checkpoint(config, 3).tensors
    gguf_writer.write(path, config, tensors, vocabulary)
    assert load(path, kernels="numpy").encode("") == [1]  # the end of the text before it
    gguf_writer.write(path, config, tensors, replace(vocabulary, eos_id=-1))
    model = load(path, kernels="numpy")
    assert model.end_ids == {1}  # known by its text
    with pytest.raises(FiresideError, match="no token for the beginning"):
        model.encode("")


def test_a_vocabulary_in_a_cycle_is_let_go(tmp_path: Path) -> None:
    """Python 3.11 dies where a memoryview whose buffer is in use is part of the garbage."""
    path = written(tmp_path / "v.gguf", vocabulary_of(trained(pre.GPT2)))
    program = (
        "import gc, sys\nfrom pathlib import Path\nfrom types import SimpleNamespace\n"
        "from fireside.engine.tokenizers import from_vocabulary, read_vocabulary\n"
        "for _ in range(20):\n"
        "    vocabulary = read_vocabulary(Path(sys.argv[1]))\n"
        "    cycle = SimpleNamespace(tokenizer=from_vocabulary(vocabulary))\n    del vocabulary\n"
        "    cycle.tokenizer.encode('once upon a time')\n"
        "    cycle.itself = cycle\n    del cycle\n    gc.collect()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
