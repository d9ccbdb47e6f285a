"""Which tokens are guessed before a step, and by whom: a Speculator belongs to one session."""

from __future__ import annotations

from collections.abc import Sequence

from fireside.engine.samplers import Chain
from fireside.engine.speculation.costs import Costs
from fireside.engine.speculation.draft import Draft
from fireside.engine.speculation.lookup import PromptLookup, new_odds


class Speculator:
    """Guesses what comes next; what it learns of times and chances outlives a generation."""

    def __init__(self, lookup: bool = True, draft: Draft | None = None) -> None:
        self._costs = Costs()
        self._odds = new_odds()
        self._looks = lookup
        self._lookup: PromptLookup | None = None
        self._draft = draft
        self._drafting = False  # whether the guess under way is the draft's

    def begin(self, text: Sequence[int], chain: Chain) -> None:
        """A generation begins behind `text`, which draws with `chain`."""
        self._lookup = PromptLookup(text, self._odds) if self._looks else None
        self._drafting = False
        if self._draft:
            self._draft.begin(chain)

    def saw(self, token: int) -> None:
        """The text grew by `token`, guessed or not."""
        if self._lookup:
            self._lookup.saw(token)
        if self._draft:
            self._draft.saw(token)

    def guess(self, text: Sequence[int], room: int) -> list[int]:
        """Up to `room` ids that may follow `text`; none where a plain step is as quick."""
        if self._draft and self._drafting:  # all that came of its last guess is known by now
            self._draft.settle(self._costs)
        self._drafting = False
        if room < 1 or self._costs.due:
            return []
        ids, rate = self._lookup.best(self._costs, room) if self._lookup else ([], 0.0)
        draft = self._draft
        if draft and draft.open() and rate < draft.rate(self._costs):
            ids = draft.guess(text, room, self._costs)
            self._drafting = True
        return ids

    @property
    def measuring(self) -> bool:
        """Whether the next step is to be a single one, so that its time is learnt soon."""
        return self._costs.due

    def tell(self, guessed: int, seconds: float) -> None:
        """A step with so many guessed ids (0 = a plain one) took so long."""
        self._costs.tell(1 + guessed, seconds)
