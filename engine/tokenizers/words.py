"""Where a text can be cut without a change to how its characters are joined.

A joined symbol is a piece, so it lies across two characters only where some piece holds the two
side by side. Between others nothing is ever joined: the words there can be looked up alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

NOWHERE = "\ud800"  # half a character: UTF-8 cannot hold it


def words_of(pieces: Iterable[str], space: str) -> Callable[[str], list[str]]:
    """A function that cuts a text into words; joined they are the text.

    It cuts behind a character that is no `space` and before one that is, unless some piece has
    the two side by side. pieces: everything that may come of joining.
    """
    # all pieces as one text, a character before each that is in no text
    runs = NOWHERE.join(["", *pieces]).split(space)[:-1]
    sticky = {run[-1] for run in runs if run} - {NOWHERE}
    s = re.escape(space)
    if not sticky:
        return re.compile(f"{s}*[^{s}]+|{s}+", re.DOTALL).findall
    held = "".join(map(re.escape, sorted(sticky)))
    return re.compile(f"(?:{s}*[^{s}]+|{s}+)(?:(?<=[{held}]){s}+[^{s}]*)*", re.DOTALL).findall
