"""The plain values a library hands out: stories, passages and where a passage came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from fireside.app.library.words import title_from

Author = Literal["writer", "model"]
Mode = Literal["story", "chat"]

AUTHORS: tuple[Author, ...] = get_args(Author)
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Provenance:
    """How the model came to write a passage: enough to write it again.

    `finish_reason` stays None while the passage is being written, and for ever when the program
    died in the middle of it. `sampling` holds JSON values only.
    """

    model: str = ""
    quant: str = ""
    kernels: str = ""
    isa: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    finish_reason: str | None = None
    tokens: int | None = None
    tok_s: float | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a story by one author; `parent` is the passage it continues."""

    id: int
    story_id: int
    parent: int | None
    author: Author
    text: str
    created: float  # Unix time in seconds, as all times here
    provenance: Provenance | None

    @property
    def unfinished(self) -> bool:
        """Whether the model is still writing this passage, or was killed while it did."""
        return self.author == "model" and (
            self.provenance is None or self.provenance.finish_reason is None
        )


@dataclass(frozen=True, slots=True)
class Story:
    """A story; `head` is the passage its writer is at, None on an empty page."""

    id: int
    title: str
    mode: Mode
    head: int | None
    created: float
    updated: float
    deleted: float | None
    opening: str  # the first words from the root to the head, on one line

    @property
    def display_title(self) -> str:
        """The title, or the first words of the text where there is none."""
        return self.title or title_from(self.opening)


@dataclass(frozen=True, slots=True)
class StorySummary:
    """A line of the list of stories.

    `snippet` shows where a query was found, `matches` the (start, end) of what to highlight in
    it; without a query it is the opening and nothing is highlighted.
    """

    id: int
    title: str
    mode: Mode
    created: float
    updated: float
    deleted: float | None
    opening: str
    passages: int
    snippet: str
    matches: tuple[tuple[int, int], ...] = ()

    @property
    def display_title(self) -> str:
        """The title, or the first words of the text where there is none."""
        return self.title or title_from(self.opening)
