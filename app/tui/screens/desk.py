"""The desk: the page, the line under it, the panel beside it. Here one writes."""

from __future__ import annotations

import time
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from fireside import assets
from fireside.app.settings import Settings
from fireside.app.tui.compositing import DirectCompositor
from fireside.app.tui.keeper import Keeper, Leaf
from fireside.app.tui.keybar import KeyBar
from fireside.app.tui.messages import SettingsChanged, Told
from fireside.app.tui.opening import Opening
from fireside.app.tui.pace import Pace
from fireside.app.tui.panel import Panel
from fireside.app.tui.screens.desk_actions import DeskActions
from fireside.app.tui.scribe import Scribe
from fireside.app.tui.switching import Switching, template_name
from fireside.app.tui.widgets.header import StoryHeader
from fireside.app.tui.widgets.manuscript import Manuscript, Part
from fireside.app.tui.widgets.prompt_line import PromptLine
from fireside.app.tui.widgets.statusline import StatusLine
from fireside.app.updates import (
    Done,
    Failed,
    LoadCancelled,
    Loaded,
    LoadFailed,
    LoadProgress,
)
from fireside.engine import Quant

TITLES = {"story": "Story", "chat": "Chat"}
LINE_TITLES = {
    "story": "Continue ─ the words you type join the story; empty = go on",
    "chat": "Say something",
    "edit": "Edit ─ enter keeps the change, esc leaves it",
}


