"""A command line that is read without click says what it says to click."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from typing import Any

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fireside.app.cli.flags import read
from fireside.app.cli.write import write
from fireside.app.cli.writing import FLAGS
from tests.command import Cli

NAMES = [declaration for flag in FLAGS for declaration in flag.declarations]
CHOICES = [choice for flag in FLAGS for choice in flag.choices]
VALUES = ["", "0", "5", "-1", "101", "0.5", "nan", "1e400", "x", "\u0663", " 7 ", "1_0", *CHOICES]
ODD = ["-", "--", "-h", "--help", "--absent", "-x", "-n5", "-n=5", "--no-echo=yes", "--temp"]
WORDS = st.sampled_from(["Once", "a b", "\udcff", *ODD, *VALUES])
PAIRS = st.builds(lambda name, value: [name, value], st.sampled_from(NAMES), WORDS)
JOINED = st.builds(lambda name, value: [f"{name}={value}"], st.sampled_from(NAMES), WORDS)
ALONE = st.one_of(WORDS, st.sampled_from(NAMES)).map(lambda word: [word])
LINES = st.lists(st.one_of(PAIRS, JOINED, ALONE), max_size=5).map(lambda parts: list(chain(*parts)))


def by_click(arguments: list[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The same from click."""
    values = dict(write.make_context("write", list(arguments)).params)
    return values, values.pop("prompt")


@given(LINES)
@example(["--temperature", "0.5", "-n", "5", "--stop", "a", "--stop=b", "--quant", "q8", "Once"])
@example(["--count", "3", "-n", "-5", "--seed", "2", "--", "--json", "-n"])
def test_what_is_read_is_what_click_reads(arguments: list[str]) -> None:
    found = read(arguments, FLAGS)
    if found is not None:
        assert repr(found[1]) == repr(by_click(arguments)[1])
        assert {k: repr(v) for k, v in found[0].items()} == {
            k: repr(v) for k, v in by_click(arguments)[0].items()
        }


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["Once", "upon"],
        ["-n", "5", "-t", "0.5", "-k", "3", "-p", "0.9", "-m", "x.gguf", "Once"],
        ["Once", "--json", "--seed=7", "--quant", "q4", "--count", "64"],
        ["--stop", "a", "--stop", "b", "--prompt-file", "x", "--", "--json"],
    ],
)
def test_what_is_usual_is_read(arguments: list[str]) -> None:
    assert read(arguments, FLAGS) == by_click(arguments)


@pytest.mark.parametrize(
    "arguments",
    [["-h"], ["--absent"], ["-n"], ["-n", "x"], ["--count", "0"], ["--json=1"], ["--quant", "q9"]],
)
def test_what_is_not_is_left_to_click(arguments: list[str]) -> None:
    assert read(arguments, FLAGS) is None
    with pytest.raises((click.UsageError, click.exceptions.Exit)):
        by_click(arguments)


def test_a_plain_story_goes_without_click(cli: Cli) -> None:
    code = (
        "import sys; from fireside.app.cli import main; main(sys.argv[1:]);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "write", "-n", "1", "Once"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=cli.env(),
        check=True,
    )
    modules = set(done.stderr.decode().split())
    assert "fireside.app.cli.writing" in modules
    assert {"click", "dataclasses", "inspect", "difflib"}.isdisjoint(modules)
