"""Arrays of strings, as C looks through them and as Python does."""

from __future__ import annotations

import struct
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fireside.engine.checkpoints import gguf_strings
from fireside.engine.checkpoints.gguf_strings import Pieces, StringArray, string_ends
from fireside.engine.checkpoints.types import CONTROL, NORMAL, UNUSED, USER_DEFINED, Vocabulary
from fireside.engine.errors import CheckpointError
from fireside.engine.executors import native_library
from fireside.engine.tokenizers import ranks
from fireside.engine.tokenizers.ranks import Ranks
from fireside.engine.tokenizers.spm import SpmTokenizer

pytestmark = pytest.mark.skipif(bool(native_library.load()[2]), reason="no C kernels here")

WITHOUT_C = (None, None, "not asked")


def written(strings: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(s)) + s for s in strings)


@given(st.lists(st.text(max_size=9), max_size=20), st.integers(0, 5), st.binary(max_size=9))
def test_c_and_python_read_the_same(texts: list[str], before: int, behind: bytes) -> None:
    data = memoryview(bytes(before) + written([t.encode() for t in texts]) + behind)
    found = string_ends(data, before, len(texts))
    assert found is not None
    array = StringArray("key", Path("p"), data, found, before)
    assert list(array) == texts == array[:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_strings.native_library, "load", lambda: WITHOUT_C)
        assert list(string_ends(data, before, len(texts)) or ()) == list(found)
        assert list(array) == texts


@pytest.mark.parametrize("kernels", ["c", "python"])
@pytest.mark.parametrize("length", [9, 2**31, 2**63 - 8, 2**63, 2**64 - 1])
def test_a_length_beyond_the_end(
    length: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "python":
        monkeypatch.setattr(gguf_strings.native_library, "load", lambda: WITHOUT_C)
    data = memoryview(written([b"fine"]) + struct.pack("<Q", length) + b"12345678")
    assert string_ends(data, 0, 2) is None
    assert string_ends(data, 0, 1) is not None
    assert string_ends(data[:-12], 0, 2) is None  # not even a whole length


def test_a_zero_byte_is_one_of_a_string() -> None:
    data = memoryview(written([b"a\0b", b""]))
    array = StringArray("key", Path("p"), data, string_ends(data, 0, 2) or (), 0)
    assert list(array) == ["a\0b", ""]


def test_what_is_not_utf8_is_named() -> None:
    data = memoryview(written([b"fine", b"\xff"]))
    array = StringArray("key", Path("p"), data, string_ends(data, 0, 2) or (), 0)
    with pytest.raises(CheckpointError, match=r"key\[1\] is not valid UTF-8"):
        list(array)


def array_of(texts: list[bytes]) -> StringArray:
    data = memoryview(bytes(3) + written(texts))
    return StringArray("key", Path("p"), data, string_ends(data, 3, len(texts)) or (), 3)


SHORT = st.text("ab\u2581\0", max_size=3)


@given(st.lists(SHORT, max_size=40), st.lists(SHORT, max_size=20), st.integers(1, 20))
def test_ranks_are_first_places_however_many_are_asked_for(
    merges: list[str], asked: list[str], few: int
) -> None:
    first = {merge: i for i, merge in reversed(list(enumerate(merges)))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "FEW", few)
        for found in (Ranks(array_of([m.encode() for m in merges])), Ranks(merges)):
            assert [found.get(text) for text in asked] == [first.get(text) for text in asked]
            assert [found[text] for text in merges] == [first[text] for text in merges]
            assert list(found) == merges
            with pytest.raises(KeyError):
                found["c"]


def test_merges_must_be_utf8() -> None:
    with pytest.raises(CheckpointError, match=r"key\[1\] is not valid UTF-8"):
        Ranks(array_of([b"a b", b"\xff"]))


@given(st.lists(SHORT, max_size=9))
def test_pieces_are_as_a_tuple(texts: list[str]) -> None:
    pieces, expected = array_of([t.encode() for t in texts]).pieces(), tuple(texts)
    assert isinstance(pieces, tuple | Pieces)
    assert isinstance(pieces, Pieces) == (bool(texts) and "\0" not in "".join(texts))
    assert pieces == expected
    assert expected == pieces
    assert pieces != (*expected, "more")
    assert hash(pieces) == hash(expected)
    assert (tuple(pieces), len(pieces), pieces[1:]) == (expected, len(texts), expected[1:])
    assert [pieces[i] for i in range(-len(texts), len(texts))] == texts * 2
    assert ("a" in pieces) == ("a" in expected)


def test_pieces_must_be_utf8() -> None:
    with pytest.raises(CheckpointError, match=r"key\[1\] is not valid UTF-8"):
        array_of([b"a b", b"\xff"]).pieces()


KIND = st.sampled_from([NORMAL, NORMAL, NORMAL, CONTROL, USER_DEFINED, UNUSED])
PIECE = st.tuples(st.text("ab\u2581", max_size=3), st.integers(-3, 3), KIND)


@given(st.lists(PIECE, min_size=1, max_size=30), st.text("ab ", max_size=30), st.integers(1, 30))
def test_a_text_becomes_the_same_ids_however_many_pieces_are_asked_for(
    entries: list[tuple[str, int, int]], text: str, few: int
) -> None:
    pieces, scores, types = zip(*entries, strict=True)
    numbers = array("f", scores), array("B", types)
    found = array_of([piece.encode() for piece in pieces]).pieces()
    assert isinstance(found, Pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "FEW_PIECES", few)
        one, all_ = (
            SpmTokenizer(Vocabulary("spm", these, *numbers, -1, -1, 0, add_bos=False))
            for these in (found, pieces)
        )
        assert one.encode(text) == all_.encode(text)
        assert one.encode(text + "b") == all_.encode(text + "b")
