"""The page, as a reader meets it: by key, by mouse, while words come."""

from __future__ import annotations

from typing import Literal

import pytest
from textual.color import Color
from textual.filter import Monochrome
from textual.geometry import Offset, Region
from textual.selection import Selection

from fireside.app.tui.widgets.manuscript import Manuscript, Part
from tests.app.tui.snapshots import assert_snapshot
from tests.app.tui.widgets.stage import on_stage

STORY = [
    Part(1, "model", "Once upon a time there was a dragon who could not roar.\n\n"),
    Part(2, "writer", 'One day he met a mouse who was lost. "Can you help me?"'),
    Part(3, "model", " asked the mouse.\n\nThe dragon thought and thought."),
]
LONG = Part(1, "model", "\n".join(f"line {number}" for number in range(100)))


async def test_parts_join_on_a_line_and_the_bar_marks_the_writer() -> None:
    async with on_stage(Manuscript(STORY), size=(50, 12)) as (stage, _):
        assert stage.rows[:8] == [
            "  Once upon a time there was a dragon who could",
            "  not roar.",
            "",
            '▎ One day he met a mouse who was lost. "Can you',
            '▎ help me?" asked the mouse.',
            "",
            "  The dragon thought and thought.",
            "",
        ]


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark"])
async def test_look(theme: str) -> None:
    page = Manuscript([*STORY, Part(4, "model", " 👨\u200d👩\u200d👧 字字。", unfinished=True)])
    async with on_stage(page, size=(60, 12), theme=theme) as (stage, _):
        assert_snapshot(stage, f"manuscript-{theme}")


async def test_another_theme_is_drawn_at_once() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(60, 12)) as (stage, pilot):

        def ground() -> str:
            style = next(iter(page.render_lines(Region(0, 0, 60, 1))[0])).style
            assert style is not None
            return str(style.bgcolor)

        dark = ground()
        stage.theme = "textual-light"
        await pilot.pause()
        assert ground() != dark


async def test_without_colour_the_writer_and_the_selection_can_still_be_told() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(60, 12)) as (_, pilot):
        page.screen.selections = {page: Selection(Offset(4, 2), Offset(7, 2))}
        await pilot.pause()
        row = page.render_line(2).apply_filter(Monochrome(), Color(18, 18, 18))
        bar, plain, chosen = (row.crop(x, x + 1) for x in (0, 3, 7))
        assert bar.text == "▎"
        looks = []
        for strip in (plain, chosen):
            style = next(iter(strip)).style
            assert style is not None
            assert style.bold
            looks.append(style.bgcolor)
        assert looks[0] != looks[1]


async def test_chat_names_who_speaks() -> None:
    page = Manuscript(
        [Part(1, "writer", "Who are you?"), Part(2, "model", "A dragon. " * 6)], layout="chat"
    )
    page.labels = ("You", "Ember")
    async with on_stage(page, size=(40, 8)) as (stage, _):
        page.streaming = True
        await stage.workers.wait_for_complete()
        assert_snapshot(stage, "manuscript-chat")
        assert stage.rows[0] == "You   ▎ Who are you?"
        assert stage.rows[2].startswith("Ember   A dragon.")
        assert stage.rows[3].startswith("        dragon.")


async def test_layout_changes_in_place() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(60, 12)) as (stage, pilot):
        page.page_layout = "chat"
        await pilot.pause()
        assert stage.rows[0].startswith("Story   Once")
        page.page_layout = "story"
        await pilot.pause()
        assert stage.rows[0].startswith("  Once")
        assert page.parts == tuple(STORY)


async def test_a_wide_terminal_centres_a_column_that_can_be_read() -> None:
    async with on_stage(Manuscript([Part(1, "model", "word " * 40)]), size=(140, 8)) as (stage, _):
        row = stage.rows[0]
        assert len(row.strip()) <= 76
        assert 28 <= len(row) - len(row.lstrip()) <= 34


async def test_following_the_end_and_leaving_it() -> None:
    page = Manuscript([LONG])
    async with on_stage(page, size=(40, 10)) as (stage, pilot):
        assert page.following
        assert stage.rows[9].strip() == "line 99"
        page.append("\nnew")
        await pilot.pause()
        assert stage.rows[9].strip() == "new"
        page.focus()
        await pilot.press("up")
        assert not page.following
        assert page.lines_below == 0  # nothing has come since
        before = stage.rows
        page.append("er\nand newer\nand newest")
        await pilot.pause()
        assert page.lines_below == 2
        assert [row[:20] for row in stage.rows[:9]] == [row[:20] for row in before[:9]]
        await pilot.press("end")
        assert page.following
        assert page.lines_below == 0
        assert stage.rows[9].strip() == "and newest"
        told = [message.following for message in stage.sent(Manuscript.FollowingChanged)]
        assert told == [False, True]


