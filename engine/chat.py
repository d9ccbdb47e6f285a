"""Conversations as text: a list of messages -> the prompt that a model was trained to answer.

One registry of templates, by name. A checkpoint's own Jinja template is not run: it is only looked
at, to guess which of these it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fireside.engine.errors import FiresideError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """Something that was said."""

    role: Role
    content: str


@dataclass(frozen=True)
class Template:
    """An entry of the registry.

    render(messages) ends where the assistant's next words begin; what the model writes is its
    answer up to one of `stops`. `signs`: texts in a checkpoint's own template that tell it apart.
    """

    name: str
    render: Callable[[Sequence[Message]], str]
    stops: tuple[str, ...]
    signs: tuple[str, ...] = ()


_REGISTRY: dict[str, Template] = {}


def register(template: Template) -> None:
    """Add an entry; a second one of the same name is a programming error."""
    if template.name in _REGISTRY:
        raise RuntimeError(f"chat template {template.name!r} is registered twice")
    _REGISTRY[template.name] = template


def names() -> tuple[str, ...]:
    """Names of all templates."""
    return tuple(_REGISTRY)


def get(name: str) -> Template:
    """The template called `name`; FiresideError lists the known ones."""
    if name not in _REGISTRY:
        raise FiresideError(
            f"unknown chat template {name!r}", f"choose one of {', '.join(names())}"
        )
    return _REGISTRY[name]


def guess(metadata: Mapping[str, object]) -> Template:
    """The template that a checkpoint's `tokenizer.chat_template` looks like, else "plain"."""
    own = metadata.get("tokenizer.chat_template")
    if isinstance(own, str):
        for template in _REGISTRY.values():
            if any(sign in own for sign in template.signs):
                return template
    return get("plain")


def render(messages: Sequence[Message], template: str) -> str:
    """The prompt for these messages; the assistant is to speak next."""
    return get(template).render(messages)


# -- the templates ------------------------------------------------------------------------------

_SPEAKERS = {"user": "You", "assistant": "Teller"}


def _plain(messages: Sequence[Message]) -> str:
    """A transcript, which a model that only continues text can go on with."""
    lines = [
        m.content if m.role == "system" else f"{_SPEAKERS[m.role]}: {m.content}" for m in messages
    ]
    return "\n".join([*lines, f"{_SPEAKERS['assistant']}:"])


def _llama2(messages: Sequence[Message]) -> str:
    """Llama 2 chat: the system's words stand in the first instruction.

    The BOS and EOS between the turns are left out: a prompt is text, and they are none.
    """
    parts = []
    system = ""
    for message in messages:
        if message.role == "system":
            system = f"<<SYS>>\n{message.content}\n<</SYS>>\n\n"
        elif message.role == "user":
            parts.append(f"[INST] {system}{message.content} [/INST]")
            system = ""
        else:
            parts.append(message.content)
    return " ".join(parts)


def _chatml(messages: Sequence[Message]) -> str:
    """ChatML, which Qwen and many fine-tunes use."""
    turns = [f"<|im_start|>{m.role}\n{m.content}<|im_end|>\n" for m in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


register(Template("plain", _plain, (f"\n{_SPEAKERS['user']}:", f"\n{_SPEAKERS['assistant']}:")))
register(Template("llama2", _llama2, ("[INST]", "</s>"), ("[INST]",)))
register(Template("chatml", _chatml, ("<|im_end|>", "<|im_start|>"), ("<|im_start|>",)))
