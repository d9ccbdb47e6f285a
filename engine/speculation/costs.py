"""What decides how much to guess: the time of a step by its rows, the chance that guesses hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

ROWS = (2, 3, 4, 6, 8, 11, 16, 24, 32)
"""Rows that a step with guesses may have: few sizes, so that each is soon known."""
SAMPLES = 5  # of a size; their median counts, so that a hiccup does not
FIRST = 4  # plain steps before the first guess
FRESH = 64  # steps after which a plain one is measured again
FORGOTTEN = 512  # steps after which a size counts as never measured
UNKNOWN = 0.1  # of a plain step for each further row, before anything is known
MEMORY = 0.96  # of what was seen of a chance, at every new observation
PRIOR = 2.0  # observations that a first estimate weighs


class Costs:
    """Seconds of a step by its number of rows, learnt from the steps themselves."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[float]] = {1: deque(maxlen=SAMPLES)}
        self._measured: dict[int, int] = {1: 0}  # rows -> the step it was last measured in
        self._now = 0
        self._table: dict[int, float] = {}
        self._known: list[tuple[int, float]] = []  # (rows, seconds) behind the table

    def tell(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        self._now += 1
        if rows not in self._samples:
            self._samples[rows] = deque(maxlen=SAMPLES)
        self._samples[rows].append(seconds)
        self._measured[rows] = self._now
        self._table = {}

    @property
    def due(self) -> bool:
        """Whether the next step has to be a plain one, because its time is not known."""
        return len(self._samples[1]) < FIRST or self._now - self._measured[1] > FRESH

    @property
    def plain(self) -> float:
        """Seconds of a step without guesses; not while the first is due.

        It is no slower than one with guesses: where it seems so, the machine was busy meanwhile.
        """
        return min(_middle(samples) for samples in self._samples.values())

    def table(self) -> dict[int, float]:
        """Seconds by rows, for those of ROWS that may be tried: at most twice what is known."""
        if not self._table:
            for rows in [r for r in self._samples if r > 1]:
                if self._now - self._measured[rows] > FORGOTTEN:
                    del self._samples[rows]
            known = [(r, _middle(s)) for r, s in sorted(self._samples.items())]
            known[0] = (1, self.plain)
            most = max(4, 2 * known[-1][0])
            self._known = known
            self._table = {rows: _between(known, rows) for rows in ROWS if rows <= most}
        return self._table

    def seconds(self, rows: int) -> float:
        """Seconds of a step of any number of rows."""
        self.table()
        return _between(self._known, rows)


def _middle(samples: Collection[float]) -> float:
    """Their median, the lower one of two."""
    return sorted(samples)[(len(samples) - 1) // 2]


def _between(known: Sequence[tuple[int, float]], rows: int) -> float:
    """Seconds of a step of `rows`, on straight lines through the known ones."""
    first, (last, at_last) = known[0][1], known[-1]
    if rows >= last:
        each = (at_last - first) / (last - 1) if last > 1 else UNKNOWN * first
        return at_last + max(each, 0.0) * (rows - last)
    above = next(i for i, (r, _) in enumerate(known) if r > rows)
    (r0, s0), (r1, s1) = known[above - 1], known[above]
    return s0 + (s1 - s0) * (rows - r0) / (r1 - r0)


class Odds:
    """How often guesses were right, by a rank of how good their reason was; the last few count."""

    def __init__(self, first: Sequence[float]) -> None:
        self._right = [PRIOR * chance for chance in first]
        self._seen = [PRIOR] * len(first)

    def tell(self, rank: int, right: bool) -> None:
        """A guess of this rank was right, or was not."""
        self._seen[rank] = MEMORY * self._seen[rank] + 1.0
        self._right[rank] = MEMORY * self._right[rank] + right

    def chance(self, rank: int) -> float:
        """The share that was right, 0 to 1."""
        return self._right[rank] / self._seen[rank]
