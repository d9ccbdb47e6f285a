"""The line under the page: sends, grows, edits, and leaves to the screen what is not its own."""

from __future__ import annotations

import time
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import BindingType

from fireside.app.tui.widgets.prompt_line import PromptLine
from tests.app.tui.snapshots import assert_snapshot
from tests.app.tui.widgets.stage import on_stage


async def test_enter_sends_and_an_empty_line_goes_on() -> None:
    line = PromptLine()
    async with on_stage(line) as (stage, pilot):
        line.focus()
        await pilot.press("h", "i", "enter", "enter")
        sent = stage.sent(PromptLine.Submitted)
        assert [(message.text, message.editing) for message in sent] == [("hi", None), ("", None)]
        assert line.text == ""


async def test_new_lines_grow_the_line_to_three_rows() -> None:
    line = PromptLine()
    async with on_stage(line) as (stage, pilot):
        line.focus()
        assert line.size.height == 1
        await pilot.press("a", "ctrl+j", "b", "shift+enter", "c")
        assert line.text == "a\nb\nc"
        assert line.size.height == 3
        await pilot.press("ctrl+j", "d")
        assert line.size.height == 3
        await pilot.press("enter")
        await pilot.pause()
        assert line.size.height == 1
        assert [message.text for message in stage.sent(PromptLine.Submitted)] == ["a\nb\nc\nd"]


async def test_long_text_wraps_and_grows_too() -> None:
    line = PromptLine()
    async with on_stage(line, size=(40, 10)) as (_, pilot):
        line.focus()
        line.insert("word " * 12)
        await pilot.pause()
        assert line.size.height == 2


async def test_a_pasted_page_comes_whole_and_harmless_and_stays_fluid() -> None:
    line = PromptLine()
    page = "Once upon a time there was a dragon.\r\n" * 500
    async with on_stage(line) as (_, pilot):
        line.focus()
        line.post_message(events.Paste(page + "\x1b[31mend"))
        await pilot.pause()
        assert line.text == page.replace("\r\n", "\n") + "␛[31mend"
        before = time.perf_counter()
        await pilot.press("!", "!", "!")
        assert time.perf_counter() - before < 2  # a guard against the hopeless, not a measurement
        assert line.text.endswith("end!!!")


async def test_up_on_an_empty_line_asks_for_the_last_part() -> None:
    line = PromptLine()
    async with on_stage(line) as (stage, pilot):
        line.focus()
        await pilot.press("a", "up", "delete", "up")
        assert len(stage.sent(PromptLine.EditLast)) == 1


async def test_editing_a_part_and_sending_it() -> None:
    line = PromptLine()
    async with on_stage(line) as (stage, pilot):
        line.insert("a draft")
        line.edit_part(7, "The dragon\nslept.")
        await pilot.press("!", "enter")
        (sent,) = stage.sent(PromptLine.Submitted)
        assert (sent.text, sent.editing) == ("The dragon\nslept.!", 7)
        assert line.editing is None
        assert line.text == "a draft"


async def test_escape_gives_up_editing() -> None:
    line = PromptLine()
    async with on_stage(line) as (stage, pilot):
        line.insert("a draft")
        line.edit_part(7, "The dragon")
        line.edit_part(8, "The mouse")
        assert line.has_class("-editing")
        await pilot.press("x", "escape")
        assert [message.part_id for message in stage.sent(PromptLine.EditCancelled)] == [8]
        assert line.text == "a draft"
        assert line.editing is None
        assert not line.has_class("-editing")
        assert stage.sent(PromptLine.Submitted) == []


async def test_a_part_that_is_edited_has_room() -> None:
    line = PromptLine()
    async with on_stage(line) as (_, pilot):
        line.edit_part(1, "\n".join("abcdefgh"))
        await pilot.pause()
        assert line.size.height == 8
        line.stop_editing()
        await pilot.pause()
        assert line.size.height == 1


class Screenful(App[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        (key, f"note('{key}')", key)
        for key in ("left", "right", "home", "pageup", "pagedown", "ctrl+z", "ctrl+y", "escape")
    ]

    def compose(self) -> ComposeResult:
        yield PromptLine()

    def on_mount(self) -> None:
        self.noted: list[str] = []

    def action_note(self, key: str) -> None:
        self.noted.append(key)


async def test_an_empty_line_leaves_its_keys_to_the_screen() -> None:
    app = Screenful()
    keys = ["left", "right", "home", "pageup", "pagedown", "ctrl+z", "ctrl+y", "escape"]
    async with app.run_test() as pilot:
        await pilot.press(*keys)
        assert app.noted == keys
        app.noted.clear()
        await pilot.press("a", "b", *keys)
        assert app.noted == ["pageup", "pagedown", "escape"]
        line = app.query_one(PromptLine)
        line.edit_part(1, "text")
        await pilot.press("pageup", "ctrl+z")
        assert app.noted == ["pageup", "pagedown", "escape"]


async def test_undoing_what_was_typed_comes_before_undoing_in_the_story() -> None:
    line = PromptLine()
    async with on_stage(line) as (_, pilot):
        line.focus()
        await pilot.press("a", "ctrl+z")
        assert line.text == ""
        await pilot.press("ctrl+y")
        assert line.text == "a"


async def test_look() -> None:
    line, other = PromptLine(placeholder="empty = go on"), PromptLine("Suddenly the door opened")
    async with on_stage(line, other, size=(40, 6)) as (stage, pilot):
        line.cursor_blink = other.cursor_blink = False
        other.focus()
        await pilot.pause()
        assert_snapshot(stage, "prompt-line")
