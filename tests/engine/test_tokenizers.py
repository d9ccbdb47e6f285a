"""Ids are sentencepiece's and llama.cpp's; text comes back whole, a character at a time."""

from __future__ import annotations

import io
import json
import lzma
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from fireside.engine.checkpoints.types import (
    NORMAL,
    UNKNOWN,
    UNUSED,
    Vocabulary,
)
from fireside.engine.errors import CheckpointError
from fireside.engine.tokenizers import from_vocabulary, read_vocabulary
from fireside.engine.tokenizers.detokenizer import Detokenizer
from fireside.engine.tokenizers.spm import SpmTokenizer
from tests.model_files import small_vocabulary
from tests.shared import SHARED, needs_shared
from tests.tokenizer_parts import piece, protobuf, read_raw, varints

FIXTURES = SHARED / "fixtures"
TOK512 = "fixtures/stories260K/tok512.model"
LLAMA2 = "fixtures/vocab/tokenizer.model"
MODELS = [pytest.param(name, marks=needs_shared(name)) for name in (TOK512, LLAMA2)]

AWKWARD = [
    "",
    " ",
    "  ",
    "   x   ",
    " " * 100,
    "a  b ",
    "\t\ta\r\n\r\nb\n",
    "\x00 NUL\x00s \x7f\x1b",
    "e\u0301 a\u0308\u0323 cafe\u0301 café",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪",
    "日本語のテキスト。漢字 かな",
    "مرحبا بالعالم שלום",
    "नमस्ते ทดสอบ 한국어",
    "\ufeffbyte order mark \u00a0no-break\u2003em\u3000wide\u200bzero",
    "\u2581 \u2581\u2581a\u2581b",
    "\ufffd \U0010ffff \ue000",
    "</s><s> <unk> <0x0A> <pad>",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" * 20,
    "ab" * 500 + "é" * 500,
    "“Once” — upon… a ‘time’",
    "1234567890 3.14159 0x1F",
]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SPACED = st.lists(
    st.sampled_from(["once", "upon", "a", "time", " ", "  ", "\n", "é", "猫", "\u2581", "<s>"]),
    max_size=20,
).map("".join)


@cache
def tokenizer(name: str) -> SpmTokenizer:
    return SpmTokenizer(read_vocabulary(SHARED / name))


@cache
def theirs(name: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(SHARED / name))


def corpus(name: str, count: int) -> Iterator[str]:
    with lzma.open(SHARED / "corpus" / name, "rt") as file:
        for line in islice(file, count):
            yield json.loads(line)["text"]


def trained(
    text: list[str], **options: Any
) -> tuple[Vocabulary, sentencepiece.SentencePieceProcessor]:
    """A small model of sentencepiece's own trainer: as we read it and as it does."""
    model = io.BytesIO()
    defaults: dict[str, Any] = {
        "model_type": "bpe",
        "vocab_size": 340,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "byte_fallback": True,
        "character_coverage": 1.0,
        "num_threads": 1,
        "hard_vocab_limit": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, **(defaults | options)
    )
    raw = model.getvalue()
    return read_raw(raw), sentencepiece.SentencePieceProcessor(model_proto=raw)


WORDS = "the cat sat on a warm mat once upon time there was a little house by the river"


def some_text() -> list[str]:
    """Made-up sentences, the same every time."""
    rng = random.Random(4)
    return [" ".join(rng.choices(WORDS.split(), k=9)).capitalize() + "." for _ in range(300)]


# ---- the same ids as others


@pytest.mark.parametrize("name", MODELS)
def test_awkward_text_is_sentencepieces(name: str) -> None:
    for text in AWKWARD:
        assert tokenizer(name).encode(text, bos=False) == theirs(name).encode(text), repr(text)


@needs_shared("corpus")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("stories", "count"), [("tinystories-valid.jsonl.xz", 400), ("nursery-books.jsonl.xz", 100)]
)
def test_story_text_is_sentencepieces(name: str, stories: str, count: int) -> None:
    for text in corpus(stories, count):
        assert tokenizer(name).encode(text, bos=False) == theirs(name).encode(text)


