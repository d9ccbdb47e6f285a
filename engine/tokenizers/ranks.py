"""Ids of pieces, ranks of merges: there are very many, and a short text asks for a few of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, starmap
from operator import gt, lt

from fireside.engine.checkpoints.gguf_strings import Pieces, StringArray
from fireside.engine.checkpoints.types import Numbers, Vocabulary
from fireside.engine.tokenizers.base import first_of_equals, pieces_of

FEW = 20_000  # questions; whoever asks more is better served by a dict
FEW_PIECES = 2_000  # of pieces a dict is sooner made


class Ranks(Mapping[str, int]):
    """Merge -> its first place among `merges`; a dict of them is made when many are asked for."""

    def __init__(self, merges: Sequence[str]) -> None:
        self._merges = merges
        self._find = merges.finder() if isinstance(merges, StringArray) else None
        self._left = FEW
        self._places: dict[str, int] = {}
        if self._find is None:
            self._make()

    def _make(self) -> None:
        self._find = None
        merges = list(self._merges)
        self._places = dict(zip(reversed(merges), range(len(merges) - 1, -1, -1), strict=True))

    def get(self, merge: str, default: None = None) -> int | None:  # type: ignore[override]
        """The rank of a merge, None where there is no such merge."""
        if self._find is None:
            return self._places.get(merge)
        self._left -= 1
        if not self._left:
            self._make()
            return self._places.get(merge)
        return self._find(merge)

    def __getitem__(self, merge: str) -> int:
        rank = self.get(merge)
        if rank is None:
            raise KeyError(merge)
        return rank

    def __iter__(self) -> Iterator[str]:
        return iter(self._merges)

    def __len__(self) -> int:
        return len(self._merges)


class PieceIds:
    """Ids and ranks of the pieces of some types; dicts are made when many are asked for.

    Of equal pieces the first counts. The rank is how late a piece is joined: the one with the
    highest score is the first.
    """

    def __init__(self, vocabulary: Vocabulary, *kinds: int) -> None:
        self._vocabulary, self._kinds = vocabulary, kinds
        pieces = vocabulary.pieces
        self._find = pieces.find if isinstance(pieces, Pieces) else None
        self._left = FEW_PIECES
        self._ids: dict[str, int] = {}
        self._ranks: Mapping[str, float] = self._ids
        if self._find is None:
            self._make()

    def _make(self) -> None:
        self._find = None
        self._ids = ids = first_of_equals(pieces_of(self._vocabulary, *self._kinds))
        ids.pop("", None)
        # Most vocabularies are in the order of their scores: then an id is as good as a rank.
        self._ranks, scores = ids, self._vocabulary.scores
        if not _in_order(ids.values(), scores):
            values = scores.tolist()
            self._ranks = {piece: -values[i] for piece, i in ids.items()}

    def all(self) -> dict[str, int]:
        """Every piece and its id."""
        if self._find is not None:
            self._make()
        return self._ids

    @property
    def id(self) -> Callable[[str], int | None]:
        """A function that tells the id of a piece, None where there is none."""
        return self._ids.get if self._find is None else self._id_of_few

    @property
    def rank(self) -> Callable[[str], float | None]:
        """A function that tells the rank of a piece, None where there is none."""
        return self._ranks.get if self._find is None else self._rank_of_few

    def _id_of_few(self, piece: str) -> int | None:
        self._left -= 1
        if self._find is not None and self._left > 0 and piece:
            found = self._find(piece)
            if found is None or self._vocabulary.types[found] in self._kinds:
                return found
        # many were asked for, or one of another type comes first: there may be others behind it
        return self.all().get(piece)

    def _rank_of_few(self, piece: str) -> float | None:
        found = self._id_of_few(piece)
        # never self._ranks: who asks has ranks of this kind, which may be others, to compare it to
        return None if found is None else -float(self._vocabulary.scores[found])


def _in_order(ids: Iterable[int], scores: Numbers) -> bool:
    """Whether `ids` fall and their scores rise."""
    falling = all(starmap(gt, pairwise(ids)))
    return falling and all(starmap(lt, pairwise(map(scores.__getitem__, ids))))
