"""Flags as plain data, and the reading of a command line that has nothing unusual about it.

options.py makes click's options of the same data. To import click takes longer than to load a small
model, so `fireside write` with flags and words that are as they should be is read here; help,
completion, every mistake and whatever else is unusual are left to click.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from fireside.app.settings import Field, flag_name, schema
from fireside.engine.hints import Any, Literal
from fireside.engine.records import record

CONVERSIONS: dict[str, Callable[[str], Any]] = {"integer": int, "number": float}
METAVARS = {"text": "TEXT", "texts": "TEXT", "integer": "N", "number": "X"}
SHORT = {
    "model": ("-m",),
    "max_tokens": ("-n",),
    "temperature": ("-t",),
    "top_k": ("-k",),
    "top_p": ("-p",),
}
# section of --help -> its settings
SECTIONS: dict[str, tuple[str, ...]] = {
    "Model": (
        "model", "tokenizer", "models_dir", "quant", "kernels", "threads", "kv", "context",
        "overflow", "speculation", "draft",
    ),
    "Length": ("max_tokens", "stop"),
    "Sampling": (
        "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty",
        "repetition_window", "penalty_form", "presence_penalty", "frequency_penalty", "seed",
    ),
    "Terminal application": ("theme",),
}  # fmt: skip
METAVARS_OF = {"model": "MODEL", "draft": "MODEL", "tokenizer": "FILE", "models_dir": "DIR"}
Completed = Literal["", "files", "models"]
COMPLETED: dict[str, Completed] = {
    "model": "models", "draft": "models", "tokenizer": "files", "models_dir": "files",
}  # fmt: skip


@record
class Flag:
    """A flag of a command. `kind` "switch": it is there or not; "texts": it may be repeated."""

    name: str  # of the function's parameter
    declarations: tuple[str, ...]  # "-m", "--model"
    kind: Literal["switch", "text", "texts", "integer", "number"]
    section: str
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    within: tuple[int, int] | None = None  # the least and the largest whole number
    default: int | None = None
    completed: Completed = ""  # what the shell offers


def settings_flags(sections: Iterable[str], without: Iterable[str] = ()) -> list[Flag]:
    """Flags for all settings of these sections, in order."""
    entries = {entry.name: entry for entry in schema()}
    left_out = set(without)
    return [
        _setting_flag(section, entries[name])
        for section in sections
        for name in SECTIONS[section]
        if name not in left_out
    ]


def _setting_flag(section: str, entry: Field) -> Flag:
    name, meta = entry.name, entry.metadata
    return Flag(
        name,
        (*SHORT.get(name, ()), flag_name(name)),
        meta["kind"],
        section,
        f"{meta['help']}  [default: {meta['unset'] or f'{entry.default}'}]",
        None if meta["choices"] else METAVARS_OF.get(name, METAVARS[meta["kind"]]),
        meta["choices"],
        completed=COMPLETED.get(name, ""),
    )


def read(
    arguments: Sequence[str], flags: Iterable[Flag]
) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """(a value for each flag, the words between them), as click has them; None: ask click."""
    flags = list(flags)
    known = {declaration: flag for flag in flags for declaration in flag.declarations}
    missing: dict[str, Any] = {"switch": False, "texts": ()}
    values = {flag.name: missing.get(flag.kind, flag.default) for flag in flags}
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            words += rest
        elif argument[:1] != "-" or argument == "-":
            words.append(argument)
        elif not _take(argument, rest, known, values):
            return None
    return values, tuple(words)


def _take(
    argument: str, rest: Iterable[str], known: dict[str, Flag], values: dict[str, Any]
) -> bool:
    """Put the value of a flag into `values`; False where something about it is unusual."""
    given: str | None = None
    if argument.startswith("--"):
        argument, found, after = argument.partition("=")
        given = after if found else None
    flag = known.get(argument)
    if flag is None:
        return False
    if flag.kind == "switch":
        values[flag.name] = True
        return given is None
    text = next(iter(rest), None) if given is None else given
    if text is None or (flag.choices and text not in flag.choices):
        return False
    try:
        value = CONVERSIONS.get(flag.kind, str)(text)
    except ValueError:
        return False
    if flag.within and not flag.within[0] <= value <= flag.within[1]:
        return False
    values[flag.name] = (*values[flag.name], value) if flag.kind == "texts" else value
    return True