@pytest.mark.parametrize("name", MODELS)
@given(text=ANY_TEXT | SPACED)
def test_any_text_is_sentencepieces(name: str, text: str) -> None:
    assert tokenizer(name).encode(text, bos=False) == theirs(name).encode(text)


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_bin_holds_the_same_vocabulary(name: str) -> None:
    model = read_vocabulary(SHARED / name)
    path = (SHARED / name).with_suffix(".bin")
    ours = read_vocabulary(path, len(model))
    assert ours.pieces == model.pieces
    assert np.array_equal(ours.scores, model.scores)
    assert np.array_equal(ours.types, model.types)
    assert (ours.bos_id, ours.eos_id, ours.unk_id) == (1, 2, 0)
    with pytest.raises(CheckpointError, match="choose the tokenizer"):
        read_vocabulary(path, len(model) + 1)


@needs_shared("fixtures/vocab")
def test_llama_cpps_own_cases() -> None:
    path = FIXTURES / "vocab/ggml-vocab-llama-spm.gguf"
    ours = from_vocabulary(read_vocabulary(path))
    texts = path.with_name(path.name + ".inp").read_text("utf-8").split("\n__ggml_vocab_test__\n")
    lines = path.with_name(path.name + ".out").read_text().splitlines()
    assert len(texts) >= len(lines) > 40
    for text, line in zip(texts, lines, strict=False):
        assert ours.encode(text, bos=False) == [int(i) for i in line.split()], repr(text)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": True},
        {"byte_fallback": False},
        {"split_by_whitespace": False, "vocab_size": 500},
        {"user_defined_symbols": ["<cat>", "the", "▁on▁a", "<ca"]},
        {"control_symbols": ["<turn>"], "bos_piece": "[BOS]", "eos_piece": "[EOS]"},
        {"bos_id": -1, "unk_id": 1, "eos_id": 0},
        {"pad_id": 3, "unk_piece": "[?]"},
        {"allow_whitespace_only_pieces": True},
    ],
    ids=str,
)
def test_trained_models_are_read_as_sentencepiece_does(options: dict[str, object]) -> None:
    vocabulary, sp = trained(some_text(), **options)
    ours = SpmTokenizer(vocabulary)
    n = len(vocabulary)
    assert n == sp.vocab_size()
    assert vocabulary.pieces == tuple(sp.id_to_piece(list(range(n))))
    assert vocabulary.scores.tolist() == [sp.get_score(i) for i in range(n)]
    ids = (vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id)
    assert ids == (sp.bos_id(), sp.eos_id(), sp.unk_id())
    cases = ["the<cat>sat on a<cat><ca>t <turn>[BOS]", "on a on  a the the", "xyz猫猫 éé 猫"]
    for text in (*AWKWARD, *some_text()[:30], *cases):
        assert ours.encode(text, bos=False) == sp.encode(text), repr(text)
        if "\u2581" not in text and UNKNOWN not in vocabulary.types[sp.encode(text)]:
            assert ours.decode(sp.encode(text)) == sp.decode(sp.encode(text)), repr(text)


def test_pieces_across_words_are_found() -> None:
    vocabulary, sp = trained(some_text(), split_by_whitespace=False, vocab_size=500)
    assert any("▁" in piece.lstrip("▁") for piece in vocabulary.pieces)
    text = " ".join(some_text()[:50])
    assert SpmTokenizer(vocabulary).encode(text, bos=False) == sp.encode(text)


def test_unused_pieces_help_to_join_but_never_come_out() -> None:
    vocabulary, _ = trained(some_text())
    rng = random.Random(5)
    raw = b""
    for text, score, kind in zip(
        vocabulary.pieces, vocabulary.scores.tolist(), vocabulary.types.tolist(), strict=True
    ):
        unused = kind == NORMAL and len(text) > 1 and rng.random() < 0.5
        raw += piece(text, score, UNUSED if unused else kind)
    raw += protobuf(2, protobuf(3, 2) + varints(35, 1)) + protobuf(3, protobuf(4, 0))
    sp = sentencepiece.SentencePieceProcessor(model_proto=raw)
    ours = SpmTokenizer(read_raw(raw))
    assert np.count_nonzero(ours.vocabulary.types == UNUSED) > 20
    for text in some_text()[:100]:
        ids = sp.encode(text)
        assert ours.encode(text, bos=False) == ids
        assert UNUSED not in ours.vocabulary.types[ids]


# ---- what the vocabulary says


