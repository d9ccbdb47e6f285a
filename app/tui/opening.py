"""An empty page: a few first lines to choose from, a story to read, and how it goes on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static

from fireside.assets import SampleStory

COUNT = 6
HINT = "Pick a first line, or write your own below; enter on an empty line lets the model begin."


class Opening(Vertical):
    """Shown in the place of the page."""

    DEFAULT_CSS = """
    Opening {
        height: 1fr; padding: 1 2; align: left middle;
        #question { text-style: bold; color: $primary; height: auto; margin: 0 0 1 0; }
        #lines {
            height: auto; max-height: 1fr; padding: 0; border: none; background: transparent;
            scrollbar-size-vertical: 1;
            &:focus { border: none; background-tint: transparent; }
        }
        #hint { color: $text-muted; height: auto; margin: 1 0 0 0; }
    }
    """

    @dataclass
    class Chosen(Message):
        """The story shall begin with this line."""

        text: str

    @dataclass
    class StoryChosen(Message):
        """The page shall hold this story."""

        story: SampleStory

    def __init__(
        self, openings: Sequence[str], stories: Sequence[SampleStory], chance: random.Random
    ) -> None:
        super().__init__(id="opening")
        self.openings = list(openings)
        self.stories = list(stories)
        self.chance = chance
        self._shown: list[str | SampleStory] = []

    def compose(self) -> ComposeResult:
        """A question, lines, a hint."""
        yield Static("How shall it begin?", id="question")
        yield OptionList(id="lines")
        yield Static(HINT, id="hint", markup=False)

    def on_mount(self) -> None:
        """Show the first few."""
        self.deal()

    def deal(self) -> None:
        """Show a few others, and one story."""
        self._shown = [
            *self.chance.sample(self.openings, min(COUNT, len(self.openings))),
            *self.chance.sample(self.stories, min(1, len(self.stories))),
        ]
        lines = self.query_one(OptionList)
        lines.clear_options()
        lines.add_options(
            Content(x)
            if isinstance(x, str)
            else Content.styled(f"Or read one of ours: “{x.title}”", "italic")
            for x in self._shown
        )

    def enter(self, last: bool = False) -> None:
        """Take the focus from the line below."""
        lines = self.query_one(OptionList)
        self.screen.set_focus(lines)  # at once: the next key may be there already
        if lines.option_count:
            lines.highlighted = lines.option_count - 1 if last else 0

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        chosen = self._shown[event.option_index]
        if isinstance(chosen, str):
            self.post_message(self.Chosen(chosen))
        else:
            self.post_message(self.StoryChosen(chosen))
