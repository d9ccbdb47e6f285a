"""Flags. Those that are settings take their help, choices and defaults from the one schema."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from fireside.app.cli.flags import Flag, settings_flags
from fireside.app.settings import Settings, load

F = TypeVar("F", bound=Callable[..., Any])
TYPES = {"text": click.STRING, "texts": click.STRING, "integer": click.INT, "number": click.FLOAT}


class Sectioned(click.Command):
    """A command whose --help groups its options and ends with examples as they were written."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options by section, those without one last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                section = getattr(parameter, "section", "Other")
                sections.setdefault(section, []).append(record)
        for section in sorted(sections, key=lambda name: name == "Other"):
            with formatter.section(section):
                formatter.write_dl(sections[section])

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The docstring; what follows its line `Examples:` goes to the end."""
        text, _, _ = self._parts()
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, unwrapped."""
        _, found, examples = self._parts()
        if found:
            formatter.write("\nExamples:\n" + examples.strip("\n") + "\n")

    def _parts(self) -> tuple[str, str, str]:
        text = inspect.cleandoc(self.help or "")
        before, found, after = text.partition("Examples:")
        return before.strip(), found, after


class Option(click.Option):
    """An option that belongs to a section of the help."""

    def __init__(self, *args: Any, section: str = "Other", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def option(*declarations: str, section: str = "Other", **attributes: Any) -> Callable[[F], F]:
    """click.option, in a section of the help."""
    return click.option(*declarations, cls=Option, section=section, **attributes)


def options(flags: Sequence[Flag]) -> Callable[[F], F]:
    """click's options for these flags, in order."""

    def decorate(function: F) -> F:
        for flag in reversed(flags):
            function = _option(flag)(function)
        return function

    return decorate


def settings_options(*sections: str, without: Iterable[str] = ()) -> Callable[[F], F]:
    """Flags for all settings of these sections, in order."""
    return options(settings_flags(sections, without))


def _option(flag: Flag) -> Callable[[F], F]:
    attributes: dict[str, Any] = {"help": flag.help}
    if flag.kind == "switch":
        attributes["is_flag"] = True
    else:
        attributes["type"] = click.Choice(flag.choices) if flag.choices else TYPES[flag.kind]
        if flag.within:
            attributes["type"] = click.IntRange(*flag.within)
        attributes["metavar"] = flag.metavar
        attributes["multiple"] = flag.kind == "texts"
        attributes["default"] = flag.default
    if flag.completed:
        completed = {"models": complete_models, "files": complete_files}
        attributes["shell_complete"] = completed[flag.completed]
    return option(*flag.declarations, flag.name, section=flag.section, **attributes)


def complete_models(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of models for the shell, then files."""
    from fireside.app.catalogue import model_files

    try:
        names = [file.name for file in model_files(load({"models_dir": _models_dir(ctx)}))]
    except Exception:  # a broken config.toml must not break the shell's line
        names = []
    items = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


def _models_dir(ctx: click.Context) -> str | None:
    value = ctx.params.get("models_dir") or (ctx.obj or {}).get("models_dir")
    return value if isinstance(value, str) else None


def complete_files(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files, as the shell finds them."""
    return [CompletionItem(incomplete, type="file")]


def read_settings(ctx: click.Context, flags: dict[str, Any]) -> Settings:
    """Settings from the command's flags, those before the command, environment and file."""
    given = {k: v for k, v in flags.items() if v is not None and v != ()}
    return load({**(ctx.obj or {}), **given})


def split_list(text: str, known: Iterable[str] | None, flag: str) -> list[str]:
    """The items of "a,b,c", each one of `known` where that is given."""
    items = [item for item in re.split(r"[,\s]+", text) if item]
    for item in items:
        if known is not None and item not in known:
            raise click.BadParameter(
                f"{item!r} is not one of {', '.join(known)}.", param_hint=f"'{flag}'"
            )
    if not items:
        raise click.BadParameter("the list is empty.", param_hint=f"'{flag}'")
    return items


def split_integers(text: str, flag: str, maximum: int) -> list[int]:
    """The whole numbers, from 1 to `maximum`, of "1,2,4"."""
    numbers = []
    for item in split_list(text, None, flag):
        if not (item.isascii() and item.isdigit() and 1 <= int(item[:20]) <= maximum):
            raise click.BadParameter(
                f"{item!r} is not a whole number from 1 to {maximum}.", param_hint=f"'{flag}'"
            )
        numbers.append(int(item))
    return numbers