def test_bos_is_added_as_the_vocabulary_says() -> None:
    vocabulary = small_vocabulary()
    ours = SpmTokenizer(vocabulary)
    assert ours.encode("") == [1]
    assert ours.encode("", bos=False) == []
    assert ours.encode("once")[0] == 1
    without = SpmTokenizer(replace(vocabulary, add_bos=False))
    assert without.encode("once") == ours.encode("once", bos=False)
    assert without.encode("once", bos=True) == ours.encode("once")
    none = SpmTokenizer(replace(vocabulary, bos_id=-1))
    assert none.encode("", bos=True) == []


def test_end_ids() -> None:
    vocabulary = small_vocabulary()
    assert SpmTokenizer(vocabulary).end_ids == {2}
    assert SpmTokenizer(replace(vocabulary, end_ids=(7, 2))).end_ids == {2, 7}
    assert SpmTokenizer(replace(vocabulary, eos_id=-1)).end_ids == set()


def test_the_higher_score_is_joined_first_and_the_left_on_a_tie() -> None:
    def ids(scores: dict[str, float], text: str) -> list[str]:
        pieces = ("<unk>", "a", "b", *scores)
        types = np.array([UNKNOWN] + [NORMAL] * (len(pieces) - 1), np.int32)
        values = np.array([0, 0, 0, *scores.values()], np.float32)
        vocabulary = Vocabulary(
            "spm", pieces, values, types, -1, -1, 0, add_bos=False, add_space_prefix=False
        )
        return [pieces[i] for i in SpmTokenizer(vocabulary).encode(text)]

    assert ids({"ab": -1, "ba": -2}, "bab") == ["b", "ab"]
    assert ids({"ab": -2, "ba": -1}, "bab") == ["ba", "b"]
    assert ids({"aa": -1}, "aaaaa") == ["aa", "aa", "a"]
    assert ids({"aa": -1, "aaa": -2}, "aaaaa") == ["aa", "aaa"]
    assert ids({"ab": 0, "abab": 0}, "ababab") == ["abab", "ab"]
    assert ids({"ab": -1}, "xxabx") == ["<unk>", "ab", "<unk>"]


def test_equal_pieces_are_found_as_the_first() -> None:
    vocabulary = small_vocabulary()
    doubled = replace(
        vocabulary,
        pieces=(*vocabulary.pieces, "▁once"),
        scores=np.append(vocabulary.scores, np.float32(5)),
        types=np.append(vocabulary.types, np.int32(NORMAL)),
    )
    assert SpmTokenizer(doubled).encode("once") == SpmTokenizer(vocabulary).encode("once")


def test_control_and_byte_pieces_are_not_parsed_from_text() -> None:
    ours = SpmTokenizer(small_vocabulary())
    for text in ("<s>", "</s>", "<0x0A>", "<unk>"):
        ids = ours.encode(text, bos=False)
        assert len(ids) > 2
        assert ours.decode(ids) == text


def test_control_pieces_are_parsed_where_asked() -> None:
    """As llama.cpp does it: behind one a word begins, as at the beginning of a text."""
    ours = SpmTokenizer(small_vocabulary())
    once, time = ours.encode("once", bos=False), ours.encode(" time", bos=False)
    assert ours.encode("<s>once</s> time", special=True) == [1, *once, 2, *time]
    assert ours.encode("once</s>", special=True) == [1, *once, 2]
    assert ours.encode("<unk>", special=True) == ours.encode("<unk>")


def test_lone_surrogates_count_as_the_replacement_character() -> None:
    ours = SpmTokenizer(small_vocabulary())
    assert ours.encode("a\ud83d b\udc00") == ours.encode("a\ufffd b\ufffd")
    assert ours.decode(ours.encode("\ud800")) == "\ufffd"


def test_words_are_cached_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fireside.engine.tokenizers.base.CACHED_WORDS", 10)
    ours = SpmTokenizer(small_vocabulary())
    text = " ".join(f"word{i}" for i in range(100)) + "x" * 1000
    expected = ours.encode(text)
    assert len(ours._cache) <= 10
    assert ours.encode(text) == expected


# ---- text comes back


@given(
    text=ANY_TEXT.filter(lambda text: "\u2581" not in text)
    | SPACED.filter(lambda t: "\u2581" not in t)
)
@example(text=" ")
@example(text="  two spaces")
def test_text_comes_back(text: str) -> None:
    ours = SpmTokenizer(small_vocabulary())
    assert ours.decode(ours.encode(text)) == text
    assert ours.decode(ours.encode(text, bos=False)) == text
    plain = SpmTokenizer(replace(small_vocabulary(), add_space_prefix=False))
    assert plain.decode(plain.encode(text)) == text


