"""A model's own chat template: Jinja, run in a sandbox. (huggingface/transformers, chat templates)

It comes with a model, so it is not to be trusted: it reaches nothing but the messages, and has
little time and room. jinja2 is imported only here.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import FrameType
from typing import Any

from fireside.engine.chat.types import Message, Template
from fireside.engine.checkpoints.types import Vocabulary
from fireside.engine.errors import FiresideError

MAX_SOURCE = 1 << 18  # characters of a template (Llama 3.1's has 4,000)
MAX_VALUE = 1 << 24  # characters or items of anything that it makes
MAX_WIDTH = 1 << 12  # of a column
MAX_WORK = 1 << 26  # characters times characters that are replaced or joined
MAX_SECONDS = 3.0  # of computing that it may take
HINT = "choose another with --template"


class TooMuchError(Exception):
    """A template that takes too long, or makes too much."""


@functools.cache
def _environment() -> Any:
    """Jinja's sandbox, with what templates expect to find."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` marks what a model is trained on: it is passed over."""

        tags = {"generation"}  # noqa: RUF012  (Jinja's own declaration)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class Sandbox(ImmutableSandboxedEnvironment):
        """Sums and products of moderate size only."""

        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator in ("*", "**", "%"):
                _check_product(operator, left, right)
            result = super().call_binop(context, operator, left, right)
            return _check_size(result)

        def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:
            method = getattr(called, "__wrapped__", called)  # the sandbox wraps str.format
            owner = getattr(method, "__self__", None)
            if isinstance(owner, str):
                _check_method(getattr(method, "__name__", ""), owner, args)
            return super().call(context, called, *args, **kwargs)

    environment = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        extensions=[Generation, loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    for name in ("center", "indent", "format", "wordwrap"):  # widths without bounds
        environment.filters[name] = _bounded(environment.filters[name])
    replace = environment.filters["replace"]
    environment.filters["replace"] = _checked_replace(replace)
    environment.globals["raise_exception"] = _raiser(jinja2.TemplateError)
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(str(form))
    return environment


def _raiser(error: type[Exception]) -> Callable[[object], str]:
    def raise_exception(message: object) -> str:
        raise error(str(message))

    return raise_exception


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: Jinja's own filter would write it for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _check_size(value: Any) -> Any:
    """`value`; TooMuchError where it, or the texts in it, are too long."""
    size = len(value) if isinstance(value, str | list | tuple) else 0
    if isinstance(value, list | tuple):
        size += sum(len(item) for item in value if isinstance(item, str))
    if size > MAX_VALUE:
        raise TooMuchError
    return value


def _check_product(operator: str, left: Any, right: Any) -> None:
    """Refuse what would be large before it is made."""
    if operator == "%":
        large = isinstance(left, str) and any(len(run) > 4 for run in _numbers(left))
    elif operator == "**":
        large = not isinstance(right, int | float) or abs(right) > 64 or _long(left)
    else:
        sizes = [len(v) if isinstance(v, str | list | tuple) else v for v in (left, right)]
        numbers = [abs(v) for v in sizes if isinstance(v, int | float)]
        large = len(numbers) == 2 and numbers[0] * numbers[1] > MAX_VALUE
    if large:
        raise TooMuchError


def _check_method(name: str, text: str, args: Sequence[Any]) -> None:
    """Refuse a method of `text` that would make something large."""
    sizes = [len(arg) for arg in args if isinstance(arg, str | list | tuple)]
    if any(isinstance(arg, int) and arg > MAX_WIDTH for arg in args):
        raise TooMuchError  # a width; what counts replacements is never so large
    if name.startswith("format") and any(len(run) > 4 for run in _numbers(text)):
        raise TooMuchError
    if name in ("replace", "join", "translate") and len(text) * max(sizes, default=0) > MAX_WORK:
        raise TooMuchError


def _checked_replace(function: Callable[..., str]) -> Callable[..., str]:
    """Jinja's filter `replace`, which is handed its environment."""

    @functools.wraps(function)
    def checked(environment: Any, text: str, old: str, new: str, *count: Any) -> str:
        _check_method("replace", str(text), (old, new))
        return function(environment, text, old, new, *count)

    return checked


def _numbers(text: str) -> list[str]:
    """The runs of digits in a text."""
    return "".join(c if c.isdigit() else " " for c in text).split()


def _long(value: Any) -> bool:
    return not isinstance(value, int | float) or abs(value) > 1 << 16


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter without large numbers among what it is given."""

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, int) and value > MAX_WIDTH:
                raise TooMuchError
            if isinstance(value, str) and any(len(run) > 4 for run in _numbers(value)[:64]):
                raise TooMuchError
        return function(*args, **kwargs)

    return checked


def compile_template(vocabulary: Vocabulary) -> Template:
    """The vocabulary's own template; FiresideError where it is none."""
    source = vocabulary.chat_template or ""
    if len(source) > MAX_SOURCE:
        raise FiresideError(f"the model's chat template has {len(source):,} characters", HINT)
    import jinja2

    try:
        template = _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, ValueError, OverflowError) as error:
        raise FiresideError(
            f"the model's chat template is no Jinja template: {_line(error)}", HINT
        ) from None
    tokens = {
        f"{name}_token": vocabulary.pieces[i] if i >= 0 else ""
        for name, i in (
            ("bos", vocabulary.bos_id),
            ("eos", vocabulary.eos_id),
            ("unk", vocabulary.unk_id),
        )
    }

    def render(messages: Sequence[Message]) -> str:
        said = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return _within_limits(
                template, messages=said, add_generation_prompt=True, tools=None, documents=None,
                **tokens,
            )  # fmt: skip
        except (TooMuchError, MemoryError):
            raise FiresideError(
                "the model's chat template takes too long or too much memory", HINT
            ) from None
        except FiresideError:
            raise
        except Exception as error:  # whatever a template does wrong, it is the template
            raise FiresideError(
                f"the model's chat template refuses this conversation: {_line(error)}",
                "leave out --system, or choose another with --template",
            ) from None

    return Template("own", render)


def _within_limits(template: Any, **values: Any) -> str:
    """The template's text; TooMuchError where it takes too long or makes too much.

    Loops are stopped by a trace function, which Python calls for every line of a template.
    """
    deadline = time.thread_time() + MAX_SECONDS

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if time.thread_time() > deadline:
            raise TooMuchError
        if event == "call":  # also of what joins texts, with those texts
            for value in list(frame.f_locals.values()):
                _check_size(value)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parts: list[str] = []
        size = 0
        for part in template.generate(**values):
            size += len(part)
            if size > MAX_VALUE:
                raise TooMuchError
            parts.append(part)
        return "".join(parts)
    finally:
        sys.settrace(before)


def _line(error: BaseException) -> str:
    """The first line of an error, not too long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
