"""The foot of a screen: keys for what can be done now, as many as there is room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.style import Style
from textual.widget import Widget


@dataclass(frozen=True)
class Key:
    """One key of the bar. `rank`: the lowest stay where there is not room for all."""

    shown: str
    label: str
    action: str
    rank: int = 0

    @property
    def width(self) -> int:
        """Cells it takes, with the gap before the next one."""
        return cell_len(self.shown) + 1 + cell_len(self.label) + 2


class KeyBar(Widget):
    """One line; every key can be clicked. None is ever cut in two."""

    DEFAULT_CSS = """
    KeyBar {
        height: 1;
        padding: 0 1;
        color: $footer-description-foreground;
        background: $footer-background;
        link-color: $footer-description-foreground;
        link-background: transparent;
        link-style: none;
        link-color-hover: $text;
        link-background-hover: $block-hover-background;
        link-style-hover: none;
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"keybar--key"}
    ALLOW_SELECT = False

    keys: reactive[tuple[Key, ...]] = reactive[tuple[Key, ...]](())

    def render(self) -> Content:
        """The keys that fit, in their order."""
        parts: list[Content | tuple[str, Style]] = []
        for key in fitting(self.keys, self.size.width):
            click = Style.from_meta({"@click": key.action}) if key.action else Style()
            if parts:
                parts.append(Content("  "))
            parts.append((key.shown, Style(bold=True) + click))
            parts.append((f" {key.label}", click))
        return Content.assemble(*parts)


def fitting(keys: Sequence[Key], width: int) -> list[Key]:
    """The keys of lowest rank that fit into `width` cells together, in their own order."""
    chosen: set[int] = set()
    room = width + 2  # the last one needs no gap after it
    for key in sorted(keys, key=lambda k: k.rank):
        if key.width > room:
            break
        room -= key.width
        chosen.add(id(key))
    return [key for key in keys if id(key) in chosen]