async def test_coming_back_to_the_end_by_oneself_follows_again() -> None:
    page = Manuscript([LONG])
    async with on_stage(page, size=(40, 10)) as (_, pilot):
        page.focus()
        await pilot.press("pageup")
        assert not page.following
        await pilot.press("pagedown")
        assert page.following


async def test_the_wheel_leaves_and_returns() -> None:
    page = Manuscript([LONG])
    async with on_stage(page, size=(40, 10)) as (_, pilot):
        await pilot._post_mouse_events([_wheel_up()], page, offset=(5, 5))
        await pilot.pause()
        assert not page.following
        assert page.scroll_y < page.max_scroll_y
        page.jump_to_end()
        assert page.following
        assert page.scroll_y == page.max_scroll_y


def _wheel_up() -> type:
    from textual.events import MouseScrollUp

    return MouseScrollUp


async def test_all_keys_move_the_page() -> None:
    page = Manuscript([LONG])
    async with on_stage(page, size=(40, 10)) as (stage, pilot):
        page.focus()
        await pilot.press("home")
        assert stage.rows[0].strip() == "line 0"
        await pilot.press("down", "down", "up")
        assert stage.rows[0].strip() == "line 1"
        await pilot.press("pagedown")
        assert stage.rows[0].strip() == "line 10"
        await pilot.press("pageup")
        assert stage.rows[0].strip() == "line 1"


async def test_the_caret_stands_after_the_last_word_even_where_the_line_is_full() -> None:
    page = Manuscript([Part(1, "model", "word ")])
    async with on_stage(page, size=(24, 4)) as (stage, pilot):
        page.streaming = True
        await pilot.pause()
        assert stage.rows[0] == "  word ▌"
        page.append("x" * (page.size.width - 3 - 5))
        await pilot.pause()
        assert stage.rows[0].endswith("x▌")
        page.streaming = False
        await pilot.pause()
        assert stage.rows[0].endswith("x")


@pytest.mark.parametrize("padding", [(0, 0), (2, 0), (1, 2)])
@pytest.mark.parametrize("border", ["none", "round"])
async def test_a_frame_around_the_page_changes_nothing_in_it(
    padding: tuple[int, int], border: Literal["none", "round"]
) -> None:
    page = Manuscript([LONG])
    page.styles.padding = padding
    page.styles.border = (border, "red")
    async with on_stage(page, size=(40, 14)) as (stage, pilot):
        frame = padding[0] + (border == "round")
        inside = stage.rows[frame : 14 - frame] if frame else stage.rows
        names = [row.strip(" │▁▂▃▄▅▆▇█") for row in inside]
        assert names == [f"line {number}" for number in range(86 + 2 * frame, 100)]
        page.append("\nnew")
        await pilot.pause()
        assert stage.rows[13 - frame].strip(" │") == "new"


async def test_a_narrower_window_keeps_the_line_that_was_read() -> None:
    text = "\n".join(f"paragraph {number} " + "and so on " * 12 for number in range(60))
    page = Manuscript([Part(1, "model", text)])
    async with on_stage(page, size=(80, 10)) as (stage, pilot):
        page.focus()
        page.scroll_to(y=70, animate=False)
        await pilot.pause()
        top = stage.rows[0].split()[:2]
        assert not page.following
        await pilot.resize_terminal(50, 10)
        await pilot.pause()
        assert stage.rows[0].split()[:2] == top
        page.jump_to_end()
        await pilot.resize_terminal(70, 6)
        await pilot.pause()
        assert page.following
        assert page.scroll_y == page.max_scroll_y
        assert stage.rows[5].strip().endswith("and so on")


async def test_showing_another_version_keeps_the_place_in_what_is_common() -> None:
    second = Part(2, "model", "\nthis" * 30)
    page = Manuscript([LONG, second])
    async with on_stage(page, size=(40, 10)) as (stage, pilot):
        page.scroll_to(y=40, animate=False)
        await pilot.pause()
        page.show([LONG, Part(3, "model", "\nthat" * 5)])
        await pilot.pause()
        assert stage.rows[0].strip() == "line 40"
        assert not page.following
        page.show([Part(4, "model", "another story")])
        await pilot.pause()
        assert stage.rows[0].strip() == "another story"
        assert page.following


