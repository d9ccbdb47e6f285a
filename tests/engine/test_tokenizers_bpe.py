"""Byte-level BPE: the ids of llama.cpp and of Hugging Face's tokenizers; text comes back whole."""

from __future__ import annotations

import random
import time
import unicodedata
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from fireside.engine.checkpoints import gguf_pretokenizers as pre
from fireside.engine.checkpoints.bpe import Bpe, Bytes, Split
from fireside.engine.checkpoints.gguf_pretokenizers import RECIPES
from fireside.engine.checkpoints.types import NORMAL, USER_DEFINED, Vocabulary
from fireside.engine.tokenizers import from_vocabulary, read_vocabulary
from fireside.engine.tokenizers.bpe import BpeTokenizer
from fireside.engine.tokenizers.detokenizer import Detokenizer
from fireside.engine.tokenizers.merging import _join_long, _join_short, join
from fireside.engine.tokenizers.words import words_of
from tests.bpe import gpt2_style, trained, vocabulary_of
from tests.engine.test_tokenizers import AWKWARD, SPACED, corpus, some_text
from tests.shared import SHARED, needs_shared

GPT2 = SHARED / "fixtures/vocab/ggml-vocab-gpt-2.gguf"


def settled(character: str) -> bool:
    """Whether every Unicode table of the last twenty years knows this character alike."""
    return unicodedata.ucd_3_2_0.category(character) == unicodedata.category(character) != "Cn"


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]).filter(settled), max_size=60)
ENGLISH = st.lists(
    st.sampled_from(
        [
            "I'm",
            "you'LL",
            "'Tis",
            "don't",
            "12345",
            "3.14",
            "HTTPServer",
            "camelCase",
            "école",
            "!?",
            "...",
            "///",
            "猫です",
            "été",
            "naïve",
            "ÀÉ",
            "١٢٣",
            "x²",
            "½",
            "ǅ",
            "ʰ",
            "́",
            "_a_",
            "<|x|>",
        ]
    )
    | st.sampled_from([" ", "  ", "\n", " \n ", "\n\n", "\t", "\r\n"]),
    max_size=25,
).map("".join)


# ---- the same ids as others


