"""What can be done at the desk: one action for each command."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType

from fireside.app.catalogue import ModelEntry
from fireside.app.library import LibraryError, Mode
from fireside.app.tui.commands import COMMANDS, FOOTER_ORDER, bindings
from fireside.app.tui.keeper import Keeper
from fireside.app.tui.keybar import Key, KeyBar
from fireside.app.tui.opening import Opening
from fireside.app.tui.panel import Panel
from fireside.app.tui.screens.desk_notes import DeskNotes
from fireside.app.tui.screens.models import ModelsScreen
from fireside.app.tui.screens.stories import Chosen, StoriesScreen
from fireside.app.tui.scribe import Scribe
from fireside.app.tui.switching import Switching
from fireside.app.tui.widgets.manuscript import Manuscript
from fireside.app.tui.widgets.prompt_line import PromptLine
from fireside.assets import SampleStory

if TYPE_CHECKING:
    from fireside.app.tui.app import FiresideApp


class DeskActions(DeskNotes):
    """The keys of the desk, and the same for the palette."""

    BINDINGS: ClassVar[list[BindingType]] = [*bindings()]

    app: FiresideApp
    keeper: Keeper
    scribe: Scribe
    switching: Switching
    opening: Opening
    page: Manuscript
    line: PromptLine
    panel: Panel
    version = 1
    versions = 1
    redoable = False
    asked: dict[str, Any]  # settings of the model that is being loaded

    def lay_out(self) -> None:
        """Show the page as the keeper has it."""
        raise NotImplementedError

    def refresh_desk(self) -> None:
        """Show what surrounds it."""
        raise NotImplementedError

    def show_model(self) -> None:
        """Say which model is in use."""
        raise NotImplementedError

    def attempt(self, deed: Callable[[], object]) -> bool:
        """Do what the library may refuse; say why it does."""
        try:
            deed()
        except LibraryError as error:
            self.tell(str(error), error=True)
            return False
        return True

    # -- which keys work now --------------------------------------------------------------------

    def possible(self, action: str) -> bool:
        """Whether the action would do something now."""
        writing, leaves = self.scribe.writing, self.keeper.leaves
        if action == "stop":
            return writing or self.switching.loading
        if action in ("again", "edit_last"):
            return bool(leaves) and not writing
        if action in ("rename", "export", "undo"):
            return bool(leaves)
        if action == "redo":
            return self.redoable
        if action.startswith("sibling"):
            return self.versions > 1 and not writing
        return True

    def refresh_keys(self) -> None:
        """The foot shows the keys that work now."""
        keys = []
        for command in COMMANDS:
            if command.label and self.possible(command.action):
                label = command.label
                if command.action == "sibling(1)":
                    label = f"{self.version}/{self.versions}"
                rank = FOOTER_ORDER.index(command.action)
                action = command.action
                target = action if action.startswith("app.") else f"screen.{action}"
                keys.append(Key(command.shown, label, target, rank))
        self.query_one(KeyBar).keys = tuple(keys)

    # -- writing --------------------------------------------------------------------------------

    def action_go_on(self) -> None:
        """Send the line."""
        self.line.post_message(PromptLine.Submitted(self.line, self.line.text, self.line.editing))
        if self.line.editing is None:
            self.line.clear()
        else:
            self.line.stop_editing()

    def action_stop(self) -> None:
        """Stop what runs; where nothing does, come back to the line."""
        if self.scribe.stop():
            return
        if self.has_class("-panel-on"):
            self.remove_class("-panel-on")
        elif self.focused is self.line and self.switching.cancel():
            return
        self.set_focus(self.line)

    def action_again(self) -> None:
        """Another version of the last part."""
        if self.line.editing is None:
            self.attempt(lambda: self.scribe.again(self.panel.wish))

    def action_sibling(self, step: int) -> None:
        """Another version that is there already."""
        if not self.scribe.writing:
            self._move(lambda: self.keeper.turn(step))

    def action_undo(self) -> None:
        """One step back."""
        self.scribe.when_idle(lambda: self._move(self.keeper.undo, "There is nothing to undo."))

    def action_redo(self) -> None:
        """One step forth."""
        self.scribe.when_idle(lambda: self._move(self.keeper.redo, "There is nothing to redo."))

    def _move(self, step: Callable[[], bool], otherwise: str = "") -> None:
        moved = False

        def deed() -> None:
            nonlocal moved
            moved = step()

        if self.attempt(deed):
            if moved:
                self.lay_out()
                self.page.jump_to_end()
            elif otherwise:
                self.tell(otherwise)

    def action_edit_last(self) -> None:
        """Put the last part into the line (in a chat: what the writer said last)."""
        leaves = self.keeper.leaves
        if not leaves:
            self.action_to_opening(last=True)
            return
        if self.scribe.writing:
            return
        leaf = leaves[-1]
        if self.keeper.mode == "chat":
            leaf = next((x for x in reversed(leaves) if x.author == "writer"), leaf)
        self.line.edit_part(leaf.key, leaf.text.strip())
        self.refresh_desk()

    def replace_part(self, key: int, text: str) -> None:
        """The line was sent with another text for a part."""
        leaf = next((x for x in self.keeper.leaves if x.key == key), None)
        if leaf is None or text.strip() == leaf.text.strip() or not text.strip():
            self.refresh_desk()
            return
        before = leaf.text[: len(leaf.text) - len(leaf.text.lstrip())]
        if self.attempt(lambda: self.keeper.replace(leaf, before + text.strip())):
            self.lay_out()
            self.page.jump_to_end()
            if self.keeper.mode == "chat" and leaf.author == "writer":
                self.scribe.go_on("", self.panel.wish)

    def action_to_opening(self, last: bool = False) -> None:
        """From the line to the opening lines above it."""
        if self.opening.display:
            self.opening.enter(last)

    # -- stories --------------------------------------------------------------------------------

    def action_new(self) -> None:
        """An empty page."""
        self.scribe.when_idle(self._new)

    def _new(self) -> None:
        if self.attempt(lambda: self.keeper.new(self.keeper.mode)):
            self.opening.deal()
            self.lay_out()
            self.set_focus(self.line)

    def action_mode(self) -> None:
        """Story or chat: on an empty page it changes, a written one stays and a new one comes."""
        mode: Mode = "chat" if self.keeper.mode == "story" else "story"

        def change() -> None:
            if self.attempt(lambda: self.keeper.new(mode)):
                self.lay_out()
                self.set_focus(self.line)

        self.scribe.when_idle(change)

    def action_stories(self, begin: str = "") -> None:
        """The list of stories; `begin`: what to do there at once with the one on the page."""
        screen = StoriesScreen(
            self.keeper.library, self.keeper.story_id, self._story_changed, begin
        )
        self.app.push_screen(screen, self._story_chosen)

    def action_rename(self) -> None:
        """Give the story a title."""
        if self.keeper.story_id is not None:
            self.action_stories("rename")

    def action_export(self) -> None:
        """Write the story to a file."""
        if self.keeper.story_id is not None:
            self.action_stories("export")

    def open_story(self, story_id: int) -> None:
        """Put a story on the page."""
        if story_id == self.keeper.story_id:
            return

        def deed() -> None:
            if self.attempt(lambda: self.keeper.open(story_id)):
                self.lay_out()
                self.page.jump_to_end()
                self.set_focus(self.line)

        self.scribe.when_idle(deed)

    def open_sample(self, story: SampleStory) -> None:
        """Put one of our stories on the empty page: from now on it is one of the writer's own."""
        if self.keeper.leaves or self.scribe.writing or not self.attempt(self.keeper.new):
            return
        self.keeper.rename(story.title)
        self.keeper.write("writer", story.text)
        self.lay_out()
        self.call_after_refresh(self.page.jump_to_start)  # the page has no size before that
        self.tell("It is yours now: read it, change it, or let the model go on from its end.")

    def _story_chosen(self, chosen: Chosen | None) -> None:
        self.set_focus(self.line)
        if chosen is not None:
            self.open_story(chosen.story_id)

    def _story_changed(self, story_id: int, title: str | None) -> None:
        if story_id != self.keeper.story_id:
            return
        if title is None:
            self.action_new()
        else:
            self.keeper.was_renamed(title)
            self.refresh_desk()

    # -- the desk itself ------------------------------------------------------------------------

    def action_models(self) -> None:
        """Choose a model."""
        info = self.switching.info
        screen = ModelsScreen(
            self.app.find_models, self.app.paths.models_dir, str(info.spec.path) if info else ""
        )
        self.app.push_screen(screen, self._model_chosen)

    def _model_chosen(self, entry: ModelEntry | None) -> None:
        self.set_focus(self.line)
        if entry is not None:
            # a name may mean another file tomorrow, or none: only a path is sure
            embedded = entry.source == "embedded"
            model = entry.name if embedded else str(entry.path.absolute())
            self.ask_for_model({"model": model, "tokenizer": ""}, path=entry.path)

    def ask_for_model(self, settings: dict[str, Any], **change: Any) -> None:
        """Load another model; the settings that say so are kept once it is there."""
        self.asked.update(settings)
        self.switching.change(**change)
        self.show_model()

    def action_panel(self) -> None:
        """Show or hide the panel: beside the page where there is room, else over it."""
        wide = self.has_class("-wide")
        self.toggle_class("-panel-off" if wide else "-panel-on")
        if self.has_class("-panel-off" if wide else "-panel-on") != wide:
            self.set_focus(self.panel.query_one("#temperature"))
        else:
            self.set_focus(self.line)

    def action_copy_text(self) -> None:
        """Copy what is selected; with nothing selected, stop."""
        selected = self.get_selected_text()
        if selected:
            self.app.copy_to_clipboard(selected)
            self.tell("Copied.")
        elif not self.scribe.stop() and not self.switching.cancel():
            self.tell("ctrl+q leaves Fireside.")

    def action_page(self, step: int) -> None:
        """Turn the page of the story."""
        if step < 0:
            self.page.action_page_up()
        else:
            self.page.action_page_down()

    def action_end(self) -> None:
        """To the end of the story."""
        self.page.jump_to_end()
