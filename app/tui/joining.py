"""How typed words join the story: with a space, a line break or nothing between."""

from __future__ import annotations

_CLOSING = frozenset(",.;:!?…)]}»’”%")
_OPENING = frozenset("([{«“‘—–-/")


def join(story: str, words: str) -> str:
    """What to add to `story` so that `words` follow it as a writer would have them.

    White space that the writer typed at either end of `words` decides for itself at the
    beginning and is dropped at the end: a model continues poorly behind a space.
    """
    words = words.rstrip()
    if not story or not words or story[-1].isspace() or words[0].isspace():
        return words.lstrip() if not story else words
    return words if _touch(story, words) else f" {words}"


def _touch(story: str, words: str) -> bool:
    """Whether nothing belongs between the end of the story and the words."""
    last, first = story[-1], words[0]
    if first in _CLOSING or last in _OPENING:
        return True
    if first in "\"'":
        return _is_open(story, first) and (len(words) == 1 or not words[1].isalnum())
    if last in "\"'" and _is_open(story, last):
        return not (last == "'" and len(story) > 1 and story[-2].isalnum())
    return _unspaced(last) and _unspaced(first)


def _is_open(story: str, quote: str) -> bool:
    """Whether a straight quotation mark of the last paragraph still waits for its partner."""
    paragraph = story.rpartition("\n")[2]
    return paragraph.count(quote) % 2 == 1


def _unspaced(character: str) -> bool:
    """Whether it belongs to a script that puts no blanks between words."""
    code = ord(character)
    return (
        0x3000 <= code <= 0x30FF  # punctuation, kana
        or 0x3400 <= code <= 0x9FFF  # ideographs
        or 0xFF00 <= code <= 0xFF65  # full-width forms
        or 0x0E00 <= code <= 0x0EFF  # Thai, Lao
        or 0x20000 <= code <= 0x3FFFF
    )
