"""What a person can set: one schema for flags, environment, config.toml and the settings screen.

Precedence: flags, then environment (FIRESIDE_TEMPERATURE, ...), then config.toml, then the
defaults written here. Nothing of the engine is imported until `Settings.sampling` is asked for,
so that `fireside --help` and shell completion stay quick.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fireside.app.paths import Paths
from fireside.engine.hints import TYPE_CHECKING, Any, Literal, TypeVar
from fireside.engine.records import changed, record

if TYPE_CHECKING:
    from fireside.engine import KV, Overflow, Quant, Sampling, Speculation

T = TypeVar("T")
Kind = Literal["text", "texts", "integer", "number"]
KIND_NAMES = {
    "text": "a text",
    "texts": "a list of texts",
    "integer": "a whole number",
    "number": "a number",
}
EMBEDDED = "storyteller"  # the name of the model that comes with the program


MAX_THREADS = 1024


class SettingsError(Exception):
    """A setting is unknown or has an impossible value; `message` says where, `hint` what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# The model's own way to write a conversation, and those of engine.chat
TEMPLATES = (
    "own", "plain", "llama2", "llama3", "chatml", "mistral", "gemma", "phi3", "zephyr", "vicuna",
    "alpaca",
)  # fmt: skip


@record
class Field:
    """What there is to know of a setting."""

    name: str
    default: Any
    metadata: Mapping[str, Any]  # help, kind, choices, table, minimum, maximum, unset


SCHEMA: dict[str, Field] = {}


def _setting(
    default: Any,
    help_text: str,
    *,
    kind: Kind | None = None,
    choices: tuple[str, ...] = (),
    table: str = "",
    minimum: int | None = None,
    maximum: int | None = None,
    unset: str = "",
) -> Any:
    """The default of a field of Settings, which `_described` takes out of it again.

    unset: what the default means, where its value does not say it.
    """
    guessed: dict[type, Kind] = {str: "text", int: "integer", float: "number", tuple: "texts"}
    metadata: Mapping[str, Any] = {
        "help": help_text,
        "kind": kind or guessed[type(default)],
        "choices": choices,
        "table": table,
        "minimum": minimum,
        "maximum": maximum,
        "unset": unset,
    }
    return Field("", default, metadata)


def _described(cls: type[T]) -> type[T]:
    """Class decorator: make defaults of what `_setting` says, and SCHEMA of the rest."""
    for name in cls.__annotations__:
        if isinstance(entry := vars(cls).get(name), Field):
            SCHEMA[name] = changed(entry, name=name)
            setattr(cls, name, entry.default)
    return cls


