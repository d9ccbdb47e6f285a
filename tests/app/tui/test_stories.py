"""Stories: kept, reopened, listed, searched, renamed, deleted with a way back, exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets import Input

from fireside.app.library import Library
from fireside.app.paths import Paths
from fireside.app.tui.screens.stories import StoriesScreen, ago, file_name
from tests.app.tui.conftest import Desk, Start
from tests.app.tui.fake import FakeInference


async def stories(desk: Desk) -> StoriesScreen:
    await desk.press("ctrl+s")
    assert isinstance(desk.app.screen, StoriesScreen)
    return desk.app.screen


async def test_the_last_story_waits_where_it_was_left(start: Start, paths: Paths) -> None:
    async with start(FakeInference(" who roared.")) as desk:
        await desk.type("A dragon", "enter")
    async with start() as desk:
        assert desk.text == "A dragon who roared."
        assert desk.inference.closed is False
        await desk.press("ctrl+z")
        assert desk.text == "A dragon"
    async with start() as desk:
        assert desk.text == "A dragon"
        await desk.press("ctrl+y")
        assert desk.text == "A dragon who roared."


async def test_an_empty_page_leaves_no_story(start: Start, paths: Paths) -> None:
    async with start() as desk:
        await desk.press("ctrl+n")
    with Library(paths.library) as library:
        assert library.stories() == []


async def test_a_passage_carries_how_it_was_made(start: Start, paths: Paths) -> None:
    async with start(FakeInference(" roared."), quant="q8", temperature=0.7) as desk:
        await desk.type("A dragon", "enter")
    with Library(paths.library) as library:
        story = library.last()
        assert story is not None
        passage = library.path(story.id)[-1]
        made = passage.provenance
        assert made is not None
        assert (made.model, made.quant, made.seed) == ("storyteller", "q8", 811402)
        assert made.sampling["temperature"] == 0.7
        assert made.finish_reason == "length"
        assert made.tok_s


async def test_growing_text_is_saved_before_it_ends(start: Start, paths: Paths) -> None:
    inference = FakeInference(hold=True)
    async with start(inference) as desk:
        await desk.type("A fox", "enter")
        inference.say(" ran")
        await desk.settle()
        inference.say(" and ran")
        await desk.settle(0.7)
        with Library(paths.library) as library:  # as another program would see it
            story = library.last()
            assert story is not None
            assert library.text(story.id) == "A fox ran and ran"
            assert library.path(story.id)[-1].unfinished


async def test_leaving_in_the_middle_of_a_word_keeps_it(start: Start, paths: Paths) -> None:
    inference = FakeInference(hold=True)
    async with start(inference) as desk:
        await desk.type("A fox", "enter")
        inference.say(" ran")
        await desk.settle()
        await desk.pilot.press("ctrl+q")
    with Library(paths.library) as library:
        story = library.last()
        assert story is not None
        assert library.text(story.id) == "A fox ran"
        assert not library.path(story.id)[-1].unfinished


async def test_another_story_is_opened_from_the_list(start: Start) -> None:
    async with start() as desk:
        await desk.type("The first", "enter")
        await desk.press("ctrl+n")
        assert desk.parts == []
        await desk.type("The second", "enter")
        screen = await stories(desk)
        assert [s.display_title[:10] for s in screen.summaries] == ["The second", "The first "]
        await desk.press("down", "enter")
        assert desk.text.startswith("The first")
        await desk.press("enter")
        assert desk.inference.prompt.startswith("The first")


async def test_stories_are_searched_by_their_words(start: Start) -> None:
    async with start(FakeInference(" whale.", " tiger.")) as desk:
        await desk.type("There was a", "enter")
        await desk.press("ctrl+n")
        await desk.type("There was a", "enter")
        screen = await stories(desk)
        await desk.press("slash", *"whale", "enter")
        assert len(screen.summaries) == 1
        assert "whale" in screen.summaries[0].snippet
        await desk.press("enter")
        assert desk.text == "There was a whale."
        screen = await stories(desk)
        await desk.press("slash", *"zebra")
        assert screen.summaries == []
        assert screen.query_one("#empty").display
        await desk.press("escape")
        assert len(screen.summaries) == 2
        await desk.press("escape")
        assert desk.app.screen is desk.desk


async def test_a_story_is_renamed(start: Start) -> None:
    async with start() as desk:
        await desk.type("A fox", "enter")
        screen = await stories(desk)
        await desk.press("r", *"The Fox", "enter")
        assert screen.summaries[0].title == "The Fox"
        await desk.press("escape")
        assert desk.keeper.title == "The Fox"
        header = desk.desk.query_one("StoryHeader")
        assert header.story_title == "The Fox"  # type: ignore[attr-defined]


async def test_deleting_has_a_way_back(start: Start) -> None:
    async with start() as desk:
        await desk.type("A fox", "enter")
        screen = await stories(desk)
        await desk.press("d")
        assert screen.summaries == []
        assert desk.parts == []
        await desk.press("u")
        assert len(screen.summaries) == 1
        await desk.press("enter")
        assert desk.text.startswith("A fox")


@pytest.mark.parametrize(
    ("name", "expected"), [("x.md", "# A fox"), ("x.txt", "====="), ("x.json", '"passages"')]
)
async def test_a_story_is_exported(start: Start, tmp_path: Path, name: str, expected: str) -> None:
    async with start(FakeInference(" ran.")) as desk:
        await desk.type("A fox", "enter")
        screen = await stories(desk)
        await desk.press("e")
        screen.query_one("#line", Input).value = str(tmp_path / name)
        await desk.press("enter")
        assert expected in (tmp_path / name).read_text()
        await desk.press("e")
        screen.query_one("#line", Input).value = str(tmp_path / name)
        await desk.press("enter")
        assert "exists already" in str(screen.query_one("#detail").render())
        screen.query_one("#line", Input).value = str(tmp_path / "x.docx")
        await desk.press("enter")
        assert "no known format" in str(screen.query_one("#detail").render())
        await desk.press("escape", "escape")
        assert desk.app.screen is desk.desk


async def test_a_chat_sends_its_turns(start: Start) -> None:
    async with start(FakeInference(" I am a dragon.", " Small.")) as desk:
        await desk.press("f4")
        assert desk.keeper.mode == "chat"
        await desk.press("enter")
        assert "your turn" in desk.note
        await desk.type("Who are you?", "enter")
        assert desk.inference.turns == [("user", "Who are you?")]
        assert desk.parts == [("writer", "Who are you?"), ("model", "I am a dragon.")]
        await desk.type("How big?", "enter")
        assert desk.inference.turns[1:] == [("assistant", "I am a dragon."), ("user", "How big?")]
        await desk.press("f4")
        assert (desk.keeper.mode, desk.parts) == ("story", [])
    async with start() as desk:
        assert desk.keeper.mode == "chat"
        assert desk.desk.page.page_layout == "chat"


async def test_what_was_said_last_is_edited_and_answered_anew(start: Start) -> None:
    async with start(FakeInference(" Six.", " Seven.")) as desk:
        await desk.press("f4")
        await desk.type("How many?", "enter")
        await desk.press("up")
        assert desk.desk.line.text == "How many?"
        desk.desk.line.clear()
        await desk.type("How many more?", "enter")
        assert desk.inference.turns == [("user", "How many more?")]
        assert desk.parts == [("writer", "How many more?"), ("model", "Seven.")]


def test_words_for_times_and_files() -> None:
    assert ago(100, 130) == "just now"
    assert ago(0, 7300) == "2 h ago"
    assert ago(0, 90_000) == "yesterday"
    assert file_name("The Fox: a tale / of two…") == "the-fox-a-tale-of-two"
    assert file_name("…") == "story"
