"""Normalisers and pre-tokenizers: what checkpoints/bpe.py describes, as functions.

Regular expressions need Unicode's categories, so they are those of the `regex` package, which is
imported only here and only where a vocabulary asks for it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from fireside.engine.checkpoints.bpe import (
    Bytes,
    Lowercase,
    Metaspace,
    Normalize,
    Normalizer,
    PrefixSpace,
    Prepend,
    PreTokenizer,
    Replace,
    Split,
    Strip,
)
from fireside.engine.errors import CheckpointError
from fireside.engine.tokenizers.finder import WHITE_SPACE

if TYPE_CHECKING:
    import regex

TIMEOUT = 5.0  # seconds that a pattern may take for a text, and
CHARACTERS_PER_SECOND = 100_000  # what it may take beyond, of a long one
MAX_PATTERN = 1 << 16  # characters

Cut = Callable[[Sequence[str], bool], list[str]]
"""Words -> words; the flag tells whether the first is the beginning of the whole text."""


def _byte_characters() -> str:
    """The characters that stand for the bytes 0 to 255: itself where a byte has a visible one."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(b if b in visible else next(others)) for b in range(256))


CHARACTERS = _byte_characters()
BYTE_OF = {character: byte for byte, character in enumerate(CHARACTERS)}


def spell(text: str) -> str:
    """The UTF-8 bytes of `text`, each as the character that stands for it."""
    return text.encode().decode("latin-1").translate(_SPELLING)


_SPELLING = {byte: character for byte, character in enumerate(CHARACTERS) if byte != ord(character)}


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """`pattern`, compiled; CheckpointError where it is not a regular expression."""
    import regex

    if len(pattern) > MAX_PATTERN:
        raise CheckpointError(f"a regular expression of {len(pattern):,} characters")
    try:
        # the engine of Hugging Face's tokenizers has ^ and $ at every line
        return regex.compile(pattern, regex.MULTILINE)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise CheckpointError(
            f"the tokenizer's regular expression {pattern[:40]!r} cannot be used: {error}"
        ) from None


def _patience(text: str) -> float:
    return TIMEOUT + len(text) / CHARACTERS_PER_SECOND


def _too_slow(pattern: str) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer's regular expression {pattern[:40]!r} takes too long",
        "the tokenizer's file is damaged or not to be trusted",
    )


# -- normalisers


def compile_normalizers(steps: Sequence[Normalizer]) -> Callable[[str], str]:
    """One function that does all of `steps`."""
    functions = [_normalizer(step) for step in steps]

    def normalise(text: str) -> str:
        for function in functions:
            text = function(text)
        return text

    return normalise


def _normalizer(step: Normalizer) -> Callable[[str], str]:
    if isinstance(step, Normalize):
        return partial(unicodedata.normalize, step.form)
    if isinstance(step, Lowercase):
        return _lower
    if isinstance(step, Prepend):
        return partial(_prepend, step.text)
    if isinstance(step, Replace):
        return _replacer(step)
    return partial(_strip, step)


def _prepend(prefix: str, text: str) -> str:
    return prefix + text if text else text


def _strip(step: Strip, text: str) -> str:
    text = text.lstrip(WHITE_SPACE) if step.left else text
    return text.rstrip(WHITE_SPACE) if step.right else text


def _lower(text: str) -> str:
    """Each character by itself: a sigma at the end of a word is none of its own."""
    return text.lower() if text.isascii() else "".join(map(str.lower, text))


def _replacer(step: Replace) -> Callable[[str], str]:
    pattern = compile_pattern(step.pattern)

    def replace(text: str) -> str:
        try:
            return str(pattern.sub(lambda _: step.content, text, timeout=_patience(text)))
        except TimeoutError:
            raise _too_slow(step.pattern) from None

    return replace


# -- pre-tokenizers


def compile_steps(steps: Sequence[PreTokenizer]) -> Cut:
    """One function that does all of `steps`."""
    functions = [_step(step) for step in steps]

    def cut(words: Sequence[str], first: bool) -> list[str]:
        words = list(words)
        for function in functions:
            words = function(words, first)
        return words

    return cut


def _step(step: PreTokenizer) -> Cut:
    if isinstance(step, Split):
        return _splitter(step)
    if isinstance(step, Metaspace):
        return partial(_metaspace, step)
    if isinstance(step, PrefixSpace):
        return _prefix_space
    assert isinstance(step, Bytes)
    return lambda words, first: [spell(word) for word in words]


def _prefix_space(words: Sequence[str], first: bool) -> list[str]:
    return [word if word.startswith(" ") else " " + word for word in words]


def _metaspace(step: Metaspace, words: Sequence[str], first: bool) -> list[str]:
    mark = step.replacement
    done: list[str] = []
    for i, word in enumerate(words):
        word = word.replace(" ", mark)
        wanted = step.prepend == "always" or (step.prepend == "first" and first and i == 0)
        if wanted and not word.startswith(mark):
            word = mark + word
        if not step.split:
            done.append(word)
            continue
        head, *rest = word.split(mark)
        done += ([head] if head else []) + [mark + part for part in rest]
    return done


def _splitter(step: Split) -> Cut:
    pattern = compile_pattern(step.pattern)
    simple = step.behavior == "isolated" and pattern.groups == 0

    def cut(words: Sequence[str], first: bool) -> list[str]:
        done: list[str] = []
        try:
            for word in words:
                if simple:  # most patterns leave no gaps, and then what they found is all there is
                    found: list[str] = pattern.findall(word, timeout=_patience(word))
                    if sum(map(len, found)) == len(word) and "" not in found:
                        done += found
                        continue
                done += _split(step, pattern, word)
        except TimeoutError:
            raise _too_slow(step.pattern) from None
        return done

    return cut


def _split(step: Split, pattern: regex.Pattern[str], word: str) -> list[str]:
    """The parts of one word, matches and gaps treated as `step` says."""
    parts: list[tuple[str, bool]] = []  # and whether it is a match
    end = 0
    for match in pattern.finditer(word, timeout=_patience(word)):
        start, stop = match.span()
        if start > end:
            parts.append((word[end:start], step.invert))
        parts.append((word[start:stop], not step.invert))
        end = stop
    if end < len(word):
        parts.append((word[end:], step.invert))
    if step.behavior == "removed":
        parts = [(part, False) for part, is_match in parts if not is_match]
    elif step.behavior == "contiguous":
        parts = _joined(parts, lambda is_match, before: is_match == before)
    elif step.behavior != "isolated":
        backwards = step.behavior == "merged_with_next"
        ordered = parts[::-1] if backwards else parts
        parts = _joined(ordered, lambda is_match, before: is_match and before is False, backwards)
    return [part for part, _ in parts if part]


def _joined(
    parts: list[tuple[str, bool]],
    goes_on: Callable[[bool, bool | None], bool],
    backwards: bool = False,
) -> list[tuple[str, bool]]:
    """The parts, each joined with the one before it where `goes_on` says so.

    backwards: they come last first, and "before" is behind.
    """
    done: list[tuple[str, bool]] = []
    before: bool | None = None
    for part, is_match in parts:
        if goes_on(is_match, before):
            last = done.pop()[0]
            part = part + last if backwards else last + part
        done.append((part, is_match))
        before = is_match
    return done[::-1] if backwards else done
