"""Ranks of merges: a vocabulary has hundreds of thousands, a short text asks for a few of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fireside.engine.checkpoints.gguf_header import StringArray

FEW = 20_000  # questions; whoever asks more is better served by a dict


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
