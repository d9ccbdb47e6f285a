"""What a BPE vocabulary has beside its pieces: merges, and how a text is cut. Plain data.

The names are those of Hugging Face's `tokenizer.json`; a GGUF file names a whole recipe instead
(gguf_pretokenizers.py). fireside.engine.tokenizers.bpe does what is described here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fireside.engine.records import record

Behavior = Literal["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
PrependScheme = Literal["always", "first", "never"]
Form = Literal["NFC", "NFD", "NFKC", "NFKD"]


# -- normalisers: text -> text


@record
class Normalize:
    """One of Unicode's normal forms."""

    form: Form


@record
class Lowercase:
    """Small letters only."""


@record
class Replace:
    """`content` instead of every match of the regular expression `pattern`."""

    pattern: str
    content: str


@record
class Prepend:
    """`text` before a text that is not empty."""

    text: str


@record
class Strip:
    """No white space at the ends."""

    left: bool
    right: bool


Normalizer = Normalize | Lowercase | Replace | Prepend | Strip


# -- pre-tokenizers: text -> words


@record
class Split:
    """Cut at the matches of the regular expression `pattern`.

    behavior: what becomes of a match: it is a word of its own ("isolated"), a part of the word
    before or behind it, dropped, or one word with the matches beside it ("contiguous").
    invert: what lies between the matches counts as the match.
    """

    pattern: str
    behavior: Behavior = "isolated"
    invert: bool = False


@record
class PrefixSpace:
    """A space before every word that does not begin with one."""


@record
class Bytes:
    """From here on a word is its UTF-8 bytes, each written as the character that stands for it."""


@record
class Metaspace:
    """`replacement` for spaces, and before the text; with `split` every one begins a word."""

    replacement: str = "\u2581"
    prepend: PrependScheme = "always"
    split: bool = True


PreTokenizer = Split | PrefixSpace | Bytes | Metaspace


@record
class AddedToken:
    """How a token that was added to the vocabulary is found in a text, beyond being there.

    lstrip, rstrip: it takes the white space beside it with it. single_word: it is not found within
    a word. normalized: it is looked for behind the normalisers, not before.
    """

    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is found wherever it stands."""
        return self == AddedToken()


@record
class Bpe:
    """The rules of a BPE vocabulary."""

    merges: Sequence[str] | None  # "left right", the first is joined first; None: by the ids
    normalizers: tuple[Normalizer, ...] = ()
    pre_tokenizers: tuple[PreTokenizer, ...] = ()
    separator: str = " "  # between the halves of a merge; in none of the pieces
    ignore_merges: bool = False  # a word that is a piece is not merged together
    byte_fallback: bool = False  # unknown characters become "<0x0A>" pieces
    fuse_unk: bool = False  # one unknown piece for a run of unknown characters
    space: str = ""  # what stands for a space in pieces, where they are no bytes
    word_space: bool = False  # decoding puts a space before every piece
    added: tuple[tuple[int, AddedToken], ...] = ()  # ids with rules of their own

    @property
    def byte_level(self) -> bool:
        """Whether pieces are bytes written as characters."""
        return any(isinstance(step, Bytes) for step in self.pre_tokenizers)