@record
@_described
class Settings:
    """All that can be set; `schema` says what each does."""

    model: str = _setting(EMBEDDED, "The model: a name that `fireside models` lists, or a file.")
    tokenizer: str = _setting(
        "",
        "Tokenizer file (tokenizer.json, .model or .bin) or folder, of a model that carries none.",
        unset="the model's own, or the one beside it",
    )
    models_dir: str = _setting(
        "",
        "A folder of model files, looked through beside the user's own models folder.",
        unset="only the user's own",
    )
    quant: Quant = _setting(
        "none",
        "Weights in memory: none = as the file has them, f16 = cast to halfs, q8 or q4 = quantised"
        " when loading.",
        choices=("none", "f16", "q8", "q4"),
    )
    kernels: str = _setting(
        "auto",
        "Which code computes: native = C, numpy = slower but runs everywhere, auto = the best.",
        choices=("auto", "native", "numpy"),
    )
    threads: int = _setting(
        0,
        "Threads to compute with.",
        minimum=0,
        maximum=MAX_THREADS,
        unset="as many as there are cores to use",
    )
    kv: KV = _setting(
        "f16",
        "Keys and values of the text in memory: f16 = halfs, f32 = exact and twice as large, q8 ="
        " about half as large and less exact.",
        choices=("f16", "f32", "q8"),
    )
    context: int = _setting(
        0,
        "Tokens of text the model sees at once.",
        minimum=0,
        unset="as many as it was trained for",
    )
    overflow: Overflow = _setting(
        "stop",
        "When the context is full: stop = end there, slide = keep the beginning, drop what follows"
        " it and go on.",
        choices=("stop", "slide"),
    )
    speculation: Speculation = _setting(
        "auto",
        "Guess tokens ahead, so that several are computed at once; the story stays the same:"
        " lookup = what the text has said before, draft = what a small model says, auto = both,"
        " off = never.",
        choices=("auto", "lookup", "draft", "off"),
    )
    draft: str = _setting(
        "",
        "A small model with the same tokens that guesses ahead for the large one: a name or file.",
        unset="none",
    )
    max_tokens: int = _setting(
        0,
        "Tokens to write at most; 0 = no limit.",
        minimum=0,
        unset="until the model ends the text or the context is full",
    )
    stop: tuple[str, ...] = _setting(
        (), "End before this text; may be given several times.", unset="none"
    )
    passage_tokens: int = _setting(
        200,
        "Tokens that the terminal application writes at a time.",
        minimum=0,
        unset="until the story ends",
    )
    template: str = _setting(
        "own",
        "How turns of a conversation are written for the model: its own template (plain turns where"
        " it has none), or a built-in one.",
        choices=TEMPLATES,
    )
    theme: str = _setting("", "Colour theme of the terminal application.", unset="Fireside's own")

    # These defaults were chosen on the embedded storyteller, by reading: see its model card.
    temperature: float = _setting(
        0.7, "Daring of the choice; 0 always takes the likeliest token.", table="sampling"
    )
    top_k: int = _setting(
        0, "Choose among the K likeliest tokens only.", table="sampling", unset="off"
    )
    top_p: float = _setting(
        0.95,
        "Choose among the likeliest that together reach this share; 1 = off.",
        table="sampling",
    )
    min_p: float = _setting(
        0.05,
        "Drop tokens less likely than this share of the likeliest one; 0 = off.",
        table="sampling",
    )
    typical_p: float = _setting(
        1.0,
        "Prefer tokens about as surprising as expected, up to this share; 1 = off.",
        table="sampling",
    )
    repetition_penalty: float = _setting(
        1.0, "Make tokens that occurred lately less likely; 1 = off.", table="sampling"
    )
    repetition_window: int = _setting(
        64, "How many last tokens the penalties look at; 0 = all of them.", table="sampling"
    )
    penalty_form: Literal["divide", "power"] = _setting(
        "divide",
        "divide = a repeated token's score is divided by the penalty (above 1 penalises), power ="
        " multiplied by penalty^count (below 1 penalises).",
        choices=("divide", "power"),
        table="sampling",
    )
    presence_penalty: float = _setting(
        0.0, "Taken once off the score of a token that occurred.", table="sampling"
    )
    frequency_penalty: float = _setting(
        0.2,
        "Taken off the score of a token each time it occurred; at temperature 0 only if it is set.",
        table="sampling",
    )
    seed: int | None = _setting(
        None,
        "Number that the chance is drawn from: the same seed tells the same story.",
        kind="integer",
        table="sampling",
        unset="a new one each time",
    )

    # setting -> where its value was set, in a person's words; the defaults are not there
    origins: Mapping[str, str] = {}

    @property
    def built_in_template(self) -> str:
        """What engine.chat calls the template: "" is the model's own, if there is one."""
        return "" if self.template == "own" else self.template

    @property
    def sampling(self) -> Sampling:
        """The sampler settings, checked; SamplingError names one that is out of range."""
        from fireside.engine import Sampling

        values = {f.name: getattr(self, f.name) for f in _table("sampling")}
        if values["temperature"] == 0 and "frequency_penalty" not in self.origins:
            values["frequency_penalty"] = 0.0  # the likeliest token shall be the likeliest
        return Sampling(**values)

    def changed(self, **values: Any) -> Settings:
        """A copy with other values, checked like those of a file."""
        return changed(self, **{k: _checked(k, v, k) for k, v in values.items()})


def schema() -> tuple[Field, ...]:
    """The fields of Settings in order; their `metadata` has help, kind, choices, table, ..."""
    return tuple(SCHEMA.values())


def _table(name: str) -> list[Field]:
    return [f for f in schema() if f.metadata["table"] == name]


