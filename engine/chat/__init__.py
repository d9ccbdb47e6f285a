"""Conversations: a list of messages -> the ids of a prompt that the model is to answer.

A model's own Jinja template (jinja.py) comes first; built-in ones (builtin.py) stand in for it by
name. Special tokens in what a template writes are tokens; in what a person writes they are text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fireside.engine.chat.builtin import get, guess, names, register
from fireside.engine.chat.types import Message, Role, Template
from fireside.engine.checkpoints.types import Vocabulary
from fireside.engine.errors import FiresideError
from fireside.engine.tokenizers import Tokenizer

OWN = "own"  # the name of the model's own template

# Characters that Unicode promises never to assign: one that is not in use guards a message.
GUARDS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


@dataclass(frozen=True)
class Prompt:
    """A conversation as a tokenizer takes it: stretches of text, and ids of special tokens."""

    parts: tuple[str | int, ...]

    def ids(self, tokenizer: Tokenizer) -> list[int]:
        """The ids, a BOS before them where the vocabulary wants one."""
        return tokenizer.encode_parts(self.parts)

    def answered(self, words: str) -> Prompt:
        """The conversation with the answer's `words` behind it."""
        *before, last = self.parts or ("",)
        if isinstance(last, str):
            return Prompt((*before, last + words))
        return Prompt((*before, last, words))


def choose(vocabulary: Vocabulary, name: str = "") -> Template:
    """The template called `name`; "" is the model's own, else a plain transcript.

    FiresideError for unknown names, for "own" where the model has none, and for one that is no
    template.
    """
    if name and name != OWN:
        if name not in names():
            raise FiresideError(
                f"unknown chat template {name!r}", f"choose one of {', '.join((OWN, *names()))}"
            )
        return get(name)
    if vocabulary.chat_template is None:
        if name:
            raise FiresideError(
                "the model has no chat template of its own", f"choose one of {', '.join(names())}"
            )
        return get("plain")
    from fireside.engine.chat.jinja import compile_template

    return compile_template(vocabulary)


def prompt(template: Template, messages: Sequence[Message], tokenizer: Tokenizer) -> Prompt:
    """The conversation in the way of `template`; the assistant is to speak next.

    No special token comes of the messages' own text. To see whether one would, the conversation is
    rendered a second time with a guard around every visible character of the messages: what is a
    token in the one and not in the other was none of the template's. Then the second one counts,
    its guards taken away.
    """
    text = template.render(messages)
    parts = tokenizer.parse(text)
    guard = next((g for g in GUARDS if g not in text), None)
    if guard is None:
        raise FiresideError("the conversation holds every character that is none", "shorten it")
    guarded = [replace(m, content=_guarded(m.content, guard)) for m in messages]
    safe = tokenizer.parse(template.render(guarded))
    if [p for p in parts if isinstance(p, int)] != [p for p in safe if isinstance(p, int)]:
        without = [p.replace(guard, "") if isinstance(p, str) else p for p in safe]
        parts = [p for p in without if p != ""]
    return Prompt(tuple(parts))


def _guarded(text: str, guard: str) -> str:
    """`text` with a guard before and behind each character that is not white space."""
    words = []
    for character in text:
        words.append(character if character.isspace() else f"{guard}{character}{guard}")
    return "".join(words)


__all__ = [
    "OWN",
    "Message",
    "Prompt",
    "Role",
    "Template",
    "choose",
    "get",
    "guess",
    "names",
    "prompt",
    "register",
]
