"""Perplexity: how surprised a model is by a text, and how far others are from it.

Perplexity is exp of the mean loss of a token in nats; the loss is minus the log of the probability
that the model gave to the token that came. Its standard error comes from the spread of the losses,
taken for independent of each other.

A text is cut into windows of at most `context` tokens to predict. Each begins with a BOS, where the
vocabulary puts one before texts; else with the token before it, so that of the whole text only the
first token is not counted. With a stride below the context windows overlap, and what an earlier one
counted is context only. "Second half" is the way of llama.cpp's perplexity program: whole chunks of
`context` tokens, the first of them replaced by a BOS, and only the second half of each counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fireside.engine.errors import FiresideError
from fireside.engine.model import Model
from fireside.engine.tokenizers import Tokenizer

Logits = NDArray[np.float32]
Doubles = NDArray[np.float64]

STEP = 256  # tokens a step, at most
STEP_LOGITS = 1 << 24  # logits a step, at most: 64 MB
SLICE = 1 << 20  # logits turned into probabilities at once


@dataclass(frozen=True)
class Text:
    """Ids of a text without BOS, and what they stand for."""

    ids: Sequence[int]
    characters: int
    nbytes: int  # as UTF-8


@dataclass(frozen=True)
class Window:
    """`inputs` predict `targets`, one each; those from `first` on count."""

    inputs: NDArray[np.int32]
    targets: NDArray[np.int32]
    first: int


@dataclass
class Losses:
    """Sums over the tokens that counted so far."""

    tokens: int = 0
    nats: float = 0.0
    squares: float = 0.0

    def add(self, losses: Doubles) -> None:
        """Count these losses."""
        self.tokens += len(losses)
        self.nats += float(losses.sum())
        self.squares += float((losses * losses).sum())

    @property
    def mean(self) -> float:
        """Nats a token."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """exp(mean); infinite where that is beyond a float."""
        try:
            return math.exp(self.mean)
        except OverflowError:
            return math.inf

    @property
    def error(self) -> float:
        """Standard error of the perplexity: that of the mean loss, times the perplexity."""
        if self.tokens < 2:
            return math.nan
        variance = max(0.0, self.squares / self.tokens - self.mean**2)
        return self.perplexity * math.sqrt(variance / (self.tokens - 1))


@dataclass
class Distance:
    """How far a model's distributions are from another's, summed over tokens."""

    nats: float = 0.0  # Kullback-Leibler divergence
    agreed: int = 0  # tokens of which both find the same one likeliest

    def add(self, base: Doubles, other: Doubles) -> None:
        """Count rows of log probabilities [n, vocabulary] of the base and of the other."""
        self.nats += float((np.exp(base) * (base - other)).sum())
        self.agreed += int((base.argmax(axis=1) == other.argmax(axis=1)).sum())


@dataclass
class Measured:
    """What a run has found: losses of each model, distances of each from the first."""

    losses: list[Losses]
    distances: list[Distance]
    characters: int = 0  # of the tokens that counted
    nbytes: int = 0

    def bits_per_character(self, model: int) -> float:
        """Bits of one model's losses for each character of the text."""
        return self.losses[model].nats / math.log(2) / max(1, self.characters)

    def bits_per_byte(self, model: int) -> float:
        """Bits of one model's losses for each byte of the text."""
        return self.losses[model].nats / math.log(2) / max(1, self.nbytes)


