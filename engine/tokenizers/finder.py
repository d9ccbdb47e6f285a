"""Finds the tokens in a text that are found whole, before anything is joined."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fireside.engine.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from fireside.engine.checkpoints.bpe import AddedToken

# Unicode's White_Space; Python's own str.strip knows four characters more
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


class Finder:
    """Tokens by their text: the leftmost is found first, and of those the longest."""

    def __init__(self, ids: Mapping[str, int], rules: Mapping[int, AddedToken]) -> None:
        """`rules`: how tokens are found that have rules of their own."""
        self.ids = {text: i for text, i in ids.items() if text}
        self._rules = {i: rules[i] for i in self.ids.values() if i in rules and not rules[i].plain}
        self._pattern = re.compile(f"({alternatives(list(self.ids))})") if self.ids else None

    def __bool__(self) -> bool:
        return bool(self.ids)

    def split(self, text: str) -> list[str | int]:
        """`text` cut at the tokens: stretches of text that are not empty, and ids."""
        if self._pattern is None:
            return [text] if text else []
        if self._rules:
            return self._split_by_rules(text)
        parts: list[str | int] = []
        for i, part in enumerate(self._pattern.split(text)):
            if i % 2:
                parts.append(self.ids[part])
            elif part:
                parts.append(part)
        return parts

    def _split_by_rules(self, text: str) -> list[str | int]:
        """`split`, where white space beside a token or being within a word matters."""
        assert self._pattern is not None
        parts: list[str | int] = []
        done = 0
        for match in self._pattern.finditer(text):
            start, end = match.span()
            if start < done:  # the white space that another token took
                continue
            token = self.ids[match[0]]
            rule = self._rules.get(token)
            beside = text[:start][-1:], text[end : end + 1]
            if rule and rule.single_word and any(map(_in_word, beside)):
                continue
            if rule and rule.lstrip:
                start = max(done, len(text[:start].rstrip(WHITE_SPACE)))
            if rule and rule.rstrip:
                end = len(text) - len(text[end:].lstrip(WHITE_SPACE))
            if start > done:
                parts.append(text[done:start])
            parts.append(token)
            done = end
        if done < len(text):
            parts.append(text[done:])
        return parts


def _in_word(character: str) -> bool:
    """Whether this character (or none) is one of a word."""
    import regex  # its \w is Unicode's: combining marks belong to words

    return regex.match(r"\w", character) is not None


def alternatives(texts: list[str]) -> str:
    """A regular expression for any of `texts`, the longest first; by their first characters.

    Where most begin alike, the engine of `re` then looks at few of them in most places.
    """
    groups: dict[str, list[str]] = {}
    for text in sorted(texts, key=len, reverse=True):
        groups.setdefault(text[0], []).append(text[1:])
    return "|".join(
        f"{re.escape(first)}(?:{'|'.join(map(re.escape, rest))})" for first, rest in groups.items()
    )