@pytest.mark.parametrize("name", MODELS)
def test_awkward_text_comes_back(name: str) -> None:
    vocabulary = replace(read_vocabulary(SHARED / name), remove_extra_whitespaces=False)
    ours = SpmTokenizer(vocabulary)
    for text in AWKWARD:
        ids = ours.encode(text)
        if "\u2581" not in text:
            assert ours.decode(ids) == text
            assert ours.encode(ours.decode(ids)) == ids


@needs_shared("corpus")
@pytest.mark.parametrize("name", MODELS)
def test_stories_and_ids_round_trip(name: str) -> None:
    ours = tokenizer(name)
    for text in corpus("tinystories-valid.jsonl.xz", 100):
        ids = ours.encode(text)
        assert ours.decode(ids) == text
        assert ours.encode(ours.decode(ids)) == ids


@given(text=ANY_TEXT, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_the_detokenizer_never_gives_half_a_character(text: str, cuts: list[int]) -> None:
    ours = SpmTokenizer(small_vocabulary())
    ids = ours.encode(text)
    detokenizer = Detokenizer(ours)
    parts = [detokenizer.push(i) for i in ids]
    for part in parts:
        assert part.count("\ufffd") <= text.count("\ufffd")
    assert detokenizer.flush() == ""
    assert "".join(parts) == ours.decode(ids)
    # begun anywhere in the middle it goes on with just the rest
    for cut in cuts:
        later = Detokenizer(ours, ids[:cut])
        assert "".join(map(later.push, ids[cut:])) == "".join(parts[cut:])


@given(
    ids=st.lists(st.integers(0, len(small_vocabulary()) - 1), max_size=30), cut=st.integers(0, 30)
)
def test_any_ids_are_some_text(ids: list[int], cut: int) -> None:
    ours = SpmTokenizer(small_vocabulary())
    detokenizer = Detokenizer(ours)
    parts = [detokenizer.push(i) for i in ids]
    assert "".join(parts) + detokenizer.flush() == ours.decode(ids)
    later = Detokenizer(ours, ids[:cut])
    assert "".join(map(later.push, ids[cut:])) == "".join(parts[cut:])


def test_bytes_that_are_no_character() -> None:
    ours = SpmTokenizer(small_vocabulary())
    cat = [3 + byte for byte in "猫".encode()]
    assert ours.decode(cat) == "猫"
    assert ours.decode(cat[:2]) == "\ufffd"
    detokenizer = Detokenizer(ours)
    assert [detokenizer.push(i) for i in (*cat[:2], 3 + ord("x"))] == ["", "", "\ufffdx"]
    assert [detokenizer.push(i) for i in (3 + 0xFF, *cat)] == ["\ufffd", "", "", "猫"]
    assert detokenizer.push(cat[0]) == ""
    assert detokenizer.flush() == "\ufffd"
    assert detokenizer.flush() == ""
    assert Detokenizer(ours, cat[:2]).push(cat[2]) == "猫"


def test_the_leading_space_is_left_out_at_the_beginning_only() -> None:
    ours = SpmTokenizer(small_vocabulary())
    once = ours.encode("once", bos=False)
    assert ours.decode(once) == "once"
    assert ours.decode([1, *once]) == "once"
    assert ours.decode(once + once) == "once once"
    assert "".join(map(Detokenizer(ours, once).push, once)) == " once"
    assert "".join(map(Detokenizer(ours, [1]).push, once)) == "once"
    assert "".join(map(Detokenizer(ours, [*once, 1]).push, once)) == "once"


def test_tokens_have_bytes() -> None:
    ours = SpmTokenizer(small_vocabulary())
    assert [ours.token_bytes(i) for i in (0, 1, 2, 3 + 10)] == [" ⁇ ".encode(), b"", b"", b"\n"]
    assert ours.token_bytes(ours.encode("once", bos=False)[0]) == b" once"
    for wrong in (-1, len(ours.vocabulary)):
        with pytest.raises(IndexError):
            ours.token_bytes(wrong)


@pytest.mark.parametrize("text", ["ab" * 30_000, "猫" * 20_000, " " * 60_000, "a b" * 20_000])
def test_long_runs_take_no_long_time(text: str) -> None:
    ours = SpmTokenizer(small_vocabulary())
    start = time.perf_counter()
    assert ours.decode(ours.encode(text)) == text
    assert time.perf_counter() - start < 3