@needs_shared("fixtures/vocab")
def test_llama_cpps_own_cases() -> None:
    ours = from_vocabulary(read_vocabulary(GPT2))
    texts = GPT2.with_name(GPT2.name + ".inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    lines = GPT2.with_name(GPT2.name + ".out").read_text().splitlines()
    assert len(texts) >= len(lines) > 40
    for text, line in zip(texts, lines, strict=False):
        ids = ours.encode(text, bos=False)
        assert ids == [int(i) for i in line.split()], repr(text)
        assert ours.decode(ids) == text


# the expressions as the models' own tokenizer.json have them
PATTERNS = {
    "gpt-2": (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",),
    "llama-bpe": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "qwen2": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "tekken": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "gpt-4o": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "smollm": (
        r"\p{N}",
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    ),
    "deepseek-v3": (
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"),
    "poro-chat": (r" ?[^(\s|.,!?…。，、।۔،)]+",),
}


@cache
def pair(name: str) -> tuple[Tokenizer, BpeTokenizer]:
    """Theirs, and ours as a GGUF with this name of a recipe says."""
    theirs = trained(*PATTERNS[name])
    # the recipe's name is all that the file says
    bpe = Bpe(vocabulary_of(theirs).bpe.merges, (), RECIPES[name].steps)  # type: ignore[union-attr]
    return theirs, BpeTokenizer(vocabulary_of(theirs, bpe=bpe))


@pytest.mark.parametrize("name", PATTERNS)
def test_named_recipes_cut_as_the_models_do(name: str) -> None:
    theirs, ours = pair(name)
    for text in (*AWKWARD, *some_text()[:30]):
        assert ours.encode(text) == theirs.encode(text).ids, repr(text)


@pytest.mark.parametrize("name", PATTERNS)
@given(text=ANY_TEXT | SPACED | ENGLISH)
@example(text="a'S 'ſ  \u00a0x\u2028y\x1cz")
def test_any_text_is_cut_as_the_models_do(name: str, text: str) -> None:
    theirs, ours = pair(name)
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == text == theirs.decode(ids, skip_special_tokens=False)


@needs_shared("corpus")
@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "smollm"])
def test_stories_are_cut_as_the_models_do(name: str) -> None:
    theirs, ours = pair(name)
    for text in corpus("tinystories-valid.jsonl.xz", 100):
        assert ours.encode(text) == theirs.encode(text).ids


def test_long_words_are_merged_as_short_ones() -> None:
    """Short words take another way through the code than long ones."""
    theirs, ours = pair("gpt-2")
    rng = random.Random(7)
    for length in (1, 2, 5, 23, 24, 25, 200):
        text = "".join(rng.choices("theacouponimer", k=length))
        assert ours.encode(text) == theirs.encode(text).ids


def test_a_word_that_is_a_piece_is_one_where_merges_are_ignored() -> None:
    vocabulary = vocabulary_of(trained(pre.GPT2))
    pieces = (*vocabulary.pieces, "Ġzebra")
    bpe = vocabulary.bpe
    assert bpe is not None
    more = replace(
        vocabulary,
        pieces=pieces,
        scores=np.zeros(len(pieces), np.float32),
        types=np.append(vocabulary.types, np.int32(NORMAL)),
    )
    text = "the zebra"
    assert BpeTokenizer(more).encode(text) == gpt2_style().encode(text)
    whole = replace(more, bpe=replace(bpe, ignore_merges=True))
    assert BpeTokenizer(whole).encode(text)[-1] == len(pieces) - 1


def test_ranks_alone_merge_where_there_are_no_merges() -> None:
    pieces = ("a", "b", "c", "bc", "ab", "abc")
    zeros = np.zeros(6, np.float32)
    vocabulary = Vocabulary(
        "bpe", pieces, zeros, np.full(6, NORMAL, np.int32), -1, -1, -1, False, False,
        bpe=Bpe(None, (), (Split(pre.GPT2), Bytes())),
    )  # fmt: skip
    ours = BpeTokenizer(vocabulary)
    assert ours.encode("abc") == [5]  # bc first, then abc
    assert ours.encode("abab") == [4, 4]
    assert ours.encode("abx") == [4]  # nothing stands for the x


# ---- special tokens


def test_special_tokens_are_parsed_only_where_asked() -> None:
    ours = gpt2_style()
    text = "<|turn|>the cat<|end|> <|begin"
    assert {0, 1, 2}.isdisjoint(ours.encode(text))
    assert ours.decode(ours.encode(text)) == text
    the_cat, rest = ours.encode("the cat"), ours.encode(" <|begin")
    assert ours.encode(text, special=True) == [2, *the_cat, 1, *rest]
    assert ours.parse(text) == [2, "the cat", 1, " <|begin"]
    assert ours.decode([2, *the_cat, 1]) == "the cat"


def test_parts_hold_no_special_tokens_but_the_ids() -> None:
    ours = gpt2_style()
    ids = ours.encode_parts([2, "<|end|>", 1])
    assert ids == [2, *ours.encode("<|end|>"), 1]
    assert ids.count(1) == 1
    with_bos = BpeTokenizer(replace(ours.vocabulary, add_bos=True))
    assert with_bos.encode_parts([2]) == [0, 2]
    assert with_bos.encode_parts([0, 2]) == [0, 2]
    assert with_bos.encode_parts([0, 2], bos=True) == [0, 0, 2]
    assert with_bos.encode("", bos=None) == [0]
    assert with_bos.encode("", bos=False) == []


def test_user_defined_pieces_are_always_found() -> None:
    vocabulary = vocabulary_of(trained(pre.GPT2))
    types = vocabulary.types.copy()
    types[2] = USER_DEFINED
    ours = BpeTokenizer(replace(vocabulary, types=types))
    assert ours.encode("the<|turn|>") == [*ours.encode("the"), 2]
    assert ours.decode(ours.encode("the<|turn|>")) == "the<|turn|>"


# ---- text comes back


@given(text=ANY_TEXT | SPACED | st.text(st.characters(exclude_categories=["Cs"])))
def test_text_comes_back(text: str) -> None:
    ours = gpt2_style()
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    detokenizer = Detokenizer(ours)
    parts = [detokenizer.push(i) for i in ids]
    for part in parts:
        assert part.count("\ufffd") <= text.count("\ufffd")
    assert "".join(parts) == text
    assert detokenizer.flush() == ""


def test_bytes_of_half_a_character_wait_for_the_rest() -> None:
    ours = gpt2_style()
    cat = ours.encode("😀")
    assert len(cat) > 1
    detokenizer = Detokenizer(ours)
    assert [detokenizer.push(i) for i in cat] == [""] * (len(cat) - 1) + ["😀"]
    assert ours.decode(cat[:-1]) == "\ufffd"


def test_lone_surrogates_count_as_the_replacement_character() -> None:
    ours = gpt2_style()
    assert ours.encode("a\ud83d b\udc00") == ours.encode("a\ufffd b\ufffd")


@needs_shared("corpus")
@needs_shared("fixtures/vocab")
@pytest.mark.parametrize("name", [GPT2.name, "ggml-vocab-llama-spm.gguf"])
@pytest.mark.parametrize("texts", ["nursery-books", "tinystories-train"])
def test_a_megabyte_takes_less_than_a_second(name: str, texts: str) -> None:
    """With nothing known before; a third of that on a quiet machine."""
    text = "\n".join(corpus(f"{texts}.jsonl.xz", 2000))[:1_000_000]
    assert len(text) > 500_000
    times = []
    for _ in range(2):
        tokenizer = from_vocabulary(read_vocabulary(GPT2.with_name(name)))
        tokenizer.encode("a")  # its tables are made
        start = time.process_time()
        tokenizer.encode(text)
        times.append(time.process_time() - start)
    assert len(text.encode()) / min(times) > 1e6


def test_words_are_cut_only_where_no_piece_lies_across() -> None:
    cut = words_of(["▁a", "▁▁", "b"], "▁")
    assert cut("▁a▁▁b▁") == ["▁a", "▁▁b", "▁"]
    cut = words_of(["▁a", ".▁", "a.▁b"], "▁")
    assert cut("▁a▁b.▁c▁d.▁▁e▁") == ["▁a", "▁b.▁c", "▁d.▁▁e", "▁"]


@given(st.text("ab.▁", max_size=30), st.lists(st.text("ab.▁", min_size=2, max_size=4), max_size=6))
def test_words_joined_are_the_text_joined(text: str, pieces: list[str]) -> None:
    ranks = {piece: float(i) for i, piece in enumerate(pieces)}
    words = words_of(pieces, "▁")(text)
    assert "".join(words) == text
    apart = [symbol for word in words for symbol in join(list(word), ranks.get)]
    assert apart == join(list(text), ranks.get)


@given(st.text("abc", max_size=40), st.lists(st.text("abc", min_size=2, max_size=4), max_size=8))
def test_both_ways_of_joining_are_one(text: str, pieces: list[str]) -> None:
    ranks = {piece: float(i) for i, piece in enumerate(pieces)}
    short, long = (
        _join_short(list(text), ranks.get, ""),
        _join_long(list(text), ranks.get, "", None),
    )
    assert short == long


@pytest.mark.parametrize("text", ["ab" * 30_000, "猫" * 20_000, " " * 60_000, "a b" * 20_000])
def test_long_runs_take_no_long_time(text: str) -> None:
    ours = gpt2_style()
    start = time.process_time()
    assert ours.decode(ours.encode(text)) == text
    assert time.process_time() - start < 5
