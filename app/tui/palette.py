"""The palette: every command of the desk, every theme, preset and kind of weights by its name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.types import IgnoreReturnCallbackType

from fireside.app.settings import TEMPLATES
from fireside.app.tui.commands import COMMANDS
from fireside.app.tui.presets import PRESETS
from fireside.app.tui.switching import QUANT_NAMES, template_name
from fireside.engine import QUANTS

if TYPE_CHECKING:
    from fireside.app.tui.app import FiresideApp

Entry = tuple[str, str, IgnoreReturnCallbackType, bool]


class DeskCommands(Provider):
    """Finds commands of the desk, from whatever screen."""

    def _entries(self) -> Iterator[Entry]:
        """(name, help, what it does, whether it is listed before anything is typed)."""
        app = cast("FiresideApp", self.app)
        desk = app.desk
        for command in COMMANDS:
            if desk.possible(command.action) and command.action != "app.command_palette":
                key = f"{command.shown}  " if command.shown else ""
                run = partial(app.run_at_desk, command.action)
                yield command.title, key + command.help, run, True
        for quant in QUANTS:
            name = f"Weights: {QUANT_NAMES[quant]}"
            yield name, "How the model is held in memory.", partial(desk.choose_quant, quant), False
        for template in TEMPLATES:
            name = f"Chat template: {template_name(template)}"
            use = partial(desk.choose_template, template)
            yield name, "How turns of a chat are written for the model.", use, False
        for preset in PRESETS:
            name = f"Preset: {preset.name}"
            yield name, "Set the samplers.", partial(desk.panel.choose_preset, preset.name), False
        for theme in app.available_themes:
            run_theme = partial(setattr, app, "theme", theme)
            yield f"Theme: {theme}", "Change the colours.", run_theme, False

    async def discover(self) -> Hits:
        """What is listed at first."""
        for name, text, run, listed in self._entries():
            if listed:
                yield DiscoveryHit(name, run, help=text)

    async def search(self, query: str) -> Hits:
        """What the query finds."""
        matcher = self.matcher(query)
        for name, text, run, _ in self._entries():
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), run, help=text)
