"""Stop strings, which may span tokens: text is held back while it may still become one."""

from __future__ import annotations

from collections.abc import Sequence

from fireside.engine.errors import SamplingError


class StopMatcher:
    """Feed it text as it comes; it hands out what is certainly not part of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        if any(not stop for stop in stops):
            raise SamplingError("a stop string is empty", "leave it out, or give it a character")
        self.stops = tuple(stops)
        self.held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """(text that is certain now, whether a stop string was met). What follows it is dropped."""
        if not self.stops:
            return text, False
        self.held += text
        found = [at for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if found:
            out, self.held = self.held[: min(found)], ""
            return out, True
        keep = max((self._overlap(stop) for stop in self.stops), default=0)
        cut = len(self.held) - keep
        out, self.held = self.held[:cut], self.held[cut:]
        return out, False

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        out, self.held = self.held, ""
        return out

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        for length in range(min(len(stop) - 1, len(self.held)), 0, -1):
            if self.held.endswith(stop[:length]):
                return length
        return 0
