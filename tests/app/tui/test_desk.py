"""The desk itself: sizes, keys, palette, themes, help, what is kept of the settings."""

from __future__ import annotations

import pytest
from textual.command import CommandPalette

from fireside.app.paths import Paths
from fireside.app.settings import TEMPLATES
from fireside.app.tui.commands import COMMANDS, FOOTER_ORDER
from fireside.app.tui.keybar import Key, KeyBar, fitting
from fireside.app.tui.screens.help import HelpScreen
from fireside.app.updates import Conversation
from fireside.engine import chat
from tests.app.tui.conftest import Desk, Start
from tests.app.tui.fake import FakeInference

SIZES = [(120, 40), (80, 24), (60, 20), (40, 12)]


def labels(desk: Desk) -> list[str]:
    return [key.label for key in desk.desk.query_one(KeyBar).keys]


async def test_the_foot_shows_what_can_be_done_now(start: Start) -> None:
    inference = FakeInference(hold=True)
    async with start(inference) as desk:
        assert not {"stop", "again", "undo", "redo"} & set(labels(desk))
        await desk.type("A fox", "enter")
        assert "stop" in labels(desk)
        inference.say(" ran")
        await desk.settle()
        await desk.press("escape")
        assert "stop" not in labels(desk)
        assert {"again", "undo"} <= set(labels(desk))
        await desk.press("ctrl+z")
        assert "redo" in labels(desk)


async def test_the_version_in_the_frame_can_be_clicked(start: Start) -> None:
    async with start(FakeInference("the first", "the second")) as desk:
        await desk.type("x", "enter")
        await desk.press("ctrl+r")
        box = desk.desk.query_one("#line-box")
        assert "version 2/2" in str(box.border_subtitle)
        for shown, text in (("version 1/2", "xthe first"), ("version 2/2", "xthe second")):
            width, height = box.region.size
            await desk.pilot.click(box, offset=(width - 6, height - 1))
            await desk.settle()
            assert shown in str(box.border_subtitle)
            assert desk.text == text


async def test_keys_can_be_clicked(start: Start) -> None:
    async with start() as desk:
        bar = desk.desk.query_one(KeyBar)
        x = 1
        for key in fitting(bar.keys, bar.size.width):
            if key.label == "help":
                break
            x += key.width
        await desk.pilot.click(bar, offset=(x + 2, 0))
        await desk.settle()
        assert isinstance(desk.app.screen, HelpScreen)


def test_no_key_is_cut_in_two() -> None:
    keys = [Key("a", "first", "", 2), Key("b", "second", "", 0), Key("c", "third", "", 1)]
    assert [key.shown for key in fitting(keys, 100)] == ["a", "b", "c"]
    assert [key.shown for key in fitting(keys, 20)] == ["b", "c"]
    assert [key.shown for key in fitting(keys, 8)] == ["b"]
    assert fitting(keys, 7) == []


@pytest.mark.parametrize("size", SIZES)
async def test_writing_works_at_every_size(start: Start, size: tuple[int, int]) -> None:
    async with start(FakeInference(" who roared."), size=size) as desk:
        await desk.type("A dragon", "enter")
        assert desk.text == "A dragon who roared."
        page, line = desk.desk.page, desk.desk.line
        assert page.size.height >= size[1] // 3
        assert page.region.bottom <= line.region.y
        assert line.region.bottom <= size[1]
        for widget in (page, line):
            assert widget.region.right <= size[0]


async def test_a_small_terminal_keeps_page_line_and_status(start: Start) -> None:
    async with start(size=(40, 12)) as desk:
        await desk.press("enter")
        shown = {w.id for w in desk.desk.query("#page, #line, #status, #keys, #panel") if w.region}
        assert shown == {"page", "line", "status"}
        assert desk.desk.page.size.height == 10


async def test_the_panel_stands_beside_the_page_or_over_it(start: Start) -> None:
    async with start() as desk:
        panel = desk.desk.panel
        assert panel.region
        await desk.press("f2")
        assert not panel.region
        assert desk.app.focused is desk.desk.line
        await desk.press("f2")
        assert panel.region
    async with start(size=(80, 24)) as desk:
        panel = desk.desk.panel
        width = desk.desk.query_one("#book").region.width
        assert not panel.region
        await desk.press("f2")
        assert panel.region.right == 80
        assert panel.region.height >= 18
        assert desk.desk.query_one("#book").region.width == width == 80
        assert desk.app.focused is not desk.desk.line
        await desk.press("escape")
        assert not panel.region
        assert desk.app.focused is desk.desk.line


