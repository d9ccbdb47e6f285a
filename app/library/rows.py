"""Between rows of the database and the library's records."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from typing import Any, cast

from fireside.app.library.records import Author, Mode, Passage, Provenance, Story
from fireside.app.library.words import clean

STORY = "id, title, mode, head, created, updated, deleted, opening"
PASSAGE = (
    "id, story_id, parent, author, created, model, quant, kernels, isa, sampling, seed, "
    "finish_reason, tokens, tok_s, text"
)
_INT64 = 1 << 63
_SEED_BITS = 4096


def story_of(row: tuple[Any, ...]) -> Story:
    """A story from the columns STORY."""
    number, title, mode, head, created, updated, deleted, opening = row
    return Story(number, title, cast(Mode, mode), head, created, updated, deleted, opening)


def passage_of(row: tuple[Any, ...]) -> Passage:
    """A passage from the columns PASSAGE."""
    number, story_id, parent, author, created, model, quant, kernels, isa = row[:9]
    sampling, seed, finish_reason, tokens, tok_s, text = row[9:]
    provenance = None
    if model is not None:
        provenance = Provenance(
            model=model,
            quant=quant,
            kernels=kernels,
            isa=isa,
            sampling=_settings(sampling),
            seed=_seed(seed),
            finish_reason=finish_reason,
            tokens=tokens,
            tok_s=tok_s,
        )
    return Passage(number, story_id, parent, cast(Author, author), text, created, provenance)


def provenance_row(provenance: Provenance | None) -> tuple[Any, ...]:
    """The columns model ... tok_s. Never refuses a value: a story must not stop for one."""
    if provenance is None:
        return (None,) * 9
    tokens, tok_s = provenance.tokens, provenance.tok_s
    return (
        clean(provenance.model),
        clean(provenance.quant),
        clean(provenance.kernels),
        clean(provenance.isa),
        _settings_text(provenance.sampling),
        _seed_text(provenance.seed),
        None if provenance.finish_reason is None else clean(provenance.finish_reason),
        tokens if tokens is not None and -_INT64 <= tokens < _INT64 else None,
        tok_s if tok_s is not None and math.isfinite(tok_s) else None,
    )


def insert_passage(
    connection: sqlite3.Connection,
    story_id: int,
    parent: int | None,
    author: Author,
    text: str,
    created: float,
    provenance: Provenance | None,
) -> int:
    """Add a passage, not yet indexed; returns its id."""
    row = connection.execute(
        "INSERT INTO passage (story_id, parent, author, text, created, model, quant, kernels,"
        " isa, sampling, seed, finish_reason, tokens, tok_s)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (story_id, parent, author, text, created, *provenance_row(provenance)),
    )
    return cast(int, row.lastrowid)


def _settings_text(sampling: Mapping[str, Any]) -> str:
    try:
        return clean(json.dumps(dict(sampling), ensure_ascii=False, allow_nan=False, default=str))
    except (TypeError, ValueError, RecursionError):
        # NaN, odd keys, loops: keep what can be read rather than raise in the middle of a story.
        return clean(json.dumps({str(k): str(v) for k, v in sampling.items()}, ensure_ascii=False))


def _settings(text: str | None) -> dict[str, Any]:
    try:
        settings = json.loads(text or "{}")
    except ValueError:
        return {}
    return settings if isinstance(settings, dict) else {}


def _seed_text(seed: int | None) -> str | None:
    # Python refuses to spell out numbers of thousands of digits.
    return None if seed is None or seed.bit_length() > _SEED_BITS else str(seed)


def _seed(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
