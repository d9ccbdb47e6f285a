"""The table of docs/formats.md: what a test run checked, against what, and how it ended.

A test that holds a file against something from outside says so with the fixture `checked`. A run
with `--formats-table` writes what it saw between two marks of the document.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fireside.engine import checkpoints

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "formats.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEAD = ("format", "architecture", "models", "types", "held against", "checks")
PROPERTY = "checked"
# Packages that a test asks in another Python, which a variable names
ELSEWHERE = {
    "FIRESIDE_TRANSFORMERS_PYTHON": ("transformers", "torch"),
    "FIRESIDE_PEER_PYTHON": ("llama_cpp_python",),
}
HERE = ("gguf",)


# The fixture: (format, architecture, model, type, oracle), see Check
Checked = Callable[[str, str, str, str, str], None]


def format_named(beginning: str) -> str:
    """The registered format whose name begins so."""
    return next(name for name in checkpoints.names() if name.startswith(beginning))


GGUF, LEGACY, LLAMA2C = format_named("GGUF"), format_named("ggml"), format_named("llama2.c")
HUGGING_FACE, PYTORCH, META = map(format_named, ("Hugging Face", "PyTorch", "Meta"))


@dataclass(frozen=True)
class Check:
    """A file of that format, of a model of that architecture and type, held against `oracle`."""

    format: str  # as in the registry of formats
    architecture: str  # as in the registry of architectures; "any": the format of weights alone
    model: str
    type: str  # a block format
    oracle: str

    @property
    def row(self) -> tuple[str, str, str]:
        """What checks of one row of the table have in common."""
        return self.format, self.architecture, self.oracle


@dataclass
class Table:
    """Outcomes of the tests of one run."""

    outcomes: dict[Check, list[str]] = field(default_factory=lambda: defaultdict(list))

    def note(self, properties: list[tuple[str, object]], outcome: str) -> None:
        """A test has ended."""
        for name, value in properties:
            if name == PROPERTY and isinstance(value, Check):
                self.outcomes[value].append(outcome)

    def failed(self) -> list[Check]:
        """Checks that did not pass, every time they were made."""
        return [c for c, ends in self.outcomes.items() if set(ends) != {"passed"}]

    def text(self) -> str:
        """The table in Markdown, with the versions of what files were held against."""
        rows: dict[tuple[str, str, str], list[Check]] = defaultdict(list)
        for check in self.outcomes:
            rows[check.row].append(check)
        lines = [line(HEAD), line(["---"] * len(HEAD))]
        for (form, architecture, oracle), checks in sorted(rows.items()):
            count = sum(len(self.outcomes[check]) for check in checks)
            models, types = (
                ", ".join(dict.fromkeys(getattr(check, name) for check in checks))
                for name in ("model", "type")
            )
            lines.append(line([form, architecture, models, types, oracle, f"{count} passed"]))
        return f"With {', '.join(versions())}:\n\n" + "\n".join(lines) + "\n"


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def versions() -> list[str]:
    """Names and versions of the packages that files are held against."""
    found = [f"{name} {importlib.metadata.version(name)}" for name in HERE]
    for variable, names in ELSEWHERE.items():
        if python := os.environ.get(variable):
            program = f"import importlib.metadata as m; [print(n, m.version(n)) for n in {names!r}]"
            done = subprocess.run(
                [python, "-c", program], capture_output=True, text=True, check=True
            )
            found += done.stdout.splitlines()
    return found


def parts(document: str) -> tuple[str, str, str]:
    """The document before the table, the table, and what is behind it."""
    before, _, rest = document.partition(BEGIN)
    table, _, after = rest.partition(END)
    return before + BEGIN, table, END + after


def committed() -> list[list[str]]:
    """The cells of the table in the document, line by line."""
    _, table, _ = parts(DOCUMENT.read_text())
    lines = [row for row in table.splitlines() if row.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in lines[2:]]
