"""Prompt lookup: what a text has said before is guessed to come again (Saxena 2023).

The longest end of the text that stood in it before is looked for, and what followed it there is the
guess. Whether it would have been right is noted for every token, guessed or not, by the length of
what the two places share: so it costs no wrong guess to learn that a text does not repeat itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from fireside.engine.speculation.costs import Costs, Odds

ENDS = (8, 4, 2, 1)  # tokens of the ends that are looked up, longest first
LONGEST = 16  # shared tokens that count as one rank with more
HISTORY = 16384  # tokens of a longer text that are looked through, the last ones
WORTH = 1.04  # gain below which a plain step is taken


def new_odds() -> Odds:
    """What is expected of a text nothing is known of: the longer the shared end, the likelier."""
    return Odds([shared / (shared + 4) for shared in range(LONGEST + 1)])


class PromptLookup:
    """An index of one text that grows, and where in it the last words stood before."""

    def __init__(self, text: Sequence[int], odds: Odds) -> None:
        self._text = list(text[-HISTORY:])
        self._odds = odds
        self._after: dict[int, dict[tuple[int, ...], int]] = {}  # end -> what followed it last
        last = max(len(self._text) - 1, 0)  # what follows the very last end is not known yet
        for n in ENDS:
            ends = zip(*(islice(self._text, i, last) for i in range(n)), strict=False)
            self._after[n] = dict(zip(ends, range(n, last + 1), strict=False))
        self._at = 0  # index of what followed there; 0: the end is new to the text
        self._shared = 0
        self._find()

    def saw(self, token: int) -> None:
        """The text grew by `token`."""
        if self._at:
            right = self._text[self._at] == token
            self._odds.tell(self._shared, right)
            self._at = self._at + 1 if right else 0
            self._shared = min(self._shared + 1, LONGEST) if right else 0
        self._text.append(token)
        self._find()

    def best(self, costs: Costs, room: int) -> tuple[list[int], float]:
        """(up to `room` ids that may come next, the tokens a second that they promise).

        None of them and 0.0 where a plain step promises as much.
        """
        if not self._at:
            return [], 0.0
        table, chance, expected = costs.table(), 1.0, 1.0
        count, best = 0, WORTH / costs.plain
        for rows in range(2, min(max(table), room + 1) + 1):
            chance *= self._odds.chance(min(self._shared + rows - 2, LONGEST))
            expected += chance
            if rows in table and expected / table[rows] > best:
                count, best = rows - 1, expected / table[rows]
        return (self._continuation(count), best) if count else ([], 0.0)

    def _continuation(self, count: int) -> list[int]:
        """What followed; where that reaches the end of the text, it goes round."""
        followed = self._text[self._at : self._at + count]
        while len(followed) < count:
            followed += followed[: count - len(followed)]
        return followed

    def _find(self) -> None:
        """Note the ends of the text as it is, and look where the longest of them stood before."""
        text, here = self._text, len(self._text)
        found = 0
        for n in ENDS:
            if n <= here:
                end = tuple(text[-n:])
                found = found or self._after[n].get(end, 0)
                self._after[n][end] = here
        if self._shared >= ENDS[0] or found == self._at:
            return  # it goes on as it did there
        shared = self._common(found)
        if shared >= self._shared:
            self._at, self._shared = found, shared

    def _common(self, at: int) -> int:
        """How many tokens before `at` are those at the end of the text, LONGEST at most."""
        text, shared = self._text, 0
        while shared < min(at, LONGEST) and text[at - 1 - shared] == text[-1 - shared]:
            shared += 1
        return shared
