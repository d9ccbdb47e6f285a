"""Perplexity, held against the reference's formulas on the whole window at once."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fireside.engine import FiresideError, Model, architectures, executors, perplexity, reference
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.perplexity import Cut, Text
from fireside.engine.tokenizers import from_vocabulary
from tests.model_files import small_vocabulary
from tests.models import SHAPES, random_checkpoint

VOCABULARY = small_vocabulary(300)
STORY = "once upon a time there was a time " * 4


def checkpoint(seed: int = 5) -> Checkpoint:
    config = replace(SHAPES["plain"], vocab_size=len(VOCABULARY))
    return replace(random_checkpoint(config, seed), vocabulary=VOCABULARY)


def model(seed: int = 5, kernels: str = "auto", bos: bool = True, quant: str = "none") -> Model:
    opened = checkpoint(seed)
    plan = architectures.get("llama").plan(opened.config, opened.tied)
    executor = executors.choose(kernels).build(plan, opened, quant, 1, None, "f32")  # type: ignore[arg-type]
    tokenizer = from_vocabulary(replace(VOCABULARY, add_bos=bos))
    return Model(opened, tokenizer, executor, quant)  # type: ignore[arg-type]


def oracle(seed: int, inputs: list[int]) -> np.ndarray:
    """Log probabilities [n, vocabulary] after each of `inputs`, by the reference."""
    opened = checkpoint(seed)
    weights = {name: tensor.to_float32() for name, tensor in opened.tensors.items()}
    logits = reference.forward(opened.config, weights, inputs).astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("kernels", ["auto", "numpy"])
def test_losses_are_the_references(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "STEP", 7)  # steps within a window
    monkeypatch.setattr(perplexity, "SLICE", 900)  # three rows of logits at once
    it = model(kernels=kernels)
    text = perplexity.encode(it.tokenizer, STORY, end=True)
    assert text.ids[-1] == VOCABULARY.eos_id
    found = perplexity.measure([it], [text], Cut(20))
    losses = []
    for start in range(0, len(text.ids), 20):
        targets = list(text.ids[start : start + 20])
        rows = oracle(5, [VOCABULARY.bos_id, *targets[:-1]])
        losses += [-rows[i, target] for i, target in enumerate(targets)]
    mean = sum(losses) / len(losses)
    spread = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / len(losses))
    assert found.losses[0].tokens == len(text.ids)
    assert found.losses[0].mean == pytest.approx(mean, abs=1e-5)
    error = math.exp(mean) * spread / math.sqrt(len(losses) - 1)
    assert found.losses[0].error == pytest.approx(error, rel=1e-3)
    assert found.bits_per_character(0) == pytest.approx(sum(losses) / math.log(2) / len(STORY))


def test_distance_is_the_references() -> None:
    base, other = model(5), model(6)
    text = perplexity.encode(base.tokenizer, STORY, end=False)
    found = perplexity.measure([base, other], [text], Cut(128))
    inputs = [VOCABULARY.bos_id, *text.ids[:-1]]
    p, q = oracle(5, inputs), oracle(6, inputs)
    expected = (np.exp(p) * (p - q)).sum()
    assert found.distances[0].nats == pytest.approx(expected, rel=1e-4)
    assert found.distances[0].agreed == (p.argmax(1) == q.argmax(1)).sum()
    same = perplexity.measure([base, model(5)], [text], Cut(128)).distances[0]
    assert same.nats == 0
    assert same.agreed == len(text.ids)


@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize("stride", [0, 3, 10])
@pytest.mark.parametrize("length", [0, 1, 2, 9, 10, 11, 20, 21, 35])
def test_every_token_counts_once(bos: int | None, stride: int, length: int) -> None:
    ids = list(range(100, 100 + length))
    counted: list[int] = []
    for window in Cut(10, stride).windows(ids, bos):
        assert len(window.inputs) == len(window.targets) <= 10
        assert window.inputs[1:].tolist() == window.targets[:-1].tolist()
        if bos is None:
            assert window.inputs[0] == window.targets[0] - 1
        else:
            assert window.inputs[0] == bos
        counted += window.targets[window.first :].tolist()
    assert counted == (ids if bos is not None else ids[1:])


def test_second_half_is_llama_cpps_way() -> None:
    windows = list(Cut(8, second_half=True).windows(range(100, 119), 1))
    assert [w.inputs.tolist() for w in windows] == [
        [1, *range(100, 106)],
        [1, *range(108, 114)],
    ]
    # its program counts context - context / 2 - 1 tokens of each chunk
    assert [w.targets[w.first :].tolist() for w in windows] == [[104, 105, 106], [112, 113, 114]]


def test_characters_of_what_counts() -> None:
    it = model(bos=False)
    text = perplexity.encode(it.tokenizer, "once 猫 upon a time", end=False)
    found = perplexity.measure([it], [text], Cut(4))
    assert found.losses[0].tokens == len(text.ids) - 1
    rest = b"".join(map(it.tokenizer.token_bytes, text.ids[1:]))
    assert (found.characters, found.nbytes) == (len(rest.decode()), len(rest))


def test_nothing_to_count_is_told() -> None:
    with pytest.raises(FiresideError, match="no token"):
        perplexity.measure([model(bos=False)], [Text([300], 1, 1)], Cut(8))
    with pytest.raises(FiresideError, match="longer than the context"):
        perplexity.measure([model()], [Text([5, 6], 2, 2)], Cut(8, second_half=True))


def test_other_tokens_are_refused() -> None:
    with pytest.raises(FiresideError, match="other tokens"):
        perplexity.check_same_tokens([model(), model(bos=False)])