class Desk(DeskActions):
    """Mediates: the panel and the line say what is wanted, scribe and keeper do it, all show it."""

    CSS_PATH = "desk.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-tiny"), (60, "-narrow"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-high")]  # noqa: RUF012

    def __init__(
        self,
        settings: Settings,
        keeper: Keeper,
        switching: Switching,
        scribe: Scribe,
        opening: Opening,
    ) -> None:
        super().__init__()
        self._compositor = DirectCompositor()
        self.settings = settings
        self.keeper = keeper
        self.switching = switching
        self.scribe = scribe
        self.opening = opening
        self.page = Manuscript(labels=("You", "Teller"), id="page")
        self.line = PromptLine(id="line")
        self.panel = Panel(settings, id="panel")
        self.pace = Pace()
        self.begun_at = 0.0  # the last generation, by time.monotonic
        self.asked = {}
        self._trouble = ""
        self._versions_due = True

    @classmethod
    def make(cls, settings: Settings, keeper: Keeper, inference: Any, opening: Opening) -> Desk:
        """A desk with its helpers, which speak to it and it to them."""
        switching = Switching(
            inference, lambda message, error: desk.tell(message, error), assets.storyteller()
        )
        scribe = Scribe(inference, keeper)
        desk = cls(settings, keeper, switching, scribe, opening)
        scribe.page = desk
        return desk

    def compose(self) -> ComposeResult:
        """Header, room, line, foot."""
        yield StoryHeader()
        with Horizontal(id="room"):
            with Vertical(id="book"):
                yield self.page
                yield self.opening
            yield self.panel
        with Vertical(id="line-box"):
            yield self.line
        yield StatusLine(id="status")
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        """Show the story that is open."""
        self.lay_out()
        self.show_model()
        self.set_focus(self.line)

    # -- the scribe's page ----------------------------------------------------------------------

    def lay_out(self, leaves: list[Leaf] | None = None) -> None:
        """Show the page as the keeper has it."""
        leaves = self.keeper.leaves if leaves is None else leaves
        self.page.page_layout = self.keeper.mode
        self.page.show([Part(x.key, x.author, x.text, x.unfinished) for x in leaves])
        self.label("#book", "border_title", TITLES[self.keeper.mode])
        self._versions_due = True
        self.refresh_desk()

    def hide_last(self) -> None:
        """The last part is about to be written anew."""
        self.lay_out(self.keeper.leaves[:-1])

    def part_begins(self, leaf: Leaf) -> None:
        """A part follows."""
        self.page.begin(Part(leaf.key, leaf.author, leaf.text))
        self.refresh_desk()

    def part_grows(self, leaf: Leaf, text: str) -> None:
        """It becomes longer."""
        self.page.append(text)

    def generation_begins(self) -> None:
        """The model takes up its pen."""
        self.pace.begin()
        self.begun_at = time.monotonic()
        self.page.streaming = True
        self.page.jump_to_end()
        self.line.cursor_blink = False  # drawing is at the model's expense
        self.refresh_desk()
        # The first refresh shows the line empty, the second one the page laid out anew.
        release = self.scribe.writer.release
        self.call_after_refresh(self.call_after_refresh, release)

    def part_ends(self, ending: Done | Failed) -> None:
        """The model has put down its pen."""
        self.page.streaming = False
        self.line.cursor_blink = True
        if isinstance(ending, Done) and ending.statistics.decode_tokens:
            self.panel.show_seed(ending.seed)
        self._versions_due = True
        self.refresh_desk()

    # -- what the engine tells ------------------------------------------------------------------

    @on(Told)
    def _told(self, event: Told) -> None:
        for update in event.updates:
            if isinstance(update, LoadProgress | Loaded | LoadFailed | LoadCancelled):
                ours = update.job == self.switching.job
                self.switching.receive(update)
                if ours and isinstance(update, LoadFailed | LoadCancelled):
                    self.asked = {}
                self._load_told(update)
            else:
                if update.job == self.scribe.job:
                    self.pace.take(update)
                self.scribe.receive(update)
        if event.updates:
            self.panel.meter.update_state(self.pace.state)
            self.query_one(StatusLine).update_state(self.pace.state)
            if not self.page.following:
                self.show_lines_below()
        self._look_after_saving()

    def _load_told(self, update: LoadProgress | Loaded | LoadFailed | LoadCancelled) -> None:
        if isinstance(update, Loaded):
            self.pace.model(update.info)
            self.panel.meter.clear_speeds()
            self.post_message(SettingsChanged(self.asked))
        if not isinstance(update, LoadProgress) and not self.switching.loading:
            self.asked = {}
        self.show_model()

    @property
    def restless(self) -> bool:
        """Whether there is something to see to, though the engine tells nothing."""
        return self._versions_due or self.keeper.trouble != self._trouble

    def _look_after_saving(self) -> None:
        if self.keeper.trouble != self._trouble:
            self._trouble = self.keeper.trouble
            if self._trouble:
                self.tell(f"Not saved yet, trying again: {self._trouble}", error=True)
            else:
                self.tell("Everything is saved.")
        if self._versions_due and not self.scribe.writing and self.keeper.saved:
            self._versions_due = False
            self.attempt(self._show_versions)

    def _show_versions(self) -> None:
        self.version, self.versions = self.keeper.siblings()
        self.redoable = self.keeper.redoable
        shown = f"version {self.version}/{self.versions}" if self.versions > 1 else ""
        self.label("#line-box", "border_subtitle", shown, "sibling(1)")
        self.refresh_keys()

    def show_model(self) -> None:
        """Header and panel say which model is in use, and which is on its way."""
        switching, header = self.switching, self.query_one(StoryHeader)
        header.detail = switching.detail
        header.progress = switching.progress if switching.loading else None
        header.activity = switching.activity
        wanted = switching.wanted
        if wanted is not None:
            self.panel.show_model(wanted.name, wanted.quant)
        self.query_one(StatusLine).model = wanted.name if wanted is not None else ""
        self.refresh_keys()

    def refresh_desk(self) -> None:
        """Title, opening lines, line and keys, as the story now is."""
        self.query_one(StoryHeader).story_title = self.keeper.title
        empty = not self.keeper.leaves and not self.scribe.writing
        self.opening.display = empty and self.keeper.mode == "story"
        self.page.display = not self.opening.display
        purpose = "edit" if self.line.editing is not None else self.keeper.mode
        self.label("#line-box", "border_title", LINE_TITLES[purpose])
        self.refresh_keys()

    # -- what the panel and the line tell ---------------------------------------------------------

    @on(PromptLine.Submitted)
    def _submitted(self, event: PromptLine.Submitted) -> None:
        if event.editing is not None:
            self.replace_part(event.editing, event.text)
        elif not event.text.strip() and self.scribe.writing:
            return
        else:
            self.page.jump_to_end()
            self.scribe.go_on(event.text, self.panel.wish)

    @on(Opening.Chosen)
    def _opening_chosen(self, event: Opening.Chosen) -> None:
        self.set_focus(self.line)
        self.scribe.go_on(event.text, self.panel.wish)

    @on(Opening.StoryChosen)
    def _sample_chosen(self, event: Opening.StoryChosen) -> None:
        self.set_focus(self.line)
        self.open_sample(event.story)

    @on(PromptLine.EditLast)
    def _edit_wanted(self) -> None:
        self.action_edit_last()

    @on(PromptLine.EditCancelled)
    def _edit_cancelled(self) -> None:
        self.refresh_desk()

    @on(Panel.QuantChosen)
    def _quant_chosen(self, event: Panel.QuantChosen) -> None:
        self.choose_quant(event.quant)

    def choose_quant(self, quant: Quant) -> None:
        """Hold the model's weights otherwise."""
        self.ask_for_model({"quant": quant}, quant=quant)

    def choose_template(self, name: str) -> None:
        """Write the turns of chats otherwise from now on."""
        self.panel.template = name
        self.post_message(SettingsChanged({"template": name}))
        self.tell(f"Chats are written for the model by this template: {template_name(name)}.")

    @on(Panel.ThreadsChosen)
    def _threads_chosen(self, event: Panel.ThreadsChosen) -> None:
        self.ask_for_model({"threads": event.threads}, threads=event.threads)

    @on(Panel.Changed)
    def _panel_changed(self, event: Panel.Changed) -> None:
        self.post_message(SettingsChanged(event.values))

    @on(StoryHeader.TitleClicked)
    def _title_clicked(self, event: StoryHeader.TitleClicked) -> None:
        if isinstance(event, StoryHeader.DetailClicked):
            self.action_models()
        else:
            self.action_rename()

    @on(Panel.ModelWanted)
    def _model_wanted(self) -> None:
        self.action_models()

    def on_resize(self, event: events.Resize) -> None:
        """Room for more keys, or fewer."""
        self.refresh_keys()
