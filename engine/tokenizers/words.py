"""Where a text can be cut without a change to how its characters are joined.

A joined symbol is a piece, so it lies across two characters only where some piece holds the two
side by side. Between others nothing is ever joined: the words there can be looked up alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def words_of(pieces: Iterable[str], space: str) -> Callable[[str], list[str]]:
    """A function that cuts a text into words; joined they are the text.

    It cuts behind a character that is no `space` and before one that is, unless some piece has
    the two side by side. pieces: everything that may come of joining.
    """
    crossing = re.compile(f"([^{re.escape(space)}]){re.escape(space)}", re.DOTALL)
    sticky: set[str] = set()
    for piece in pieces:
        if space in piece[1:]:  # most begin with one, and have no other
            sticky.update(crossing.findall(piece))
    s = re.escape(space)
    if not sticky:
        return re.compile(f"{s}*[^{s}]+|{s}+", re.DOTALL).findall
    held = "".join(map(re.escape, sorted(sticky)))
    return re.compile(f"(?:{s}*[^{s}]+|{s}+)(?:(?<=[{held}]){s}+[^{s}]*)*", re.DOTALL).findall
