"""The comparison of pictures sees what a person would see, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.widgets import Static

from tests.app.tui import snapshots
from tests.app.tui.snapshots import assert_snapshot, readable, screen_text
from tests.app.tui.widgets.stage import on_stage


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snapshots, "SNAPSHOTS", tmp_path)
    monkeypatch.setattr(snapshots, "REPORT", tmp_path / "report")
    monkeypatch.delenv("FIRESIDE_UPDATE_SNAPSHOTS", raising=False)
    return tmp_path


async def picture(markup: str) -> str:
    async with on_stage(Static(markup), size=(20, 3)) as (stage, _):
        return stage.export_screenshot()


async def test_a_picture_as_text() -> None:
    svg = await picture("A [b]bold[/b] 字 word")
    assert screen_text(svg)[0] == "A bold 字 word"
    assert "     2-7: #e0e0e0 bold on #121212" in readable(svg)


@pytest.mark.parametrize(
    "other", ["A word.", "A [b]word[/b]", "A [on red]word[/]", "A [red]word[/]"]
)
async def test_differences_are_seen(other: str) -> None:
    assert readable(await picture("A word")) != readable(await picture(other))


async def test_ids_and_the_order_of_rules_do_not_matter() -> None:
    svg = await picture("A [b]word[/b]")
    other = re.sub(r"terminal-\d+", "terminal-7", svg).replace("-r1", "-r9")
    assert readable(svg) == readable(other)


async def test_a_mismatch_leaves_a_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with on_stage(Static("before"), size=(20, 3)) as (stage, pilot):
        with pytest.raises(AssertionError, match="FIRESIDE_UPDATE_SNAPSHOTS=1 makes it"):
            assert_snapshot(stage, "page")
        monkeypatch.setenv("FIRESIDE_UPDATE_SNAPSHOTS", "1")
        assert_snapshot(stage, "page")
        monkeypatch.delenv("FIRESIDE_UPDATE_SNAPSHOTS")
        assert_snapshot(stage, "page")
        assert not (folder / "report").exists()
        stage.query_one(Static).update("after")
        await pilot.pause()
        with pytest.raises(AssertionError, match="page looks different"):
            assert_snapshot(stage, "page")
        assert "after" in (folder / "report" / "page.diff").read_text("utf-8")
        assert (folder / "report" / "page.svg").exists()
