"""A draft: a small model with the same tokens guesses for a large one (Leviathan et al. 2023).

The draft draws with the large model's own sampler: the same chance at the same place in the text.
So the two agree wherever their probabilities do, not only where a token is the likeliest; a draft
that is the model itself is always right. What it drew is checked like every guess.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from fireside.engine.errors import UnsupportedError
from fireside.engine.hints import TYPE_CHECKING
from fireside.engine.samplers import Chain
from fireside.engine.speculation.costs import Costs, Odds

if TYPE_CHECKING:
    from fireside.engine.model import Model
    from fireside.engine.session import Session

RANKS = 10  # of a drafted token: by the draft's own probability of it
ANY = RANKS  # one more, for tokens that are not drafted yet
CATCH_UP = 8  # tokens; to read more than these is no part of what a guess costs
# What guesses may cost, in plain steps: CREDIT of any text, LOSS of each of its tokens, and what
# guesses that were right have won before, up to SAVINGS.
CREDIT = 2.0
LOSS = 0.01
SAVINGS = 6.0
HOPE = 1.3  # gain that is expected before anything is known
RECENT = 0.9  # of what was seen of its rate, at every new guess


def check(model: Model, draft: Model) -> None:
    """Raise UnsupportedError unless every token is the same in both."""
    theirs, ours = draft.tokenizer, model.tokenizer
    sizes = draft.config.vocab_size, model.config.vocab_size
    if sizes[0] != sizes[1]:
        what = f"it has {sizes[0]:,} tokens, the model {sizes[1]:,}"
    else:
        other = (i for i in range(sizes[0]) if theirs.token_bytes(i) != ours.token_bytes(i))
        first = next(other, None)
        if first is None:
            return
        what = f"token {first} is not the same in both"
    raise UnsupportedError(
        f"{draft.name} cannot guess for {model.name}: {what}",
        "a draft must have the model's own vocabulary",
    )


class Draft:
    """The small model's side of a session: it follows the text, guesses, pays for it."""

    def __init__(self, session: Session, ends: frozenset[int]) -> None:
        self._session = session
        self._ends = ends
        self._chain: Chain | None = None
        self._odds = Odds([0.3 + 0.65 * r / RANKS for r in range(RANKS)] + [0.7])
        self._drafted: deque[tuple[int, int]] = deque()  # (id, rank) not yet seen to come or not
        self._each = 0.0  # seconds of a drafted token, a moving mean
        self._spent = 0.0  # seconds of the guess under way
        self._sent = self._arrived = 0  # tokens of it that are checked; that came true
        self._tokens = self._seconds = 0.0  # of its guesses and their steps, the last ones
        self._purse = CREDIT  # plain steps that it may lose

    def begin(self, chain: Chain) -> None:
        """A generation that draws with `chain` begins."""
        self._chain = chain
        self._drafted.clear()

    def saw(self, token: int) -> None:
        """The text grew by `token`: what was drafted for its place came true or did not."""
        self._purse = min(self._purse + LOSS, SAVINGS)
        if self._drafted:
            drafted, rank = self._drafted.popleft()
            for r in (rank, ANY):
                self._odds.tell(r, drafted == token)
            if drafted == token:
                self._arrived = min(self._arrived + 1, self._sent)
            else:
                self._drafted.clear()

    def open(self) -> bool:
        """Whether it may guess now."""
        return self._chain is not None and self._purse > 0

    def rate(self, costs: Costs) -> float:
        """Tokens a second that it is good for; a little more than plain until that is known."""
        return self._tokens / self._seconds if self._seconds else HOPE / costs.plain

    def guess(self, text: Sequence[int], room: int, costs: Costs) -> list[int]:
        """Up to `room` ids that may follow `text`. Raises Aborted."""
        chain, session = self._chain, self._session
        assert chain is not None
        started = time.perf_counter()
        window, _ = session.window(text)
        logits = session.sync(window)
        if len(window) - session.reused > CATCH_UP:
            started = time.perf_counter()
        most = min(room, max(costs.table()) - 1, session.context - len(window) + 1)
        history = list(text)
        chances, expected = [1.0], 1.0
        self._drafted.clear()
        while len(self._drafted) < most:
            choice = chain.choose(logits, history, len(history))
            if choice.id in self._ends:
                break
            rank = min(int(choice.probability * RANKS), RANKS - 1)
            self._drafted.append((choice.id, rank))
            history.append(choice.id)
            chances.append(chances[-1] * self._odds.chance(rank))
            expected += chances[-1]
            self._spent = time.perf_counter() - started
            count = len(self._drafted)
            self._each = self._spent / count if not self._each else (
                0.9 * self._each + 0.1 * self._spent / count
            )  # fmt: skip
            another = expected + chances[-1] * self._odds.chance(ANY)
            seconds = self._spent + costs.seconds(1 + count)
            more = self._spent + self._each + costs.seconds(2 + count)
            if count == most or another / more <= expected / seconds:
                break
            logits = session.push(choice.id)
        self._spent = time.perf_counter() - started
        self._sent, self._arrived = self._worth(chances, costs), 0
        return history[len(text) : len(text) + self._sent]

    def _worth(self, chances: Sequence[float], costs: Costs) -> int:
        """How many of the drafted tokens to check: their time is spent, only the step's counts."""
        expected, best, count = 0.0, 0.0, 0
        for rows, chance in enumerate(chances, 1):
            expected += chance
            rate = expected / (self._spent + costs.seconds(rows))
            if rate > best:
                best, count = rate, rows - 1
        return count

    def settle(self, costs: Costs) -> None:
        """Its last guess has been checked, in a step whose time is part of the costs by now."""
        tokens, seconds = 1 + self._arrived, self._spent + costs.seconds(1 + self._sent)
        self._tokens = RECENT * self._tokens + tokens
        self._seconds = RECENT * self._seconds + seconds
        self._purse = min(self._purse + tokens - seconds / costs.plain, SAVINGS)
