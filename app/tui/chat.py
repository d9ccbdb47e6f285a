"""From the parts of a chat to the prompt of its next turn."""

from __future__ import annotations

from fireside.app.tui.keeper import Leaf
from fireside.app.updates import Prompt


def chat_prompt(leaves: list[Leaf]) -> Prompt:
    """The turns so far as text, in the plain form that any model can go on from."""
    turns = [f"{'You' if x.author == 'writer' else 'Story'}: {x.text.strip()}\n" for x in leaves]
    return "".join([*turns, "Story:"])
