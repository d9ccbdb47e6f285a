"""What Fireside carries with it: the embedded storyteller, opening lines, sample stories."""

from __future__ import annotations

from pathlib import Path

from fireside.engine.records import record

HERE = Path(__file__).parent


@record
class SampleStory:
    """A short story that people wrote for Fireside; paragraphs are parted by an empty line."""

    title: str
    text: str


def storyteller() -> Path:
    """The embedded model, a GGUF file."""
    return HERE / "storyteller" / "storyteller.gguf"


def openings() -> list[str]:
    """Opening lines to begin a story with."""
    text = (HERE / "openings.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def stories() -> list[SampleStory]:
    """Short stories to read, by title. In a file the title is the first line."""
    found = []
    for path in sorted((HERE / "stories").glob("*.txt")):
        title, _, text = path.read_text(encoding="utf-8").partition("\n")
        found.append(SampleStory(title.strip(), text.strip()))
    return found
