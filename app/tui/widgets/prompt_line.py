"""The line to continue or steer: one row that grows to three, and more while a part is edited."""

from __future__ import annotations

from dataclasses import dataclass

from textual import events
from textual.actions import SkipAction
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import TextArea

from fireside.app.tui.widgets.wrapping import sanitise

_NEW_LINE_KEYS = frozenset({"shift+enter", "ctrl+j", "alt+enter", "ctrl+enter"})


class PromptLine(TextArea):
    """Enter sends, shift+enter or ctrl+j begins a new line, up on an empty line edits.

    Keys for which an empty line has no use (arrows, page keys, undo) are left to the screen.
    """

    DEFAULT_CSS = """
    PromptLine {
        height: auto;
        min-height: 1;
        max-height: 3;
        border: none;
        padding: 0 1;
        background: $background;
        scrollbar-size-vertical: 1;
        &:focus { border: none; }
        &.-editing { max-height: 10; }
    }
    """

    editing: reactive[int | None] = reactive[int | None](None, init=False)
    """The id of the part whose text the line holds, or None."""

    @dataclass
    class Submitted(Message):
        """Enter was pressed. `editing` is the part that `text` replaces, or None to go on."""

        prompt_line: PromptLine
        text: str
        editing: int | None = None

        @property
        def control(self) -> PromptLine:
            """The line that was sent."""
            return self.prompt_line

    @dataclass
    class EditLast(Message):
        """Up was pressed on an empty line: the last part is to be edited."""

        prompt_line: PromptLine

        @property
        def control(self) -> PromptLine:
            """The empty line."""
            return self.prompt_line

    @dataclass
    class EditCancelled(Message):
        """Escape was pressed while a part was edited; the line is as it was before."""

        prompt_line: PromptLine
        part_id: int

        @property
        def control(self) -> PromptLine:
            """The line."""
            return self.prompt_line

    def __init__(
        self,
        text: str = "",
        *,
        placeholder: str = "",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        """Create a line."""
        super().__init__(
            text,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            compact=True,
            placeholder=placeholder,
            name=name,
            id=id,
            classes=classes,
            disabled=disabled,
        )
        self._draft = ""

    # -- editing a part

    def edit_part(self, part_id: int, text: str) -> None:
        """Hold the text of a part until it is sent or given up; what was typed waits."""
        if self.editing is None:
            self._draft = self.text
        self.editing = part_id
        self._put(text)
        self.focus()

    def stop_editing(self) -> None:
        """Return to the line as it was before."""
        if self.editing is not None:
            self.editing = None
            self._put(self._draft)
            self._draft = ""

    def watch_editing(self, editing: int | None) -> None:
        """Give the text of a part more room."""
        self.set_class(editing is not None, "-editing")

    def _put(self, text: str) -> None:
        self.load_text(text)
        self.move_cursor(self.document.end)

    # -- keys

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self._submit()
        elif event.key in _NEW_LINE_KEYS:
            event.stop()
            event.prevent_default()
            self.insert("\n")
        elif event.key == "escape" and self.editing is not None:
            event.stop()
            event.prevent_default()
            part_id = self.editing
            self.stop_editing()
            self.post_message(self.EditCancelled(self, part_id))
        else:
            await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        event.prevent_default()
        event.stop()
        # A pasted page may hold control characters, which must not reach the terminal.
        self._replace_via_keyboard(sanitise(event.text), *self.selection)

    def _submit(self) -> None:
        text, editing = self.text, self.editing
        if editing is None:
            self._put("")
        else:
            self.stop_editing()
        self.post_message(self.Submitted(self, text, editing))

    def _leave_empty(self) -> None:
        """Let the screen have a key that an empty line has no use for."""
        if not self.text:
            raise SkipAction()

    def action_cursor_up(self, select: bool = False) -> None:
        """Move up, or ask for the last part from an empty line."""
        if self.text or self.editing is not None:
            super().action_cursor_up(select)
        else:
            self.post_message(self.EditLast(self))

    def action_cursor_down(self, select: bool = False) -> None:
        """Move down."""
        self._leave_empty()
        super().action_cursor_down(select)

    def action_cursor_left(self, select: bool = False) -> None:
        """Move left."""
        self._leave_empty()
        super().action_cursor_left(select)

    def action_cursor_right(self, select: bool = False) -> None:
        """Move right."""
        self._leave_empty()
        super().action_cursor_right(select)

    def action_cursor_line_start(self, select: bool = False) -> None:
        """Move to the beginning of the line."""
        self._leave_empty()
        super().action_cursor_line_start(select)

    def action_cursor_line_end(self, select: bool = False) -> None:
        """Move to the end of the line."""
        self._leave_empty()
        super().action_cursor_line_end(select)

    def action_cursor_page_up(self) -> None:
        """Page keys turn the page of the story, unless a long part is edited."""
        if self.editing is None:
            raise SkipAction()
        super().action_cursor_page_up()

    def action_cursor_page_down(self) -> None:
        """Page keys turn the page of the story, unless a long part is edited."""
        if self.editing is None:
            raise SkipAction()
        super().action_cursor_page_down()

    def action_undo(self) -> None:
        """Undo typing; with nothing typed, the screen undoes in the story."""
        self._leave_empty()
        super().action_undo()

    def action_redo(self) -> None:
        """Redo typing; where there is none to redo, the screen redoes in the story."""
        if not self.history.redo_stack:
            self._leave_empty()
        super().action_redo()

    def action_copy(self) -> None:
        """Copy what is selected here; with nothing selected the screen decides."""
        if not self.selected_text:
            raise SkipAction()
        super().action_copy()
