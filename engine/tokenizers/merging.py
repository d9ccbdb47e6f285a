"""Byte pair encoding's inner loop: neighbours are joined, the best pair first. (Sennrich 2016)"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

SHORT = 24  # symbols; below, looking at all pairs anew is quicker than a heap


def join(
    symbols: list[str],
    rank: Callable[[str], float | None],
    separator: str = "",
    parts: dict[str, tuple[str, str]] | None = None,
) -> list[str]:
    """`symbols` joined as often as `rank` allows.

    rank: left + separator + right -> the order in which pairs are joined, the lowest first, the
    leftmost of equals first; None: they are not. parts: gets, for every pair that could be
    joined, its halves.
    """
    if len(symbols) < SHORT and parts is None:
        return _join_short(symbols, rank, separator)
    return _join_long(symbols, rank, separator, parts)


def _join_short(
    symbols: list[str], get: Callable[[str], float | None], separator: str
) -> list[str]:
    """The best pair is looked for after every joining: for few symbols."""
    symbols = symbols.copy()
    pairs = [get(a + separator + b) for a, b in pairwise(symbols)]
    while True:
        best, at = None, 0
        for i, rank in enumerate(pairs):
            if rank is not None and (best is None or rank < best):
                best, at = rank, i
        if best is None:
            return symbols
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        del pairs[at]
        if at < len(pairs):
            pairs[at] = get(symbols[at] + separator + symbols[at + 1])
        if at:
            pairs[at - 1] = get(symbols[at - 1] + separator + symbols[at])


def _join_long(
    symbols: list[str],
    get: Callable[[str], float | None],
    separator: str,
    parts: dict[str, tuple[str, str]] | None,
) -> list[str]:
    """A heap of the pairs and links between the symbols: n log n."""
    from heapq import heappop, heappush  # a short prompt needs none

    symbols = symbols.copy()  # a joined symbol stands where its first one stood; "": it is gone
    count = len(symbols)
    after = list(range(1, count + 1))
    before = list(range(-1, count - 1))
    candidates: list[tuple[float, int, int, int]] = []  # rank, left, right, length of both

    def consider(left: int, right: int) -> None:
        a, b = symbols[left], symbols[right]
        if (rank := get(a + separator + b)) is not None:
            heappush(candidates, (rank, left, right, len(a) + len(b)))
            if parts is not None:
                parts[a + b] = (a, b)

    for i in range(count - 1):
        consider(i, i + 1)
    while candidates:
        _, left, right, length = heappop(candidates)
        # symbols only grow or vanish: equal length means that neither has changed since
        a, b = symbols[left], symbols[right]
        if not a or not b or len(a) + len(b) != length:
            continue
        symbols[left], symbols[right] = a + b, ""
        following = after[left] = after[right]
        if following < count:
            before[following] = left
            consider(left, following)
        if (preceding := before[left]) >= 0:
            consider(preceding, left)
    return [symbol for symbol in symbols if symbol]