# -- reading ------------------------------------------------------------------------------------


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    paths: Paths | None = None,
) -> Settings:
    """Settings from all sources; a flag that is None was not given. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    paths = paths or Paths.find(environ)
    values = read_file(paths.config_file)
    origins = dict.fromkeys(values, str(paths.config_file))
    from_environment = _from_environment(environ)
    values.update(from_environment)
    origins.update({name: environment_name(name) for name in from_environment})
    for name, value in (flags or {}).items():
        if value is not None and value != ():
            origins[name] = flag_name(name)
            values[name] = _checked(name, value, origins[name])
    return Settings(**values, origins=origins)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for f in schema():
        name = environment_name(f.name)
        text = environ.get(name, "")
        if text:
            values[f.name] = _checked(f.name, _parse(text, f.metadata["kind"]), name)
    return values


def environment_name(name: str) -> str:
    """The environment variable of a setting."""
    return "FIRESIDE_" + name.upper()


def flag_name(name: str) -> str:
    """The flag of a setting."""
    return "--" + name.replace("_", "-")


def _parse(text: str, kind: Kind) -> Any:
    """A value of `kind`; the text itself where it is none, for the check to complain about."""
    if kind == "texts":
        return [text]
    try:
        return int(text) if kind == "integer" else float(text) if kind == "number" else text
    except ValueError:
        return text


def read_file(path: Path) -> dict[str, Any]:
    """Settings that config.toml at `path` makes; {} where there is no such file."""
    document = _read_toml(path)
    values: dict[str, Any] = {}
    tables = {f.metadata["table"] for f in schema()} - {""}
    for key, value in document.items():
        if key in tables and isinstance(value, dict):
            _check_known(path, value, key)
            values.update({k: _checked(k, v, f"{path}: [{key}] {k}") for k, v in value.items()})
        elif key not in tables:
            _check_known(path, {key: value}, "")
            values[key] = _checked(key, value, f"{path}: {key}")
        else:
            raise SettingsError(f"{path}: {key} must be a table", f"write [{key}]")
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 at byte {error.start}") from None
    import tomllib  # most people have no such file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None


def _check_known(path: Path, keys: Mapping[str, object], table: str) -> None:
    known = {f.name: f.metadata["table"] for f in schema()}
    for key in keys:
        place = known.get(key)
        if place == table:
            continue
        where = f"{path}: unknown setting {key!r}" + (f" in [{table}]" if table else "")
        if place is not None:
            belongs = f"under [{place}]" if place else "above the first table"
            raise SettingsError(where, f"it belongs {belongs}")
        names = ", ".join(f.name for f in _table(table))
        raise SettingsError(where, f"known there: {names}")


def _checked(name: str, value: Any, where: str) -> Any:
    """`value` in the type of the setting; SettingsError says `where` it came from."""
    entry = SCHEMA.get(name)
    if entry is None:
        known = ", ".join(f.name for f in schema())
        raise SettingsError(f"unknown setting {name!r}", f"known: {known}")
    meta = entry.metadata
    kind: Kind = meta["kind"]
    if value is None and entry.default is None:
        return None
    if kind == "number" and type(value) is int:
        value = float(value)
    if kind == "texts" and isinstance(value, list | tuple):
        value = tuple(value)
    if not _fits(value, kind):
        raise SettingsError(f"{where} is {value!r}: expected {KIND_NAMES[kind]}")
    if meta["choices"] and value not in meta["choices"]:
        raise SettingsError(f"{where} is {value!r}", f"choose one of {', '.join(meta['choices'])}")
    if meta["minimum"] is not None and value < meta["minimum"]:
        raise SettingsError(f"{where} is {value}: it must be at least {meta['minimum']}")
    if meta["maximum"] is not None and value > meta["maximum"]:
        raise SettingsError(f"{where} is {value}: it must be at most {meta['maximum']}")
    return value


def _fits(value: object, kind: Kind) -> bool:
    if kind == "texts":
        return isinstance(value, tuple) and all(isinstance(v, str) for v in value)
    if kind == "number":
        return isinstance(value, float) and math.isfinite(value)
    return type(value) is (int if kind == "integer" else str)


# -- writing ------------------------------------------------------------------------------------


def save(changes: Mapping[str, Any], path: Path) -> None:
    """Write `changes` into the config.toml at `path`, atomically; None takes a setting out.

    Other lines, comments among them, stay as they are. Raises SettingsError (also where the file
    there cannot be understood: it is then left alone) and OSError.
    """
    wanted = read_file(path)
    for name, value in changes.items():
        if isinstance(value, str) and not _is_text(value):
            raise SettingsError(f"{name}: {value!r} is no text that a file can hold")
        wanted[name] = None if value is None else _checked(name, value, name)
    wanted = {name: value for name, value in wanted.items() if value is not None}
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    text = _edited(old, changes)
    if not _means(text, wanted):  # a value over several lines, say: write the file anew
        text = _edited("", wanted)
    target = path.resolve()  # a link to a file among somebody's dotfiles stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8; a file's name need not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _edited(text: str, changes: Mapping[str, Any]) -> str:
    """`text`, a config.toml, with the lines of `changes` replaced, removed or added."""
    lines = text.splitlines()
    for entry in schema():
        if entry.name not in changes:
            continue
        table, value = entry.metadata["table"], changes[entry.name]
        start, end = _section(lines, table)
        if start is None:
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
            start = end = len(lines)
        at = [i for i in range(start, end) if lines[i].split("=")[0].strip() == entry.name]
        new = [] if value is None else [f"{entry.name} = {_toml(value)}"]
        if at:
            lines[at[0] : at[0] + 1] = new
        else:
            lines[end:end] = new
    return "\n".join(lines) + "\n" if lines else ""


def _section(lines: Sequence[str], table: str) -> tuple[int | None, int]:
    """(first line of a table's body, the line after its last setting); None: there is none."""
    heads = [i for i, line in enumerate(lines) if line.lstrip().startswith("[")]
    starts = (i + 1 for i in heads if lines[i].strip() == f"[{table}]")
    start = next(starts, None) if table else 0
    if start is None:
        return None, len(lines)
    end = next((i for i in heads if i >= start), len(lines))
    settings = [i for i in range(start, end) if lines[i].strip() and lines[i].strip()[0] != "#"]
    return start, settings[-1] + 1 if settings else end


def _means(text: str, wanted: Mapping[str, Any]) -> bool:
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    flat: dict[str, Any] = {}
    for key, value in document.items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return {k: _checked(k, v, k) for k, v in flat.items()} == wanted


def _toml(value: Any) -> str:
    """A text, number or list of texts as TOML."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(v) for v in value)}]"
    if not isinstance(value, str):
        return repr(value)
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    written = (escapes.get(c) or (c if c.isprintable() else f"\\U{ord(c):08X}") for c in value)
    return f'"{"".join(written)}"'
