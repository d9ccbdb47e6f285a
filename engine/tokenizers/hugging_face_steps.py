"""The steps of a tokenizer.json: its normalisers, pre-tokenizers and decoders, by their types."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fireside.engine.checkpoints.bpe import (
    Behavior,
    Bytes,
    Lowercase,
    Metaspace,
    Normalize,
    Normalizer,
    PrefixSpace,
    Prepend,
    PrependScheme,
    PreTokenizer,
    Replace,
    Split,
    Strip,
)
from fireside.engine.checkpoints.gguf_pretokenizers import GPT2
from fireside.engine.errors import UnsupportedError
from fireside.engine.tokenizers.json_view import View

PUNCTUATION = r"[\p{P}!-/:-@\[-`{-~]"
BEHAVIORS: dict[str, Behavior] = {
    "Removed": "removed",
    "Isolated": "isolated",
    "MergedWithPrevious": "merged_with_previous",
    "MergedWithNext": "merged_with_next",
    "Contiguous": "contiguous",
}
SCHEMES: dict[str, PrependScheme] = {"always": "always", "first": "first", "never": "never"}
MAX_DEPTH = 8  # sequences within sequences


def flatten(step: View, children: str, depth: int = 0) -> list[View]:
    """The steps of a sequence, or of sequences within it, in order."""
    if step.text("type") != "Sequence":
        return [step]
    if depth == MAX_DEPTH:
        raise UnsupportedError(f"{step.path}: {step.where}type: sequences nested too deeply")
    return [leaf for s in step.views(children) for leaf in flatten(s, children, depth + 1)]


def unknown(step: View, what: str, known: object) -> UnsupportedError:
    """The error for a step of a type that is not known."""
    names = ", ".join(sorted(known)) if isinstance(known, dict) else str(known)
    return UnsupportedError(
        f"{step.path}: a {what} of type {step.text('type')[:40]!r}", f"this version knows {names}"
    )


def choice(step: View, key: str, options: dict[str, Behavior], default: str) -> Behavior:
    """One of `options`."""
    value = step.text(key, default)
    if value not in options:
        raise step.wrong(key, f"one of {', '.join(options)}")
    return options[value]


def pattern(step: View, key: str = "pattern") -> str:
    """A regular expression; a plain text is made into one."""
    value = step.value.get(key)
    if isinstance(value, dict) and len(value) == 1:
        found = step.view(key)
        if "String" in value:
            return re.escape(found.text("String"))
        if "Regex" in value:
            return found.text("Regex")
    raise step.wrong(key, 'an object with "String" or "Regex"')


# -- normalisers


def _strip(step: View) -> Strip:
    return Strip(step.boolean("strip_left", True), step.boolean("strip_right", True))


NORMALIZERS: dict[str, Callable[[View], Normalizer]] = {
    "NFC": lambda step: Normalize("NFC"),
    "NFD": lambda step: Normalize("NFD"),
    "NFKC": lambda step: Normalize("NFKC"),
    "NFKD": lambda step: Normalize("NFKD"),
    "Lowercase": lambda step: Lowercase(),
    "Replace": lambda step: Replace(pattern(step), step.text("content")),
    "Prepend": lambda step: Prepend(step.text("prepend")),
    "Strip": _strip,
    "StripAccents": lambda step: Replace(r"\p{M}", ""),
}


def read_normalizers(file: View) -> tuple[Normalizer, ...]:
    """The normalisers, in order."""
    if file.value.get("normalizer") is None:
        return ()
    steps = flatten(file.view("normalizer"), "normalizers")
    for step in steps:
        if step.text("type") not in NORMALIZERS:
            raise unknown(step, "normalizer", NORMALIZERS)
    return tuple(NORMALIZERS[step.text("type")](step) for step in steps)


# -- pre-tokenizers


def _byte_level(step: View) -> list[PreTokenizer]:
    prefix = [PrefixSpace()] if step.boolean("add_prefix_space", True) else []
    cut = [Split(GPT2)] if step.boolean("use_regex", True) else []
    return [*prefix, *cut, Bytes()]


def _split(step: View) -> list[PreTokenizer]:
    behavior = choice(step, "behavior", BEHAVIORS, "Isolated")
    return [Split(pattern(step), behavior, step.boolean("invert", False))]


def _digits(step: View) -> list[PreTokenizer]:
    alone = step.boolean("individual_digits", False)
    return [Split(r"\p{N}", "isolated" if alone else "contiguous")]


def _metaspace(step: View) -> list[PreTokenizer]:
    # files of before the schemes had names only say whether there is a prefix
    default = "always" if step.boolean("add_prefix_space", True) else "never"
    scheme = step.text("prepend_scheme", default)
    mark = step.text("replacement", "\u2581")
    if scheme not in SCHEMES:
        raise step.wrong("prepend_scheme", f"one of {', '.join(SCHEMES)}")
    if len(mark) != 1:
        raise step.wrong("replacement", "one character")
    return [Metaspace(mark, SCHEMES[scheme], step.boolean("split", True))]


def _delimiter(step: View) -> list[PreTokenizer]:
    return [Split(re.escape(step.text("delimiter")), "removed")]


PRE_TOKENIZERS: dict[str, Callable[[View], list[PreTokenizer]]] = {
    "ByteLevel": _byte_level,
    "Split": _split,
    "Digits": _digits,
    "Metaspace": _metaspace,
    "Whitespace": lambda step: [Split(r"\w+|[^\w\s]+", "removed", invert=True)],
    "WhitespaceSplit": lambda step: [Split(r"\s", "removed")],
    "Punctuation": lambda step: [
        Split(PUNCTUATION, choice(step, "behavior", BEHAVIORS, "Isolated"))
    ],
    "CharDelimiterSplit": _delimiter,
}


def read_pre_tokenizers(file: View) -> tuple[PreTokenizer, ...]:
    """The pre-tokenizers, in order."""
    if file.value.get("pre_tokenizer") is None:
        return ()
    done: list[PreTokenizer] = []
    for step in flatten(file.view("pre_tokenizer"), "pretokenizers"):
        if step.text("type") not in PRE_TOKENIZERS:
            raise unknown(step, "pre_tokenizer", PRE_TOKENIZERS)
        done += PRE_TOKENIZERS[step.text("type")](step)
    if sum(isinstance(step, Bytes) for step in done) > 1:
        raise UnsupportedError(f"{file.path}: two pre_tokenizers of type 'ByteLevel'")
    return tuple(done)


# -- decoders


@dataclass(frozen=True)
class Decoder:
    """What the decoder makes of pieces."""

    space: str = ""  # what stands for a space
    drops_space: bool = False  # at the beginning
    word_space: bool = False  # there is none: a space between any two pieces


DECODERS = "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip"


def read_decoder(file: View) -> Decoder:
    """What the way back from pieces to text does."""
    if file.value.get("decoder") is None:
        return Decoder(word_space=True)
    space, drops = "", False
    for step in flatten(file.view("decoder"), "decoders"):
        kind = step.text("type")
        if kind == "Metaspace":
            metaspace = _metaspace(step)[0]
            assert isinstance(metaspace, Metaspace)
            space, drops = metaspace.replacement, metaspace.prepend != "never"
        elif kind == "Replace":
            mark = step.view("pattern").text("String")
            if step.text("content") != " " or len(mark) != 1:
                raise step.wrong("content", "a space for one character")
            space = mark
        elif kind == "Strip":
            if step.text("content") != " " or step.integer("stop", 0, 0) != 0:
                raise step.wrong("content", "spaces at the beginning")
            drops = step.integer("start", 0, 1) == 1
        elif kind not in ("ByteLevel", "ByteFallback", "Fuse"):
            raise unknown(step, "decoder", DECODERS)
    return Decoder(space, drops)