async def test_the_end_of_a_generation_leaves_the_reader_alone() -> None:
    text = "\n".join(f"line {number}" for number in range(60)) + " "
    page = Manuscript([Part(1, "writer", "Well: "), Part(2, "model", text, unfinished=True)])
    async with on_stage(page, size=(40, 10)) as (stage, pilot):
        page.scroll_to(y=20, animate=False)
        page.screen.selections = {page: Selection(Offset(0, 22), Offset(4, 22))}
        await pilot.pause()
        before = stage.rows
        page.show([Part(5, "writer", "Well: "), Part(6, "model", text.rstrip())])
        await pilot.pause()
        assert stage.rows == before
        assert not page.following
        assert page.selected_text == "line"
        assert [part.id for part in page.parts] == [5, 6]


async def test_undoing_while_at_the_end_stays_at_the_end() -> None:
    page = Manuscript([LONG, Part(2, "model", "\nthis" * 30)])
    async with on_stage(page, size=(40, 10)) as (stage, pilot):
        page.show([LONG])
        await pilot.pause()
        assert stage.rows[9].strip() == "line 99"
        page.show([])
        await pilot.pause()
        assert not any(row.strip() for row in stage.rows)
        page.begin(Part(1, "writer", "anew"))
        await pilot.pause()
        assert stage.rows[0] == "▎ anew"


async def test_text_can_be_given_before_there_is_a_screen() -> None:
    page = Manuscript()
    page.show(STORY)
    page.append(" And smiled.")
    page.page_layout = "chat"
    page.page_layout = "story"
    assert page.text.endswith("thought. And smiled.")
    async with on_stage(page, size=(60, 9)) as (stage, _):
        assert stage.rows[5] == "  The dragon thought and thought. And smiled."


async def test_nothing_in_a_text_reaches_the_terminal_as_a_command() -> None:
    page = Manuscript([Part(1, "model", "red \x1b[31m\x9b2J bell\x07 \u202eback")])
    async with on_stage(page, size=(60, 4)) as (stage, _):
        assert stage.rows[0] == "  red ␛[31m\ufffd2J bell␇ back"
        for y in range(4):
            assert not set("\x1b\x07\x9b\u202e") & set(page.render_line(y).text)


# -- mouse


async def test_a_click_tells_the_part() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(50, 12)) as (stage, pilot):
        await pilot.click(page, offset=(20, 4))
        await pilot.click(page, offset=(4, 4))
        await pilot.pause()
        assert [message.part_id for message in stage.sent(Manuscript.PartClicked)] == [3, 2]


async def test_dragging_selects_and_soft_line_ends_vanish() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(50, 12)) as (_, pilot):
        await pilot.mouse_down(page, offset=(6, 3))
        await pilot.hover(page, offset=(8, 4))
        await pilot.mouse_up(page, offset=(8, 4))
        await pilot.pause()
        assert page.selected_text == 'day he met a mouse who was lost. "Can you help me'
        assert page.screen.get_selected_text() == page.selected_text
        page.append(" More.")
        await pilot.pause()
        assert page.selected_text.startswith("day he met")


async def test_a_selection_is_seen_and_gone_with_the_text() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(50, 12)) as (stage, pilot):
        page.screen.selections = {page: Selection(Offset(4, 3), Offset(7, 3))}
        await pilot.pause()
        assert page.selected_text == "day"
        assert_snapshot(stage, "manuscript-selection")
        page.show([])
        assert page.selected_text == ""


@pytest.mark.parametrize("above", [0, 2])
async def test_clicks_select_a_word_and_a_paragraph(above: int) -> None:
    page = Manuscript(STORY)
    page.styles.padding = (above, 0, 0, 0)
    async with on_stage(page, size=(50, 12)) as (_, pilot):
        await pilot.click(page, offset=(7, 3 + above), times=2)
        await pilot.pause()
        assert page.selected_text == "day"
        await pilot.click(page, offset=(10, 3 + above), times=3)
        await pilot.pause()
        assert page.selected_text == STORY[1].text + " asked the mouse."


async def test_a_selection_from_the_margin_begins_with_the_line() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(50, 12)) as (_, pilot):
        await pilot.mouse_down(page, offset=(0, 4))
        await pilot.hover(page, offset=(48, 4))
        await pilot.mouse_up(page, offset=(48, 4))
        assert page.selected_text == 'help me?" asked the mouse.'


async def test_all_can_be_selected() -> None:
    page = Manuscript(STORY)
    async with on_stage(page, size=(50, 12)):
        page.text_select_all()
        assert page.selected_text == page.text
