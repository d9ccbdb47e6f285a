"""Stories as files: Markdown and plain text to read, JSON with the whole tree to keep.

The JSON format, version 1 (an unknown key is an error, one marked ? may be absent):

    {"format": "fireside-story", "version": 1,
     "story": {"title": str, "mode": "story" | "chat", "created": s, "updated"?: s,
               "head": id | null},
     "passages": [{"id": int, "parent": id | null, "author": "writer" | "model", "text": str,
                   "created": s, "provenance"?: {...} | null}, ...]}

Times are Unix seconds; a provenance has the fields of `Provenance`, all of which may be absent.
Passages may come in any order; ids mean something within the file only.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fireside.app.library.errors import LibraryError
from fireside.app.library.interchange import FORMAT, VERSION, parse
from fireside.app.library.library import Library
from fireside.app.library.records import Passage, Story
from fireside.app.library.words import clean

__all__ = ["from_json", "to_json", "to_markdown", "to_text", "write_export"]

_SPEAKERS = {"writer": "You", "model": "Storyteller"}
# What Markdown would take for a heading, a quote, a list, a rule, a fence or code at the start of
# a line. Emphasis within a line is left: writers use it.
_MARK = re.compile(r"^(\s*)(#{1,6}(?=\s|$)|[>+*-](?=\s|$)|[-=_*~`]{3,}|\d{1,9}(?=[.)](?:\s|$)))")


def to_text(story: Story, passages: Sequence[Passage]) -> str:
    """The title and the text of a path as plain text; in a chat each part with its speaker."""
    title = story.display_title
    return f"{title}\n{'=' * len(title)}\n\n{_body(story, passages, _plain_speaker)}\n"


def to_markdown(story: Story, passages: Sequence[Passage]) -> str:
    """The title and the text of a path as Markdown, its line breaks kept."""
    title = re.sub(r"([\\`*_\[\]<>#])", r"\\\1", story.display_title)
    lines = [_markdown_line(line) for line in _body(story, passages, _bold_speaker).splitlines()]
    for index in range(len(lines) - 1):
        if lines[index] and lines[index + 1]:
            lines[index] += "  "  # a line break that is none between paragraphs
    body = "\n".join(lines)
    return f"# {title}\n\n{body}\n"


def to_json(story: Story, passages: Sequence[Passage]) -> str:
    """A story with its whole tree (`Library.passages`) and where each passage came from."""
    document = {
        "format": FORMAT,
        "version": VERSION,
        "story": {
            "title": story.title,
            "mode": story.mode,
            "created": story.created,
            "updated": story.updated,
            "head": story.head,
        },
        "passages": [_passage_object(passage) for passage in passages],
    }
    return clean(json.dumps(document, ensure_ascii=False, indent=2)) + "\n"


def from_json(library: Library, data: str | bytes) -> Story:
    """Add the story of a JSON export to the library, as a new story.

    Raises LibraryError, with the place and what was expected there, for anything else.
    """
    story, passages = parse(data)
    return library.import_story(story, passages)


def write_export(path: Path, text: str, *, overwrite: bool = False) -> None:
    """Write a file that is there whole or not at all; replaces another only with `overwrite`."""
    path = Path(path)
    if overwrite:
        with suppress(OSError, RuntimeError, ValueError):
            path = path.resolve()  # replace what a link points to, not the link
    elif os.path.lexists(path):
        raise _exists(path)
    partial = path.with_name(f".fireside-{secrets.token_hex(6)}.partial")
    try:
        descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(clean(text))
            file.flush()
            os.fsync(file.fileno())
        _put(partial, path, overwrite)
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise _exists(path) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LibraryError(
            f"The story could not be written to {path} ({reason}).",
            "Name another file, or make room on the disk.",
        ) from error
    finally:
        with suppress(OSError, ValueError):
            partial.unlink(missing_ok=True)


def _put(partial: Path, path: Path, overwrite: bool) -> None:
    """Give a finished file its name."""
    if overwrite:
        partial.replace(path)
        return
    try:
        os.link(partial, path)  # unlike a rename, refuses a name that is taken meanwhile
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        if path.exists():
            raise _exists(path) from None
        partial.rename(path)


def _sync_folder(folder: Path) -> None:
    """Make the new name outlast a power cut, where folders can be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _exists(path: Path) -> LibraryError:
    return LibraryError(f"{path} exists already.", "Name another file, or allow to replace it.")


def _body(story: Story, passages: Sequence[Passage], speaker: Callable[[Passage], str]) -> str:
    if story.mode == "chat":
        parts = [f"{speaker(passage)}\n\n{passage.text.strip()}" for passage in passages]
        return "\n\n".join(parts)
    return "".join(passage.text for passage in passages).strip("\n")


def _plain_speaker(passage: Passage) -> str:
    return f"{_SPEAKERS[passage.author]}:"


def _bold_speaker(passage: Passage) -> str:
    return f"**{_SPEAKERS[passage.author]}:**"


def _markdown_line(line: str) -> str:
    line = line.rstrip()
    # Four blanks would make it code.
    indent = len(line) - len(line.lstrip())
    line = line.lstrip() if indent >= 4 or "\t" in line[:indent] else line
    match = _MARK.match(line)
    if match is None:
        return line
    at = match.end() if match[2].isdigit() else match.end(1)
    return f"{line[:at]}\\{line[at:]}"


def _passage_object(passage: Passage) -> dict[str, Any]:
    provenance = None if passage.provenance is None else asdict(passage.provenance)
    return {
        "id": passage.id,
        "parent": passage.parent,
        "author": passage.author,
        "text": passage.text,
        "created": passage.created,
        "provenance": provenance,
    }
