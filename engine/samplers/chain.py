"""The sampler chain: penalties, top-k, typical-p, top-p, min-p, temperature, draw.

Candidates are two arrays of equal length, ids (int64) and logits (float64): by id, or most likely
first once a stage has sorted them; ties go to the lower id. A stage returns the candidates it
keeps, never none. Sums are float64, so a choice does not hang on the last bit of a float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from fireside.engine.arrays import np
from fireside.engine.errors import not_finite
from fireside.engine.hints import TYPE_CHECKING, TypeAlias
from fireside.engine.records import record
from fireside.engine.samplers.parameters import Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

LogitsRow: TypeAlias = "NDArray[np.float32] | memoryview[float]"  # [vocab], float32

Logits: TypeAlias = "NDArray[np.float64]"
Ids: TypeAlias = "NDArray[np.int64]"


@record
class Candidates:
    """Tokens still in the race; `ranked` = sorted, most likely first, else by id.

    `beside` is the weight exp(logit - largest logit) of tokens set aside unsorted because no stage
    will keep them: they count where a stage asks for a share of the whole.
    """

    ids: Ids
    logits: Logits
    ranked: bool = False
    beside: float = 0.0

    def sorted(self) -> Candidates:
        """The same, most likely first, ties by id."""
        if self.ranked:
            return self
        order = np.argsort(-self.logits, kind="stable")
        return Candidates(self.ids[order], self.logits[order], True, self.beside)

    def first(self, count: int) -> Candidates:
        """The first `count`, at least one."""
        count = max(count, 1)
        return Candidates(self.ids[:count], self.logits[:count], self.ranked)


@record
class Choice:
    """A drawn token; probabilities are the model's own, before any sampler."""

    id: int
    probability: float
    alternatives: tuple[tuple[int, float], ...]  # (id, probability), most likely first


def softmax(logits: Logits) -> Logits:
    """exp(x - max) / sum, [n] -> [n]."""
    weights = np.exp(logits - logits.max())
    shares: Logits = weights / weights.sum()
    return shares


def penalise(logits: Logits, recent: Sequence[int], s: Sampling) -> None:
    """Repetition, presence and frequency penalties, in place; `recent` may repeat ids."""
    if not recent:
        return
    counts = Counter(recent)
    ids = np.fromiter(counts.keys(), np.int64, len(counts))
    times = np.fromiter(counts.values(), np.float64, len(counts))
    x = logits[ids]
    if s.repetition_penalty != 1.0:
        if s.penalty_form == "divide":
            x = np.where(x > 0, x / s.repetition_penalty, x * s.repetition_penalty)
        else:
            x = x * s.repetition_penalty**times
    logits[ids] = x - s.presence_penalty - s.frequency_penalty * times


def top_k(c: Candidates, s: Sampling) -> Candidates:
    """Keep the k most likely."""
    if s.top_k <= 0 or s.top_k >= len(c.ids):
        return c
    if not c.ranked:  # all that reach the k-th largest logit, so that ties are settled by id
        kth = np.partition(c.logits, -s.top_k)[-s.top_k]
        kept = c.logits >= kth
        c = Candidates(c.ids[kept], c.logits[kept]).sorted()
    return c.first(s.top_k)


def typical_p(c: Candidates, s: Sampling) -> Candidates:
    """Keep those whose surprise is nearest the expected one, up to this share."""
    if s.typical_p >= 1.0:
        return c
    p = softmax(c.logits)
    surprise = -np.log(np.maximum(p, 1e-300))
    distance = np.abs(surprise - (p * surprise).sum())
    order = np.lexsort((c.ids, distance))
    count = int(np.searchsorted(np.cumsum(p[order]), s.typical_p)) + 1
    kept = np.sort(order[:count])  # the order the candidates came in
    return Candidates(c.ids[kept], c.logits[kept], c.ranked)


def top_p(c: Candidates, s: Sampling) -> Candidates:
    """Keep the fewest most likely whose shares reach top_p."""
    if s.top_p >= 1.0:
        return c
    c = c.sorted()
    weights = np.exp(c.logits - c.logits[0])
    reached = np.cumsum(weights) / (weights.sum() + c.beside)
    return c.first(int(np.searchsorted(reached, s.top_p)) + 1)


