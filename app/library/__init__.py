"""The story library: what was written, kept in one SQLite file, as it is being written.

`Library` is all that the rest of the application needs; `fireside.app.library.export` writes
stories to files and reads them back.
"""

from __future__ import annotations

from fireside.app.library.errors import LibraryError
from fireside.app.library.library import Library
from fireside.app.library.records import (
    Author,
    Mode,
    Passage,
    Provenance,
    Story,
    StorySummary,
)

__all__ = [
    "Author",
    "Library",
    "LibraryError",
    "Mode",
    "Passage",
    "Provenance",
    "Story",
    "StorySummary",
]
