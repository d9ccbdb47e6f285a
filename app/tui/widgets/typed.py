"""What a slider and a seed have in common: a number can be typed over them."""

from __future__ import annotations

from textual import events
from textual.reactive import reactive
from textual.widget import Widget


class Typed(Widget):
    """A row that takes what is typed: enter or leaving keeps it, escape drops it."""

    CHARACTERS = frozenset("0123456789")
    MAXIMUM_TYPED = 19

    typed: reactive[str | None] = reactive[str | None](None, init=False)
    """What is being typed, or None."""

    def take(self, typed: str) -> None:
        """What was typed is to be the value; what is no number is left alone."""
        raise NotImplementedError

    def reset(self) -> None:
        """Backspace, where nothing is being typed."""
        raise NotImplementedError

    def on_key(self, event: events.Key) -> None:
        """Take what is typed."""
        if event.character is not None and event.character in self.CHARACTERS:
            self.typed = ((self.typed or "") + event.character)[: self.MAXIMUM_TYPED]
        elif event.key == "backspace":
            if self.typed is None:
                self.reset()
            else:
                self.typed = self.typed[:-1] or None
        elif self.typed is None:
            return
        elif event.key == "enter":
            self._commit()
        elif event.key == "escape":
            self.typed = None
        else:
            return
        event.stop()
        event.prevent_default()

    def on_blur(self) -> None:
        """Leaving takes what was typed."""
        self._commit()

    def _commit(self) -> None:
        typed, self.typed = self.typed, None
        if typed is not None:
            self.take(typed)
