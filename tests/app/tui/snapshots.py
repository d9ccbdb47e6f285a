"""Pictures of the application, compared by what a person would see.

`assert_snapshot(app, "name")` compares a screenshot with `tests/snapshots/name.svg` by its cells:
text, colours and weights. Ids, fonts and the order of style rules may change between releases of
Textual without a word.

    FIRESIDE_UPDATE_SNAPSHOTS=1 pytest ...     writes the pictures anew; look at them before commit

On a mismatch `tests/snapshots/report/` receives the picture as it is now and a text diff.
"""

from __future__ import annotations

import difflib
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from textual.app import App

SNAPSHOTS = Path(__file__).parents[2] / "snapshots"
REPORT = SNAPSHOTS / "report"

# Rich draws a cell 12.2 units wide and 24.4 high.
_CELL, _ROW = 12.2, 24.4


def normalise(svg: str) -> str:
    """Take out the ids that differ from run to run, and what nobody sees."""
    svg = re.sub(r"terminal-\d+", "terminal", svg)
    svg = re.sub(r"\s*@font-face \{[^}]*\}", "", svg)
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def readable(svg: str) -> list[str]:
    """Return the picture as text: each row of words, and under it the runs of equal looks."""
    lines = []
    for number, cells in enumerate(_grid(svg)):
        lines.append(f"{number:3}|" + "".join(character for character, _ in cells).rstrip())
        start = 0
        for column in range(1, len(cells) + 1):
            if column == len(cells) or cells[column][1] != cells[start][1]:
                lines.append(f"     {start}-{column}: {cells[start][1]}")
                start = column
    return lines


def screen_text(svg: str) -> list[str]:
    """Return the rows of a picture as plain text: enough for most tests, and easier to read."""
    return ["".join(character for character, _ in cells).rstrip() for cells in _grid(svg)]


def _grid(svg: str) -> list[list[tuple[str, str]]]:
    """Return rows of cells, each a character ("" behind a wide one) and what it looks like."""
    styles = dict(re.findall(r"\.terminal-\d*-?(r\d+)\s*\{([^}]*)\}", svg))
    words: dict[tuple[int, int], tuple[str, str]] = {}
    backgrounds: dict[tuple[int, int], str] = {}
    for element in ElementTree.fromstring(svg).iter():
        tag = element.tag.rpartition("}")[2]
        x = round(float(element.get("x", "0")) / _CELL)
        y = float(element.get("y", "0")) / _ROW
        if tag == "text" and (name := element.get("class", "").rpartition("-")[2]) in styles:
            for character in "".join(element.itertext()):
                if not character.isspace():
                    words[int(y), x] = (character, _look(styles[name]))
                for behind in range(1, cell_len(character)):
                    words[int(y), x + behind] = ("", _look(styles[name]))
                x += cell_len(character)
        elif tag == "rect" and element.get("shape-rendering") == "crispEdges":
            for cell in range(x, x + round(float(element.get("width", "0")) / _CELL)):
                backgrounds[round(y), cell] = element.get("fill", "")
    places = [*words, *backgrounds]
    height = max((row for row, _ in places), default=-1) + 1
    width = max((column for _, column in places), default=-1) + 1
    rows = []
    for row in range(height):
        cells: list[tuple[str, str]] = []
        look = ""
        for column in range(width):
            character, own = words.get((row, column), (" ", look))
            look = look if character == " " else own
            cells.append(
                (character, f"{look} on {backgrounds.get((row, column), 'nothing')}".strip())
            )
        rows.append(cells)
    return rows


def _look(rule: str) -> str:
    """Write a style rule without the words that say nothing: "bold #e0e0e0"."""
    parts = (part.strip() for part in rule.split(";"))
    return " ".join(sorted(part.rpartition(":")[2].strip() for part in parts if part))


def assert_snapshot(app: App[Any], name: str) -> None:
    """Compare what the application shows with the stored picture of that name."""
    actual = normalise(app.export_screenshot(title=name))
    stored = SNAPSHOTS / f"{name}.svg"
    if os.environ.get("FIRESIDE_UPDATE_SNAPSHOTS"):
        SNAPSHOTS.mkdir(parents=True, exist_ok=True)
        if not stored.exists() or readable(stored.read_text("utf-8")) != readable(actual):
            stored.write_text(actual, "utf-8")
        return
    if not stored.exists():
        raise AssertionError(f"there is no {stored.name}; FIRESIDE_UPDATE_SNAPSHOTS=1 makes it")
    expected = stored.read_text("utf-8")
    difference = list(
        difflib.unified_diff(readable(expected), readable(actual), "stored", "now", lineterm="")
    )
    if difference:
        REPORT.mkdir(parents=True, exist_ok=True)
        (REPORT / f"{name}.svg").write_text(actual, "utf-8")
        (REPORT / f"{name}.diff").write_text("\n".join(difference) + "\n", "utf-8")
        shown = "\n".join(difference[:40])
        raise AssertionError(f"{name} looks different (see {REPORT / name}.svg):\n{shown}")
