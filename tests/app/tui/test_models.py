"""Models: the table, switching in the middle of a story, failures that keep the old one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireside.app import catalogue, settings
from fireside.app.paths import Paths
from fireside.app.tui.app import KEEP_AFTER_S
from fireside.app.tui.screens.models import ModelsScreen
from fireside.app.tui.widgets.choice import Choice
from fireside.app.tui.widgets.header import StoryHeader
from tests.app.tiny import write_tiny
from tests.app.tui.conftest import Desk, Start
from tests.app.tui.fake import FakeInference


@pytest.fixture
def models(paths: Paths) -> Path:
    """Two models that can run and one that cannot."""
    folder = paths.models_dir
    write_tiny(folder, "tiny.bin", 0)
    write_tiny(folder, "other.bin", 1)
    (folder / "broken.gguf").write_bytes(b"GGUF and no more")
    return folder


def header(desk: Desk) -> StoryHeader:
    return desk.desk.query_one(StoryHeader)


async def open_models(desk: Desk) -> ModelsScreen:
    await desk.press("ctrl+o")
    screen = desk.app.screen
    assert isinstance(screen, ModelsScreen)
    for _ in range(200):
        if not screen.searching:
            break
        await desk.pilot.pause(0.02)
    return screen


async def test_the_table_says_why_a_model_cannot_run(start: Start, models: Path) -> None:
    async with start() as desk:
        screen = await open_models(desk)
        rows = {entry.name: entry for entry in screen.entries}
        assert {"storyteller", "tiny", "other", "broken"} <= set(rows)
        assert rows["broken"].problem
        await desk.press("slash", *"broken", "enter")
        assert screen.table.row_count == 1
        assert "Cannot run" in str(screen.query_one("#detail").render())
        await desk.press("enter")
        assert desk.app.screen is screen
        assert any("broken cannot run" in line for line in desk.notices)
        await desk.press("escape", "escape")
        assert desk.app.screen is desk.desk


async def test_a_model_is_changed_in_the_middle_of_a_story(
    start: Start, models: Path, paths: Paths
) -> None:
    inference = FakeInference(" one.", " two.")
    async with start(inference) as desk:
        await desk.type("Count:", "enter")
        inference.slow_load = True
        await open_models(desk)
        await desk.press("slash", *"tiny", "enter", "enter")
        assert desk.app.screen is desk.desk
        inference.progress(0.5)
        await desk.settle()
        assert header(desk).progress == 0.5
        assert "tiny" in header(desk).activity
        await desk.press("enter")  # the old one still writes
        assert desk.text == "Count: one. two."
        inference.finish_load()
        await desk.settle()
        assert header(desk).progress is None
        assert header(desk).detail.startswith("tiny · as is")
        assert inference.specs[-1].path == models / "tiny.bin"
        await desk.press("enter")
        assert inference.prompt == "Count: one. two."
    assert settings.read_file(paths.config_file)["model"] == str(models / "tiny.bin")


async def test_a_model_of_a_folder_that_is_given_once_is_found_again(
    start: Start, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = write_tiny(tmp_path / "elsewhere", "tiny.bin", 0)
    async with start(models_dir="elsewhere") as desk:
        await open_models(desk)
        await desk.press("slash", *"tiny", "enter", "enter")
    again = settings.load({}, {}, paths)
    assert catalogue.chosen(again, paths) == elsewhere
    async with start(models_dir="elsewhere", model=again.model) as desk:
        await open_models(desk)
        await desk.press("slash", *"storyteller", "enter", "enter")
    assert settings.read_file(paths.config_file)["model"] == "storyteller"


async def test_weights_are_changed_and_kept(start: Start, paths: Paths) -> None:
    async with start() as desk:
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("2")
        assert desk.inference.specs[-1].quant == "q8"
        assert "Q8" in header(desk).detail
        await desk.settle(KEEP_AFTER_S + 0.1)  # though the process may be killed before it ends
        assert 'quant = "q8"' in paths.config_file.read_text()


async def test_a_failure_keeps_the_old_model_and_says_so(start: Start, paths: Paths) -> None:
    inference = FakeInference()
    async with start(inference) as desk:
        inference.fail_load = "there is not enough memory"
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("3")
        assert desk.notices == [
            "storyteller could not be loaded: there is not enough memory. storyteller stays."
        ]
        assert "as is" in header(desk).detail
        assert desk.desk.panel.query_one("#quant", Choice).value == "none"
        await desk.press("escape", "enter")
        assert desk.text
    assert not paths.config_file.exists()


async def test_a_newer_wish_replaces_the_load_under_way(start: Start) -> None:
    inference = FakeInference()
    async with start(inference) as desk:
        inference.slow_load = True
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("2")
        await desk.press("3")
        assert desk.desk.switching.loading
        assert header(desk).activity == "loading storyteller Q4"
        inference.finish_load()
        await desk.settle()
        assert "Q4" in header(desk).detail
        assert not desk.desk.switching.loading


async def test_going_back_to_the_model_in_use_gives_the_load_up(start: Start) -> None:
    inference = FakeInference()
    async with start(inference) as desk:
        inference.slow_load = True
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("2")
        await desk.press("1")
        assert not desk.desk.switching.loading
        assert inference.loading is None
        assert header(desk).progress is None


async def test_escape_gives_a_load_up(start: Start) -> None:
    inference = FakeInference()
    async with start(inference) as desk:
        inference.slow_load = True
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("2", "escape")
        assert desk.desk.switching.loading  # the first escape came back to the line
        await desk.press("escape")
        assert not desk.desk.switching.loading
        assert "was not loaded" in desk.note
        assert desk.desk.panel.query_one("#quant", Choice).value == "none"


async def test_ctrl_c_gives_a_load_up_where_nothing_is_written(start: Start) -> None:
    async with start() as desk:
        desk.inference.slow_load = True
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("2", "ctrl+c")
        assert not desk.desk.switching.loading
        assert "was not loaded" in desk.note
        await desk.press("ctrl+c")
        assert "ctrl+q leaves" in desk.note


async def test_threads_are_set_once_the_slider_rests(start: Start) -> None:
    async with start() as desk:
        before = len(desk.inference.specs)
        desk.desk.panel.query_one("#threads").focus()
        await desk.press("right", "right")
        assert len(desk.inference.specs) == before
        await desk.settle(0.8)
        assert len(desk.inference.specs) == before + 1
        assert desk.inference.specs[-1].threads == 2


async def test_a_missing_model_falls_back_to_the_storyteller(start: Start, paths: Paths) -> None:
    paths.config_file.write_text('model = "/nowhere/at/all.gguf"\ntokenizer = "/nowhere.bin"\n')
    before = paths.config_file.read_text()
    found = settings.load({}, {}, paths)
    given = {"model": found.model, "tokenizer": found.tokenizer, "origins": found.origins}
    async with start(**given) as desk:
        (notice,) = desk.notices
        assert "/nowhere/at/all.gguf: no such file" in notice
        assert f"set by {paths.config_file}. The storyteller stands in." in notice
        (spec,) = desk.inference.specs
        assert spec.path.name == "storyteller.gguf"
        assert spec.tokenizer is None
    assert paths.config_file.read_text() == before


async def test_a_first_model_that_cannot_be_loaded_lets_the_storyteller_stand_in(
    start: Start, models: Path
) -> None:
    inference = FakeInference(slow_load=True)
    inference.fail_load = "it is no model"
    async with start(inference, model=str(models / "broken.gguf")) as desk:
        inference.finish_load()
        inference.slow_load, inference.fail_load = False, ""
        await desk.settle()
        assert desk.notices == [
            "broken could not be loaded: it is no model. storyteller stands in."
        ]
        assert header(desk).detail.startswith("storyteller")


async def test_a_model_that_made_room_comes_back_if_the_new_one_fails(
    start: Start, models: Path, paths: Paths
) -> None:
    inference = FakeInference()
    async with start(inference, model=str(models / "tiny.bin")) as desk:
        inference.slow_load, inference.fail_load = True, "it is damaged"
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("3")
        inference.let_go = inference.specs[0]
        inference.finish_load()
        await desk.settle()
        assert desk.notices == ["tiny could not be loaded: it is damaged. tiny is loaded again."]
        assert header(desk).activity == "loading tiny as is"
        inference.fail_load = ""
        inference.finish_load()
        await desk.settle()
        assert not desk.desk.switching.loading
        assert header(desk).detail.startswith("tiny · as is")
    assert not paths.config_file.exists()  # nothing that failed is kept


async def test_where_it_does_not_come_back_the_storyteller_stands_in(
    start: Start, models: Path
) -> None:
    inference = FakeInference()
    async with start(inference, model=str(models / "tiny.bin")) as desk:
        inference.slow_load, inference.fail_load = True, "it is damaged"
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("3")
        inference.let_go = inference.specs[0]
        inference.finish_load()
        await desk.settle()
        inference.slow_load = False
        inference.finish_load()
        inference.fail_load = ""
        await desk.settle()
        assert desk.notices[-1].endswith("it is damaged. storyteller stands in.")
        assert header(desk).detail.startswith("storyteller")


async def test_asking_for_the_model_that_made_room_brings_it_back(
    start: Start, models: Path
) -> None:
    inference = FakeInference()
    async with start(inference, model=str(models / "tiny.bin")) as desk:
        inference.slow_load = True
        desk.desk.panel.query_one("#quant").focus()
        await desk.press("3")
        inference.let_go = inference.specs[0]
        await desk.press("1")
        assert header(desk).activity == "loading tiny as is"
        await desk.press("1")  # it is on its way already
        inference.finish_load()
        await desk.settle()
        assert not desk.desk.switching.loading
        assert header(desk).detail.startswith("tiny · as is")