async def test_a_terminal_that_is_resized_keeps_the_story(start: Start) -> None:
    async with start() as desk:
        await desk.type("A fox", "enter")
        text = desk.text
        for size in SIZES[::-1]:
            await desk.pilot.resize_terminal(*size)
            await desk.settle()
            assert desk.text == text


async def test_the_palette_lists_every_command(start: Start) -> None:
    async with start() as desk:
        await desk.press("enter")
        await desk.press("ctrl+p")
        assert isinstance(desk.app.screen, CommandPalette)
        await desk.press(*"theme: nord")
        await desk.settle(0.3)
        await desk.press("enter")
        await desk.settle(0.1)
        if isinstance(desk.app.screen, CommandPalette):
            await desk.press("enter")
        assert desk.app.theme == "nord"
        from fireside.app.tui.palette import DeskCommands

        names = {hit.text async for hit in DeskCommands(desk.desk).discover()}
        possible = {c.title for c in COMMANDS if desk.desk.possible(c.action)} - {"Palette…"}
        assert possible <= names


async def test_a_chat_template_is_chosen_and_kept(start: Start, paths: Paths) -> None:
    async with start() as desk:
        await desk.press("f4")
        await desk.press(*"Hello", "enter")
        await desk.settle(0.2)
        desk.desk.choose_template("chatml")
        await desk.settle(0.1)
        assert "chatml" in desk.note
        await desk.press(*"Again", "enter")
        await desk.settle(0.2)
        first, second = (request.prompt for request in desk.inference.requests)
        assert isinstance(first, Conversation)
        assert isinstance(second, Conversation)
        assert (first.template, second.template) == ("", "chatml")
        from fireside.app.tui.palette import DeskCommands

        names = [str(hit.text) async for hit in DeskCommands(desk.desk).search("Chat template")]
        assert len(names) == len(TEMPLATES)
    assert 'template = "chatml"' in paths.config_file.read_text()
    assert {"own", *chat.names()} == set(TEMPLATES)


async def test_themes_are_kept(start: Start, paths: Paths) -> None:
    async with start() as desk:
        assert desk.app.theme == "fireside"
        desk.app.theme = "fireside-paper"
    assert 'theme = "fireside-paper"' in paths.config_file.read_text()
    async with start(theme="fireside-paper") as desk:
        assert not desk.app.current_theme.dark
    async with start(theme="no such theme") as desk:
        assert desk.app.theme == "fireside"


async def test_nothing_is_written_where_nothing_was_set(start: Start, paths: Paths) -> None:
    async with start() as desk:
        await desk.press("enter")
    assert not paths.config_file.exists()


async def test_help_and_back(start: Start) -> None:
    async with start() as desk:
        await desk.press("f1")
        assert isinstance(desk.app.screen, HelpScreen)
        await desk.press("f1")
        assert desk.app.screen is desk.desk


async def test_the_reader_who_scrolled_up_is_left_alone(start: Start) -> None:
    inference = FakeInference(hold=True)
    async with start(inference, size=(80, 24)) as desk:
        await desk.press("enter")
        inference.say("A line.\n" * 60)
        await desk.settle()
        assert desk.desk.page.following
        await desk.press("pageup")
        place = desk.desk.page.scroll_y
        inference.say("More.\n" * 7)
        await desk.settle()
        assert desk.desk.page.scroll_y == place
        assert "new line" in desk.note
        await desk.press("ctrl+end")
        assert desk.desk.page.following
        assert desk.note == ""


async def test_selected_words_are_copied(start: Start) -> None:
    async with start(FakeInference("Once upon a time.")) as desk:
        await desk.press("enter")
        page = desk.desk.page
        await desk.pilot.mouse_down(page, offset=(3, 1))
        await desk.pilot.hover(page, offset=(9, 1))
        await desk.pilot.mouse_up(page, offset=(9, 1))
        await desk.press("ctrl+c")
        assert desk.app.clipboard
        assert desk.app.clipboard in "Once upon a time."


def test_every_key_of_the_foot_has_its_place() -> None:
    assert {c.action for c in COMMANDS if c.label} == set(FOOTER_ORDER)
    titles = [c.title for c in COMMANDS]
    assert len(set(titles)) == len(titles)


async def test_a_mistake_of_ours_is_one_line_and_the_story_is_kept(
    start: Start, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    async def break_it() -> None:
        async with start(FakeInference(" ran.")) as desk:
            await desk.type("A fox", "enter")
            desk.app.action_help = lambda: 1 / 0  # type: ignore[method-assign, assignment]
            await desk.press("f1")

    with pytest.raises(ZeroDivisionError):
        await break_it()
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    async with start() as desk:
        assert desk.text == "A fox ran."
