"""Prompt lookup: what a text has said before is guessed to come again (Saxena 2023).

A guess costs a step of several rows instead of one, and pays where it is right. It never changes a
story: every guessed token is checked against what the sampler draws from the very same logits,
which do not depend on how many rows a step had. So speed alone decides when to guess.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM = 3  # tokens that must have stood together before
LONGEST = 7  # tokens guessed at once
TRIAL = 6  # guesses before a verdict
REST = 48  # tokens without guesses after a bad verdict, doubled every time
WORTH = 1.1  # gain below which guessing stops


class PromptLookup:
    """Guesses what follows a text that grows, and watches whether that pays."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}  # n-gram -> index of what followed it last
        self._indexed = 0
        self._watch = Watch()

    def guess(self, text: Sequence[int], room: int) -> list[int]:
        """Up to `room` ids that may follow `text`; none where it would not pay."""
        for end in range(max(self._indexed, NGRAM), len(text)):
            self._after[tuple(text[end - NGRAM : end])] = end
        self._indexed = max(self._indexed, len(text))
        at = self._after.get(tuple(text[-NGRAM:]))
        if at is None or not self._watch.open():
            return []
        return list(text[at : at + min(LONGEST, room)])

    def tell(self, guessed: int, accepted: int, seconds: float) -> None:
        """How a step went: rows guessed (0 = a plain step), how many were right, its time."""
        self._watch.tell(guessed, accepted, seconds)


class Watch:
    """Compares time a token with and without guesses; resting longer after each bad verdict."""

    def __init__(self) -> None:
        self._plain = 0.0  # seconds of a plain step, a moving mean
        self._tokens = self._seconds = 0.0  # of the guesses on trial
        self._guesses = 0
        self._resting = 4  # plain steps first, to have something to compare with
        self._rest = REST

    def open(self) -> bool:
        """Whether to guess now."""
        return self._resting <= 0

    def tell(self, guessed: int, accepted: int, seconds: float) -> None:
        """See PromptLookup.tell."""
        if not guessed:
            self._plain = seconds if not self._plain else 0.8 * self._plain + 0.2 * seconds
            self._resting -= 1
            return
        self._guesses += 1
        self._tokens += 1 + accepted
        self._seconds += seconds
        if self._guesses < TRIAL:
            return
        gain = self._tokens * self._plain / self._seconds if self._seconds else 0.0
        if gain < WORTH:
            self._resting, self._rest = self._rest, min(2 * self._rest, 4096)
        else:
            self._rest = REST
        self._guesses, self._tokens, self._seconds = 0, 0.0, 0.0