@dataclass(frozen=True)
class Cut:
    """How texts are cut into windows."""

    context: int
    stride: int = 0  # 0: as long as the context, so that windows do not overlap
    second_half: bool = False

    def windows(self, ids: Sequence[int], bos: int | None) -> Iterator[Window]:
        """The windows of one text; `bos` None: the vocabulary puts none before a text."""
        if self.second_half:
            yield from self._halves(ids, bos)
            return
        array = np.array(ids, np.int32)
        if bos is None:
            lead, array = array[:1], array[1:]
        else:
            lead = np.array([bos], np.int32)
        counted = start = 0
        while counted < len(array):
            targets = array[start : start + self.context]
            if bos is None and start:
                lead = array[start - 1 : start]
            yield Window(np.concatenate([lead, targets[:-1]]), targets, counted - start)
            counted = start + len(targets)
            start += self.stride or self.context

    def _halves(self, ids: Sequence[int], bos: int | None) -> Iterator[Window]:
        array = np.array(ids if bos is None else [bos, *ids], np.int32)
        for start in range(0, len(array) - self.context + 1, self.context):
            chunk = array[start : start + self.context].copy()
            if bos is not None:
                chunk[0] = bos
            yield Window(chunk[:-1], chunk[1:], self.context // 2)


def encode(tokenizer: Tokenizer, text: str, end: bool) -> Text:
    """Ids of a text; `end`: the token that ends a text is one of them, where there is one."""
    ids = tokenizer.encode(text, bos=False)
    eos = tokenizer.vocabulary.eos_id
    if end and eos >= 0:
        ids.append(eos)
    return Text(ids, len(text), len(text.encode("utf-8", "replace")))


def first_token(tokenizer: Tokenizer) -> int | None:
    """The BOS that windows begin with; None where the vocabulary puts none before a text."""
    v = tokenizer.vocabulary
    return v.bos_id if v.add_bos and v.bos_id >= 0 else None


def check_same_tokens(models: Sequence[Model]) -> None:
    """FiresideError unless all have the vocabulary of the first."""
    base = models[0].tokenizer.vocabulary
    for model in models[1:]:
        v = model.tokenizer.vocabulary
        if v.pieces != base.pieces or first_token(model.tokenizer) != first_token(
            models[0].tokenizer
        ):
            raise FiresideError(
                f"{model.name} has other tokens than {models[0].name}",
                "only models of one vocabulary can be compared",
            )


def measure(
    models: Sequence[Model],
    texts: Iterable[Text],
    cut: Cut,
    progress: Callable[[Measured], None] = lambda _: None,
) -> Measured:
    """The losses of `models` on `texts`, and how far the others are from the first.

    All models see the same tokens, which are those of the first. progress(so far) is called after
    every step; what it raises ends the run, as an abort() of the first model's executor does
    (Aborted). FiresideError where there is no token to count.
    """
    tokenizer = models[0].tokenizer
    bos = first_token(tokenizer)
    found = Measured([Losses() for _ in models], [Distance() for _ in models[1:]])
    vocab_size = models[0].config.vocab_size
    rows = max(1, min(STEP, STEP_LOGITS // vocab_size))
    for text in texts:
        whole = bos is not None and not cut.second_half
        if whole:
            found.characters += text.characters
            found.nbytes += text.nbytes
        for window in cut.windows(text.ids, bos):
            if not whole:  # what the counted tokens stand for
                part = b"".join(map(tokenizer.token_bytes, window.targets[window.first :].tolist()))
                found.nbytes += len(part)
                # bytes that begin a character: a token may end in the middle of one
                found.characters += sum(byte & 0xC0 != 0x80 for byte in part)
            caches = [model.executor.new_cache(len(window.inputs)) for model in models]
            runs = [(m.executor, c) for m, c in zip(models, caches, strict=True)]
            for start in range(0, len(window.inputs), rows):
                tokens = window.inputs[start : start + rows]
                logits = [e.step(c, tokens, start, "all") for e, c in runs]
                skip = max(0, window.first - start)
                targets = window.targets[start : start + rows]
                count(found, [part[skip:] for part in logits], targets[skip:])
                progress(found)
    if not found.losses[0].tokens:
        raise FiresideError(
            "the text has no token to count",
            f"it must be longer{' than the context' if cut.second_half else ''}",
        )
    return found


def count(found: Measured, logits: Sequence[Logits], targets: NDArray[np.int32]) -> None:
    """Add what logits [n, vocabulary] of each model say of `targets` [n]."""
    step = max(1, SLICE // logits[0].shape[1])
    for start in range(0, len(targets), step):
        here = targets[start : start + step]
        likely = [log_probabilities(rows[start : start + step]) for rows in logits]
        for losses, rows in zip(found.losses, likely, strict=True):
            losses.add(-rows[np.arange(len(here)), here])
        for distance, rows in zip(found.distances, likely[1:], strict=True):
            distance.add(likely[0], rows)


def log_probabilities(logits: Logits) -> Doubles:
    """Log of the softmax of each row."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows
