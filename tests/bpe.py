"""Small byte-level BPE vocabularies, trained by Hugging Face's tokenizers."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from fireside.engine.checkpoints import gguf_pretokenizers as pre
from fireside.engine.checkpoints.bpe import Bpe, Bytes, Split
from fireside.engine.checkpoints.types import CONTROL, NORMAL, Vocabulary
from fireside.engine.tokenizers.bpe import BpeTokenizer
from tests.engine.test_tokenizers import AWKWARD, some_text


@cache
def trained(*patterns: str) -> Tokenizer:
    """A small byte-level BPE of Hugging Face's trainer, cut at `patterns`."""
    ours = Tokenizer(models.BPE())
    cuts = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    ours.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    ours.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|begin|>", "<|end|>", "<|turn|>"],
        show_progress=False,
    )
    text = [
        *some_text(),
        "I'm sure it's 1234 o'clock, isn't it?\n\n  Été 猫です HTTPServer",
        *AWKWARD,
    ]
    ours.train_from_iterator(text * 3, trainer)
    ours.encode_special_tokens = True
    return ours


def vocabulary_of(theirs: Tokenizer, **changes: Any) -> Vocabulary:
    """What a GGUF would hold of a byte-level tokenizer of Hugging Face's."""
    model = json.loads(theirs.to_str())["model"]
    pieces = tuple(sorted(theirs.get_vocab(), key=theirs.get_vocab().__getitem__))
    types = np.full(len(pieces), NORMAL, np.int32)
    types[:3] = CONTROL
    merges = [" ".join(pair) for pair in model["merges"]]
    options: dict[str, Any] = {
        "bos_id": 0,
        "eos_id": 1,
        "unk_id": -1,
        "add_bos": False,
        "add_space_prefix": False,
        "bpe": Bpe(merges, (), (Split(pre.GPT2), Bytes())),
    }
    return Vocabulary("bpe", pieces, np.zeros(len(pieces), np.float32), types, **options | changes)


@cache
def gpt2_style() -> BpeTokenizer:
    return BpeTokenizer(vocabulary_of(trained(pre.GPT2)))
