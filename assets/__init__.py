"""What Fireside carries with it: the embedded storyteller, opening lines, sample stories."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent


def storyteller() -> Path:
    """The embedded model, a GGUF file."""
    return HERE / "storyteller" / "storyteller.gguf"


def openings() -> list[str]:
    """Opening lines to begin a story with."""
    text = (HERE / "openings.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]
