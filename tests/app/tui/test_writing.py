"""Writing at the desk: going on, stopping, versions, undo, editing."""

from __future__ import annotations

import pytest

from fireside import assets
from tests.app.tui.conftest import Start
from tests.app.tui.fake import WORDS, FakeInference


async def test_words_join_the_story_and_the_model_goes_on(start: Start) -> None:
    async with start(FakeInference(" who could not roar.", " He met a mouse.")) as desk:
        await desk.type("There was a dragon", "enter")
        assert desk.inference.prompt == "There was a dragon"
        assert desk.parts == [
            ("writer", "There was a dragon"),
            ("model", " who could not roar."),
        ]
        assert desk.text == "There was a dragon who could not roar."
        await desk.type("One day", "enter")
        assert desk.inference.prompt == "There was a dragon who could not roar. One day"
        assert desk.text.endswith(" One day He met a mouse.")


async def test_the_model_begins_when_the_page_is_drawn(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        assert desk.desk.line.cursor_blink
        await desk.type("A fox", "enter")
        await desk.settle()
        assert desk.inference.released == desk.inference.jobs
        assert not desk.desk.line.cursor_blink  # it would be drawn at the model's expense
        await desk.press("escape")
        assert desk.desk.line.cursor_blink


async def test_an_empty_line_goes_on(start: Start) -> None:
    async with start(FakeInference("Once", " upon a time")) as desk:
        await desk.press("enter")
        assert desk.inference.prompt == ""
        await desk.press("enter")
        assert desk.inference.prompt == "Once"
        assert desk.text == "Once upon a time"


async def test_stopping_keeps_what_is_there(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        await desk.type("A fox", "enter")
        assert desk.desk.scribe.writing
        desk.inference.say(" ran")
        await desk.settle()
        assert desk.desk.page.streaming
        await desk.press("escape")
        assert not desk.desk.scribe.writing
        assert not desk.desk.page.streaming
        assert desk.text == "A fox ran"
        assert desk.leaves[-1].provenance is not None
        assert desk.leaves[-1].provenance.finish_reason == "aborted"


async def test_control_c_stops_where_nothing_is_selected(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        await desk.press("enter")
        desk.inference.say("Words")
        await desk.settle()
        await desk.press("ctrl+c")
        assert not desk.desk.scribe.writing
        assert desk.text == "Words"
        await desk.press("ctrl+c")
        assert "ctrl+q" in desk.note


async def test_stopping_before_the_first_word_leaves_no_part(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        await desk.type("A fox", "enter")
        await desk.press("escape")
        assert desk.parts == [("writer", "A fox")]


async def test_words_sent_while_the_model_writes_cut_in(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        await desk.type("A fox", "enter")
        desk.inference.say(" ran")
        await desk.settle()
        await desk.type("But then", "enter")
        assert desk.inference.prompt == "A fox ran But then"
        await desk.press("escape")
        assert desk.text == "A fox ran But then"


async def test_writing_again_makes_versions(start: Start) -> None:
    async with start(FakeInference(" one.", " two.", " three.")) as desk:
        await desk.type("Count:", "enter")
        await desk.press("ctrl+r")
        assert desk.inference.prompt == "Count:"
        assert desk.text == "Count: two."
        await desk.press("ctrl+r")
        assert desk.text == "Count: three."
        assert (desk.desk.version, desk.desk.versions) == (3, 3)
        await desk.press("left")
        assert desk.text == "Count: two."
        await desk.press("alt+left")
        assert desk.text == "Count: one."
        assert (desk.desk.version, desk.desk.versions) == (1, 3)
        await desk.press("alt+left")
        assert desk.text == "Count: three."
        await desk.press("right")
        assert desk.text == "Count: one."


async def test_a_kept_seed_still_gives_another_version(start: Start) -> None:
    async with start(FakeInference(" one.", " two."), seed=7) as desk:
        await desk.type("Count:", "enter")
        await desk.press("ctrl+r")
        first, second = (request.sampling.seed for request in desk.inference.requests)
        assert first == 7
        assert second not in (None, 7)


async def test_again_given_up_before_a_word_brings_the_old_part_back(start: Start) -> None:
    inference = FakeInference(" one.")
    async with start(inference) as desk:
        await desk.type("Count:", "enter")
        inference.hold = True
        await desk.press("ctrl+r")
        assert desk.desk.page.text == "Count:"
        await desk.press("escape")
        assert desk.text == "Count: one."


async def test_undo_and_redo(start: Start) -> None:
    async with start(FakeInference(" one.", " two.")) as desk:
        await desk.type("Count:", "enter")
        await desk.press("enter")
        assert desk.text == "Count: one. two."
        await desk.press("ctrl+z")
        assert desk.text == "Count: one."
        await desk.press("ctrl+z")
        await desk.press("ctrl+z")
        assert desk.parts == []
        await desk.press("ctrl+z")
        assert "nothing to undo" in desk.note
        for _ in range(3):
            await desk.press("ctrl+y")
        assert desk.text == "Count: one. two."


async def test_undo_while_the_model_writes_takes_it_back(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        await desk.type("A fox", "enter")
        desk.inference.say(" ran")
        await desk.settle()
        await desk.press("ctrl+z")
        assert desk.parts == [("writer", "A fox")]


async def test_undo_in_the_line_is_the_lines_own(start: Start) -> None:
    async with start() as desk:
        await desk.press("enter")
        await desk.press("a", "b", "ctrl+z")
        assert desk.parts == [("model", WORDS.lstrip())]


async def test_editing_the_last_part_keeps_the_old_words_beside_it(start: Start) -> None:
    async with start(FakeInference(" a fox.")) as desk:
        await desk.type("There was", "enter")
        await desk.press("up")
        assert desk.desk.line.text == "a fox."
        assert "Edit" in str(desk.desk.query_one("#line-box").border_title)
        desk.desk.line.clear()
        await desk.type("an owl.", "enter")
        assert desk.text == "There was an owl."
        assert desk.desk.versions == 2
        assert len(desk.inference.requests) == 1
        await desk.press("left")
        assert desk.text == "There was a fox."


async def test_an_edit_is_given_up_with_escape(start: Start) -> None:
    async with start(FakeInference(" a fox.")) as desk:
        await desk.type("There was", "enter")
        await desk.type("typed before")
        desk.desk.action_edit_last()
        await desk.press("x", "escape")
        assert desk.desk.line.text == "typed before"
        assert desk.text == "There was a fox."


async def test_an_opening_line_is_picked(start: Start) -> None:
    async with start() as desk:
        assert desk.desk.query_one("#opening").display
        await desk.press("down", "down", "enter")
        assert desk.parts[0][0] == "writer"
        assert desk.parts[0][1] in desk.desk.opening.openings
        assert not desk.desk.query_one("#opening").display
        assert desk.app.focused is desk.desk.line


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_a_story_of_ours_is_read_and_gone_on_from(
    start: Start, size: tuple[int, int]
) -> None:
    async with start(FakeInference(" And then?"), size=size) as desk:
        await desk.press("down", "end", "enter")
        story = next(x for x in assets.stories() if x.text == desk.text)
        assert desk.inference.requests == []  # it is there to be read
        page = desk.desk.page
        assert page.scroll_y == 0
        assert page.lines_below == 0
        assert desk.keeper.title == story.title
        assert desk.app.focused is desk.desk.line
        await desk.press("enter")
        assert desk.inference.prompt == story.text
        assert desk.text == story.text + " And then?"
        kept = desk.keeper.library.last()  # a story like any other
        assert kept is not None
        assert kept.title == story.title
        assert desk.keeper.library.text(kept.id) == desk.text
        await desk.press("ctrl+z", "ctrl+z")
        assert desk.text == ""


async def test_a_failed_generation_is_one_line_and_the_desk_goes_on(start: Start) -> None:
    inference = FakeInference()
    async with start(inference) as desk:
        inference.fail_next = "the model has no logits today"
        await desk.type("A fox", "enter")
        assert desk.notices == ["the model has no logits today"]
        assert desk.text == "A fox"
        await desk.press("enter")
        assert desk.text == "A fox" + WORDS


async def test_a_story_that_ends_at_once_says_so(start: Start) -> None:
    inference = FakeInference(hold=True)
    async with start(inference) as desk:
        await desk.type("The end.", "enter")
        inference.finish("end")
        await desk.settle()
        assert "ends here" in desk.note


async def test_the_panel_rules_the_next_generation(start: Start) -> None:
    async with start() as desk:
        slider = desk.desk.panel.query_one("#temperature")
        slider.focus()
        await desk.press("right", "right")
        desk.desk.panel.query_one("#length").focus()
        await desk.press("home")
        desk.desk.line.focus()
        await desk.press("enter")
        request = desk.inference.requests[-1]
        assert request.sampling.temperature == pytest.approx(0.8)
        assert request.max_tokens == 0  # "end": until the story ends
        assert request.overflow == "slide"


async def test_a_preset_sets_all_samplers(start: Start) -> None:
    async with start() as desk:
        desk.desk.panel.choose_preset("wild")
        await desk.press("enter")
        assert desk.inference.requests[-1].sampling.temperature == 1.25
        desk.desk.panel.query_one("#top_k").focus()
        await desk.press("right")
        assert desk.desk.panel.query_one("#preset").value == "own mixture"  # type: ignore[attr-defined]


async def test_the_meter_shows_reading_and_speed(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        await desk.press("enter")
        desk.inference.read(120, 480)
        await desk.settle()
        state = desk.desk.panel.meter.state
        assert state.reading
        assert state.prefill_seconds_left == pytest.approx(3.0)
        desk.inference.say("one two three four")
        desk.inference.say(" five six")
        await desk.settle()
        state = desk.desk.panel.meter.state
        assert not state.reading
        assert state.generating
        assert state.tokens_per_second == pytest.approx(200, rel=0.5)
        await desk.press("escape")
        assert not desk.desk.panel.meter.state.generating


async def test_arrows_do_not_disturb_the_model(start: Start) -> None:
    async with start(FakeInference(hold=True)) as desk:
        await desk.type("A fox", "enter")
        desk.inference.say(" ran")
        await desk.settle()
        await desk.press("left", "up", "right")
        assert desk.desk.scribe.writing
        assert desk.desk.line.editing is None
