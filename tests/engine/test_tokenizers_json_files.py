"""tokenizer.json and the files beside it; Llama 3's own file; hostile ones end in one line."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

from fireside.engine.checkpoints import gguf_writer
from fireside.engine.checkpoints.types import UNUSED
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers import (
    from_vocabulary,
    read_tokenizer_folder,
    read_vocabulary,
    tiktoken_ranks,
)
from tests.engine.test_tokenizers import some_text
from tests.engine.test_tokenizers_json import pair, read, vocabulary
from tests.model_files import sentencepiece_model, small_vocabulary

# ---- BOS, EOS and the files beside


def base() -> dict[str, Any]:
    raw: dict[str, Any] = json.loads(pair("byte-level")[0].to_str())
    return raw


def test_the_template_says_what_stands_before_a_text() -> None:
    theirs = Tokenizer.from_str(json.dumps(base()))
    theirs.post_processor = processors.Sequence(
        [
            processors.ByteLevel(),
            processors.TemplateProcessing(
                "<s> $A </s>", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)]
            ),
        ]
    )
    ours = read(json.loads(theirs.to_str()))
    v = ours.vocabulary
    assert (v.bos_id, v.eos_id, v.add_bos) == (1, 2, True)
    assert ours.encode("the cat") == theirs.encode("the cat").ids[:-1]  # the story goes on
    assert ours.encode("the cat", bos=False) == theirs.encode("the cat").ids[1:-1]


def test_the_files_beside_say_more(tmp_path: Path) -> None:
    v = vocabulary(base())
    assert (v.bos_id, v.eos_id, v.unk_id, v.add_bos, v.chat_template) == (-1, 2, -1, False, None)
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "eos_token": "e",
        "add_bos_token": True,
        "chat_template": [
            {"name": "tools", "template": "no"},
            {"name": "default", "template": "x"},
        ],
    }
    v = vocabulary(base(), tokenizer_config=config, generation_config={"eos_token_id": [2, 7]})
    assert (v.bos_id, v.add_bos, v.chat_template, v.end_ids) == (1, True, "x", (2, 7))
    assert v.eos_id == v.pieces.index("e")
    (tmp_path / "tokenizer.json").write_text(json.dumps(base()))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 5}))
    v = read_tokenizer_folder(tmp_path)
    assert (v.chat_template, v.end_ids) == ("{{ messages }}", (5,))


def test_a_model_may_have_more_rows_than_the_tokenizer_tokens(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(base()))
    count = len(read_tokenizer_folder(tmp_path))
    padded = read_tokenizer_folder(tmp_path, count + 3)
    assert len(padded) == count + 3
    assert padded.types[count:].tolist() == [UNUSED] * 3
    assert from_vocabulary(padded).token_bytes(count) == b""
    assert len(read_vocabulary(tmp_path / "tokenizer.json", count + 3)) == count + 3
    with pytest.raises(CheckpointError, match="choose the tokenizer"):
        read_tokenizer_folder(tmp_path, count - 1)


def test_a_folder_gives_the_best_it_has(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder without a tokenizer"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram"}}))
    with pytest.raises(UnsupportedError, match="of type 'Unigram'"):
        read_vocabulary(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model(small_vocabulary()))
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "hello"}')
    v = read_vocabulary(tmp_path)
    assert (v.kind, v.chat_template) == ("spm", "hello")
    (tmp_path / "tokenizer.json").write_text(json.dumps(base()))
    assert read_vocabulary(tmp_path).kind == "bpe"


def test_it_can_be_written_as_gguf_where_that_has_a_name(tmp_path: Path) -> None:
    for name in ("byte-level", "qwen", "starcoder"):
        ours = pair(name)[1]
        path = tmp_path / "v.gguf"
        metadata = gguf_writer.describe_vocabulary(ours.vocabulary)
        path.write_bytes(b"".join(gguf_writer.encode_header(metadata, [])))
        again = from_vocabulary(read_vocabulary(path))
        for text in (*some_text()[:20], "It's 12345 o'clock…\n\n naïve"):
            assert again.encode(text) == ours.encode(text)
    for name in ("falcon", "llama 2", "whitespace"):
        with pytest.raises(UnsupportedError, match="no name"):
            gguf_writer.describe_vocabulary(pair(name)[1].vocabulary)


# ---- Llama 3's file


def test_llama_3s_own_file(tmp_path: Path) -> None:
    ranks = [bytes([i]) for i in range(256)] + [b"th", b"the", b" the", b" c", b"at", b" cat"]
    ranks += [f"\xff{i}".encode("latin-1") for i in range(128_000 - len(ranks))]
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"".join(base64.b64encode(raw) + b" %d\n" % i for i, raw in enumerate(ranks)))
    v = read_vocabulary(path, 128_256)
    assert v.pieces[128_000] == "<|begin_of_text|>"
    assert v.pieces[128_006:128_010] == (
        "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>",
    )  # fmt: skip
    assert len(set(v.pieces)) == len(v.pieces)
    assert (v.bos_id, v.eos_id, v.end_ids) == (128_000, 128_001, (128_008, 128_009))
    ours = from_vocabulary(v)
    ids = ours.encode("the cat<|eot_id|>", special=True)
    assert ids == [128_000, 257, 261, 128_009]
    assert ours.encode("the\xff", bos=False) == [257, 0xC3, 0xBF]
    assert ours.decode(ids) == "the cat"
    assert 128_009 not in ours.encode("<|eot_id|>")


def test_other_tiktoken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(UnsupportedError, match="2 pieces"):
        read_vocabulary(path)
    path.write_bytes(b"IQ== 0\nIg== 2\n")
    with pytest.raises(CheckpointError, match="line 2"):
        read_vocabulary(path)
    path.write_bytes(b"IQ== 0\nI 1\n")
    with pytest.raises(CheckpointError, match="line 2"):
        read_vocabulary(path)
    assert not tiktoken_ranks.recognises(b"IQ== 1\n")


# ---- hostile files


def changed(**changes: Any) -> dict[str, Any]:
    """A sound file with changes: "model.vocab" is written model__vocab."""
    raw = base()
    for key, value in changes.items():
        *path, last = key.split("__")
        place = raw
        for name in path:
            place = place[name]
        place[last] = value
    return raw


MERGE = base()["model"]["merges"][0]
BYTE_LEVEL = {"type": "ByteLevel"}


def deep(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"type": "NFC"}
    for _ in range(depth):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


def split(pattern: object, **more: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False} | more


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "not sound JSON"),
        (b"{" * 100_000, "not sound JSON"),
        (b'{"model":' + b"[" * 200_000, "nested too deeply"),
        (b'{"model": "\xff"}', "not sound JSON"),
        (b"{}", "model is None, expected an object"),
        (b'{"model": []}', "model is [], expected an object"),
        (b'{"model": {"type": "WordPiece"}}', "of type 'WordPiece'"),
        (b'{"model": {"type": "BPE"}}', "model.vocab is None"),
        (changed(model__vocab={}), "model.vocab is empty"),
        (changed(model__vocab={"a": "b"}), "gives 'a' the id b"),
        (changed(model__vocab={"a": True}), "gives 'a' the id True"),
        (changed(model__vocab={"a": -1}), "gives 'a' the id -1"),
        (changed(model__vocab={"a": 1 << 40}), "gives 'a' the id 1099511627776"),
        (changed(model__vocab={"a": 0, "b": 0}), "gives 'b' the id 0"),
        (changed(model__vocab={"a\ud800": 0}), "half a character"),
        (changed(model__merges=["a"]), "model.merges[0] is 'a'"),
        (changed(model__merges=["a zzz"]), "model.merges[0] is 'a zzz'"),
        (changed(model__merges=[MERGE, ["a", "b", "c"]]), "model.merges[1] is"),
        (changed(model__merges=[MERGE, 7]), "model.merges[1] is '7'"),
        (changed(model__merges={"t": "h"}), "model.merges is"),
        (changed(model__dropout=0.5), "drops merges at random"),
        (changed(model__end_of_word_suffix="</w>"), "end_of_word_suffix is '</w>'"),
        (changed(model__byte_fallback="yes"), "byte_fallback is 'yes'"),
        (changed(added_tokens={"a": 1}), "added_tokens is"),
        (changed(added_tokens=["a"]), "a list of objects"),
        (changed(added_tokens=[{"id": 1 << 50, "content": "x"}]), "added_tokens[0].id is"),
        (changed(added_tokens=[{"id": 0, "content": "x"}]), "id 0 is 'x', but in the vocabulary"),
        (changed(added_tokens=[{"id": 9999, "content": 5}]), "content is 5, expected a text"),
        (
            changed(added_tokens=[{"id": i, "content": "x"} for i in (9998, 9999)]),
            "'x' was added twice",
        ),
        (changed(normalizer={"type": "Precompiled"}), "a normalizer of type 'Precompiled'"),
        (changed(normalizer={"type": 3}), "type is 3, expected a text"),
        (changed(normalizer=deep(20)), "nested too deeply"),
        (changed(normalizer={"type": "Replace", "content": "x"}), "pattern is None"),
        (changed(normalizer={"type": "Prepend", "prepend": "\ud800"}), "expected a text"),
        (changed(pre_tokenizer={"type": "UnicodeScripts"}), "of type 'UnicodeScripts'"),
        (changed(pre_tokenizer=split({"Regex": "(a"})), "regular expression '(a' cannot be used"),
        (changed(pre_tokenizer=split({"Regex": "(" * 5000 + ")" * 5000})), "cannot be used"),
        (changed(pre_tokenizer=split({"Regex": "a" * 70_000})), "70,000 characters"),
        (changed(pre_tokenizer=split("a")), "pattern is 'a'"),
        (changed(pre_tokenizer=split({"String": "a"}, behavior="Eaten")), "behavior is 'Eaten'"),
        (
            changed(
                pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}] * 2}
            ),
            "two pre_tokenizers",
        ),
        (changed(pre_tokenizer={"type": "Metaspace", "replacement": "ab"}), "one character"),
        (changed(decoder={"type": "WordPiece"}), "a decoder of type 'WordPiece'"),
        (changed(post_processor={"type": "BertProcessing"}), "of type 'BertProcessing'"),
    ],
)
def test_hostile_files_are_refused(raw: dict[str, Any] | bytes, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        vocabulary(raw)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_hostile_neighbours_are_refused() -> None:
    for name in ("tokenizer_config", "generation_config"):
        with pytest.raises(CheckpointError, match="a JSON object is expected"):
            vocabulary(base(), **{name: [1]})
    odd = {"bos_token": 5, "eos_token": ["x"], "add_bos_token": "yes", "chat_template": 7}
    v = vocabulary(base(), tokenizer_config=odd, generation_config={"eos_token_id": [-4, "x"]})
    assert (v.bos_id, v.add_bos, v.chat_template, v.end_ids) == (-1, False, None, ())


def test_a_regular_expression_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fireside.engine.tokenizers.steps.TIMEOUT", 0.3)
    raw = changed(pre_tokenizer=split({"Regex": r"(?:a|aa)+\d"}))
    ours = read(raw)
    start = time.perf_counter()
    with pytest.raises(CheckpointError, match="takes too long"):
        ours.encode("a" * 60)
    assert time.perf_counter() - start < 20


def test_merges_in_any_order_end() -> None:
    """Merges that lead in circles cannot: what is joined only grows."""
    vocab = {"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4, "abab": 5, "bab": 6}
    merges = ["ab ab", "a ba", "ab a", "b ab", "b a", "a b", "ba b", "a bab", "aba b"]
    raw = changed(model__vocab=vocab, model__merges=merges, added_tokens=[])
    theirs = Tokenizer.from_str(json.dumps(raw))
    ours = read(raw)
    for text in ("abab" * 20, "ba" * 31, "aabbab"):
        assert ours.encode(text) == theirs.encode(text).ids


def test_pieces_with_spaces_need_pairs() -> None:
    vocab = {"a": 0, " ": 1, "a ": 2, "b": 3, "a b": 4, " b": 5}
    merges = [["a ", "b"], [" ", "b"], ["a", " "]]
    raw = changed(
        model__vocab=vocab, model__merges=merges, added_tokens=[], pre_tokenizer=None, decoder=None
    )
    theirs = Tokenizer.from_str(json.dumps(raw))
    for text in ("a b", "aa  b", "a bb a b"):
        assert read(raw).encode(text) == theirs.encode(text).ids


def test_ids_with_holes_are_filled() -> None:
    raw = changed(model__vocab={"a": 0, "b": 5}, model__merges=[], added_tokens=[])
    v = vocabulary(raw)
    assert v.pieces == ("a", "[PAD1]", "[PAD2]", "[PAD3]", "[PAD4]", "b")
    assert v.types.tolist() == [1, 5, 5, 5, 5, 1]
    assert np.isfinite(v.scores).all()


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 300), st.just(1 << 70), st.just(1e308),
    st.text(max_size=3), st.just("\ud800"), st.just([]), st.just({}), st.just([None]),
    st.just({"type": "Sequence"}), st.just({"type": "ByteLevel"}), st.just({"String": ""}),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to everything in a JSON value, a few of each long list."""
    yield path
    if isinstance(value, dict):
        for key in list(value)[:40]:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for i in range(min(len(value), 3)):
            yield from places(value[i], (*path, i))


@given(
    name=st.sampled_from(["qwen", "falcon", "llama 2", "metaspace first", "whitespace split"]),
    data=st.data(),
    odd=ODD,
)
def test_any_damage_is_one_line_or_none(name: str, data: st.DataObject, odd: Any) -> None:
    raw = json.loads(pair(name)[0].to_str())
    path = data.draw(st.sampled_from(list(places(raw))[1:]))
    place = raw
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = odd
    try:
        ours = read(raw)
        ids = ours.encode("It's 12 o'clock, <s>猫\u0301!", special=True)
        ours.decode(ids)
        told = ""
    except CheckpointError as error:
        told = str(error)
    assert "\n" not in told
    assert len(told) < 500
