"""Which tokens are guessed before a step, and by whom: a Speculator belongs to one session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fireside.engine.speculation.costs import Costs
from fireside.engine.speculation.lookup import PromptLookup, new_odds

Speculation = Literal["lookup", "off"]
SPECULATIONS: tuple[Speculation, ...] = ("lookup", "off")


class Speculator:
    """Guesses what comes next; what it learns of times and chances outlives a generation."""

    def __init__(self) -> None:
        self._costs = Costs()
        self._odds = new_odds()
        self._lookup: PromptLookup | None = None

    def begin(self, text: Sequence[int]) -> None:
        """A generation begins behind `text`."""
        self._lookup = PromptLookup(text, self._odds)

    def saw(self, token: int) -> None:
        """The text grew by `token`, guessed or not."""
        if self._lookup:
            self._lookup.saw(token)

    def guess(self, room: int) -> list[int]:
        """Up to `room` ids that may follow the text; none where a plain step is as quick."""
        if self._lookup is None or room < 1 or self._costs.due:
            return []
        return self._lookup.best(self._costs, room)[0]

    def tell(self, guessed: int, seconds: float) -> None:
        """A step with so many guessed ids (0 = a plain one) took so long."""
        self._costs.tell(1 + guessed, seconds)