def min_p(c: Candidates, s: Sampling) -> Candidates:
    """Keep those at least min_p times as likely as the most likely."""
    if s.min_p <= 0.0:
        return c
    kept = c.logits >= c.logits.max() + np.log(s.min_p)
    return Candidates(c.ids[kept], c.logits[kept], c.ranked)


STAGES: tuple[tuple[str, Callable[[Candidates, Sampling], Candidates]], ...] = (
    ("top-k", top_k),
    ("typical-p", typical_p),
    ("top-p", top_p),
    ("min-p", min_p),
)
"""After the penalties and before the temperature, in this order (llama.cpp's)."""


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) from (seed, position): SplitMix64's mixer (Steele et al. 2014)."""
    mask = 2**64 - 1
    z = (seed + (position + 1) * 0x9E3779B97F4A7C15) & mask
    for _ in range(2):  # twice: neighbouring seeds must not give neighbouring stories
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        z ^= z >> 31
        z = (z + 0x9E3779B97F4A7C15) & mask
    return (z >> 11) / 2**53


class Chain:
    """A Sampling made ready to draw; the seed is fixed here if it was left open."""

    def __init__(self, sampling: Sampling, seed: int) -> None:
        self.sampling = sampling
        self.seed = seed

    def penalised(self, logits: NDArray[np.float32], history: Sequence[int]) -> Logits:
        """A float64 copy of logits [vocab] after the penalties; history = all ids so far."""
        values = logits.astype(np.float64)
        penalise(values, self.recent(history), self.sampling)
        return values

    def recent(self, history: Sequence[int]) -> Sequence[int]:
        """The ids that the penalties look at; none where there are no penalties."""
        s = self.sampling
        if s.repetition_penalty == 1.0 and not s.presence_penalty and not s.frequency_penalty:
            return ()
        return history[-s.repetition_window :] if s.repetition_window else history

    def survivors(self, values: Logits) -> tuple[Ids, Logits]:
        """Ids and probabilities of what the stages leave of penalised logits [vocab]."""
        s = self.sampling
        c = set_aside(Candidates(np.arange(len(values), dtype=np.int64), values), s)
        for _, stage in STAGES:
            c = stage(c, s)
        return c.ids, softmax(c.logits / s.temperature)

    def choose(
        self,
        row: LogitsRow,
        history: Sequence[int],
        position: int,
        alternatives: int = 0,
    ) -> Choice:
        """Draw the token at `position` of the text."""
        logits = np.asarray(row)
        if not np.isfinite(logits).all():
            raise not_finite()
        values = self.penalised(logits, history)
        if self.sampling.temperature == 0.0:
            chosen = int(values.argmax())
        else:
            ids, p = self.survivors(values)
            index = np.searchsorted(np.cumsum(p), uniform(self.seed, position), side="right")
            chosen = int(ids[min(int(index), len(ids) - 1)])
        return describe(logits, chosen, alternatives)


def set_aside(c: Candidates, s: Sampling) -> Candidates:
    """Before top-p has to sort: put aside what min-p will drop anyway.

    Both keep a run of the most likely, so their order does not matter as long as top-p knows the
    weight of the whole. Without min-p, what all together weighs less than 1e-12 goes aside.
    """
    if s.top_p >= 1.0 or s.top_k > 0 or s.typical_p < 1.0:
        return c
    x = c.logits - c.logits.max()
    kept = x >= (np.log(s.min_p) if s.min_p > 0 else -27.6 - np.log(len(x)))  # e^-27.6 = 1e-12
    return Candidates(c.ids[kept], c.logits[kept], False, float(np.exp(x[~kept]).sum()))


def describe(logits: NDArray[np.float32], chosen: int, alternatives: int) -> Choice:
    """The model's own probability of `chosen` and its `alternatives` most likely tokens."""
    x = logits.astype(np.float64)
    x -= x.max()
    weights = np.exp(x)
    total = weights.sum()
    best: tuple[tuple[int, float], ...] = ()
    if alternatives > 0:
        count = min(alternatives, len(x))
        top = np.flatnonzero(x >= np.partition(x, -count)[-count])  # ties are settled by id
        top = top[np.argsort(-x[top], kind="stable")][:count]
        best = tuple((int(i), float(weights[i] / total)) for i in top)
    return Choice(chosen, float(weights[chosen] / total), best)
