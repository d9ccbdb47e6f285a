"""What a conversation is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """Something that was said."""

    role: Role
    content: str


@dataclass(frozen=True)
class Template:
    """How a conversation is written for a model.

    render(messages) ends where the assistant's next words begin; what the model writes is its
    answer up to one of `stops`, or a token that ends a text. `signs`: texts in a checkpoint's own
    template that tell it apart.
    """

    name: str
    render: Callable[[Sequence[Message]], str]
    stops: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
