"""When saving fails: everything stays on the page, and is saved when it can be."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from fireside.app.library import Library, LibraryError, Provenance
from fireside.app.paths import Paths
from fireside.app.tui import keeper as keeping
from fireside.app.tui.app import _log_to_file, log_file, rescue
from fireside.app.tui.keeper import Keeper
from tests.app.tui.conftest import Start
from tests.app.tui.fake import FakeInference


class FullDisk:
    """A library whose writes fail while `full`."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.full = False

    def __getattr__(self, name: str) -> Any:
        if self.full and name in ("create", "append", "extend", "finish", "rename", "undo"):
            return self._refuse
        return getattr(self.library, name)

    def _refuse(self, *_: object) -> None:
        raise LibraryError("There is no room left to save.")


@pytest.fixture
def library(tmp_path: Path) -> FullDisk:
    return FullDisk(Library(tmp_path / "stories.db"))


@pytest.fixture
def keeper(library: FullDisk, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    monkeypatch.setattr(keeping, "RETRY_EVERY", 0.02)
    monkeypatch.setattr(keeping, "SAVE_EVERY", 0.02)
    monkeypatch.setattr(keeping, "SETTLE_TIMEOUT", 1.0)
    return Keeper(library)  # type: ignore[arg-type]


def saved(keeper: Keeper) -> None:
    waiting = threading.Event()
    for _ in range(200):
        if keeper.saved:
            return
        waiting.wait(0.01)
    raise AssertionError("not saved")


def test_text_that_could_not_be_saved_is_saved_later(keeper: Keeper, library: FullDisk) -> None:
    keeper.write("writer", "A fox")
    saved(keeper)
    library.full = True
    leaf = keeper.write("model", "")
    keeper.grow(leaf, " ran")
    keeper.grow(leaf, " home.")
    keeper.finish(leaf, Provenance(model="m", finish_reason="length"))
    with pytest.raises(LibraryError, match="no room"):
        keeper.undo()
    assert keeper.trouble
    assert keeper.text == "A fox ran home."
    library.full = False
    saved(keeper)
    assert not keeper.trouble
    assert keeper.story_id is not None
    assert library.library.text(keeper.story_id) == "A fox ran home."
    assert not library.library.path(keeper.story_id)[-1].unfinished
    keeper.close()


def test_another_story_waits_until_this_one_is_safe(keeper: Keeper, library: FullDisk) -> None:
    library.full = True
    keeper.write("writer", "A fox")
    with pytest.raises(LibraryError):
        keeper.new()
    assert keeper.text == "A fox"
    library.full = False
    keeper.new()
    assert keeper.text == ""
    assert [s.opening for s in library.library.stories()] == ["A fox"]
    keeper.close()


def test_many_small_growths_lose_nothing(keeper: Keeper, library: FullDisk) -> None:
    expected = ""
    for part in range(5):
        leaf = keeper.write("model", "")
        for word in range(300):
            library.full = word % 7 == 3
            keeper.grow(leaf, f" {part}.{word}")
            expected += f" {part}.{word}"
        library.full = False
        keeper.finish(leaf, Provenance(finish_reason="length"))
    keeper.undo()
    keeper.redo()
    assert keeper.text == expected
    assert keeper.story_id is not None
    assert library.library.text(keeper.story_id) == expected
    keeper.close()


def test_closing_saves_what_is_left(keeper: Keeper, library: FullDisk) -> None:
    leaf = keeper.write("model", "Once")
    keeper.grow(leaf, " upon")
    keeper.close()
    assert keeper.story_id is not None
    assert library.library.text(keeper.story_id) == "Once upon"


async def test_the_desk_says_so_in_one_line(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "RETRY_EVERY", 0.02)
    monkeypatch.setattr(keeping, "SETTLE_TIMEOUT", 0.5)
    async with start(FakeInference(" one.", " two.")) as desk:
        await desk.type("Count:", "enter")
        disk = FullDisk(desk.keeper.library)
        desk.keeper.library = disk  # type: ignore[assignment]
        disk.full = True
        await desk.press("enter")
        assert any("no room" in line and "\n" not in line for line in desk.notices)
        assert desk.text == "Count: one. two."
        await desk.press("ctrl+z")
        assert desk.text == "Count: one. two."
        disk.full = False
        await desk.settle(0.1)
        assert desk.note == "Everything is saved."
        await desk.press("ctrl+z")
        assert desk.text == "Count: one."


async def test_a_damaged_library_is_said_and_left_alone(start: Start, paths: Paths) -> None:
    paths.library.parent.mkdir(parents=True)
    paths.library.write_bytes(b"not a database, but somebody's file" * 100)
    before = paths.library.read_bytes()
    async with start() as desk:
        assert any("will not be kept" in line for line in desk.notices)
        await desk.type("A fox", "enter")
        await desk.press("ctrl+z")
        assert desk.text == "A fox"
    assert paths.library.read_bytes() == before


async def test_a_library_that_cannot_be_read_on_the_way_is_one_line(start: Start) -> None:
    async with start() as desk:
        await desk.press("enter")

        def broken(*_: object, **__: object) -> None:
            raise LibraryError("The library is damaged.")

        desk.keeper.library.undo = broken  # type: ignore[method-assign, assignment]
        await desk.press("ctrl+z")
        assert desk.notices == ["The library is damaged."]


async def test_what_the_library_never_took_is_found_in_a_file(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(keeping, "RETRY_EVERY", 0.02)
    monkeypatch.setattr(keeping, "SETTLE_TIMEOUT", 0.5)
    async with start(FakeInference(" one.", " two.")) as desk:
        await desk.type("Count:", "enter")
        disk = FullDisk(desk.keeper.library)
        desk.keeper.library = disk  # type: ignore[assignment]
        disk.full = True
        await desk.press("enter")
    (found,) = tmp_path.glob("fireside-*.txt")  # in the user's home
    assert found.read_text(encoding="utf-8") == "Count: one. two.\n"
    assert desk.app.farewell == (
        f"There is no room left to save. The story as it was is in {found}."
    )


def test_the_next_place_is_taken_where_the_first_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("HOME", str(home))  # which is not there
    monkeypatch.setattr("tempfile.tempdir", str(other))
    said = rescue("Once.")
    (found,) = other.iterdir()
    assert said.endswith(f"{found}.")
    assert found.read_text(encoding="utf-8") == "Once.\n"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert rescue("Once.") == "Its last words are lost."


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_log_that_cannot_be_written_is_quiet(
    paths: Paths, capfd: pytest.CaptureFixture[str]
) -> None:
    paths.log_dir.mkdir(parents=True)
    log_file(paths).symlink_to("/dev/full")
    logger = logging.getLogger("fireside")
    before, propagate, raising = logger.handlers[:], logger.propagate, logging.raiseExceptions
    try:
        _log_to_file(paths)
        logger.warning("not everything could be saved")
    finally:
        for handler in logger.handlers[len(before) :]:
            logger.removeHandler(handler)
        logger.propagate, logging.raiseExceptions = propagate, raising
    assert capfd.readouterr() == ("", "")
