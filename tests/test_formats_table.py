"""The table of docs/formats.md has something of everything that is registered."""

from __future__ import annotations

from fireside.engine import architectures, blocks, checkpoints
from tests.formats_table import GGUF, HEAD, HUGGING_FACE, Check, Table, committed, parts


def test_the_table_has_everything_that_is_registered() -> None:
    """`pytest --formats-table` writes it anew."""
    rows = committed()
    assert all(len(row) == len(HEAD) for row in rows)
    assert {row[0] for row in rows} == set(checkpoints.names())
    for form in (GGUF, HUGGING_FACE):
        there = {row[1] for row in rows if row[0] == form}
        assert there - {"any"} == set(architectures.names())
    types = {kind for row in rows if row[0] == GGUF for kind in row[3].split(", ")}
    assert types == set(blocks.names())
    assert all(row[-1].endswith(" passed") for row in rows)


def test_outcomes_become_rows() -> None:
    table = Table()
    one, two = (Check("GGUF", "llama", "Llama 2", kind, "a peer") for kind in ("F32", "Q8_0"))
    for check in (one, two, two):
        table.note([("checked", check), ("other", 5)], "passed")
    assert not table.failed()
    assert table.text().endswith("| GGUF | llama | Llama 2 | F32, Q8_0 | a peer | 3 passed |\n")
    table.note([("checked", two)], "skipped")
    assert table.failed() == [two]


def test_what_is_around_the_table_stays() -> None:
    before, table, after = parts("a\n<!-- table: begin -->\nb\n<!-- table: end -->\nc\n")
    assert before + after == "a\n<!-- table: begin -->\n<!-- table: end -->\nc\n"
    assert table == "b\n"
