"""Keys in any order: page, keeper and library never disagree, and nothing ever breaks."""

from __future__ import annotations

from random import Random

import pytest

from fireside.app.library import Library
from fireside.app.paths import Paths
from tests.app.tui.conftest import Desk, Start
from tests.app.tui.fake import FakeInference

KEYS = (
    *["enter"] * 6,
    *["escape"] * 4,
    *["ctrl+r"] * 3,
    *["ctrl+z"] * 4,
    *["ctrl+y"] * 2,
    *["left", "right", "up", "down", "alt+left", "alt+right"] * 2,
    *["a", "space", "tab", "shift+tab", "f2", "f4", "ctrl+n", "pageup", "ctrl+end", "ctrl+c"],
    *["ctrl+s", "ctrl+o", "f1", "ctrl+p", "d", "u", "r", "e", "slash"],
)


async def do(desk: Desk, chance: Random) -> str:
    """One thing that a person or the engine might do now."""
    inference = desk.inference
    roll = chance.random()
    if inference.running and roll < 0.4:
        inference.say(chance.choice((" word", " two words.", "\n\nA line.", "")))
        return "says"
    if inference.running and roll < 0.5:
        inference.finish(chance.choice(("length", "end")))
        return "finishes"
    if inference.loading and roll < 0.6:
        inference.fail_load = chance.choice(("", "no memory"))
        inference.finish_load()
        return "loads"
    if roll > 0.97:
        await desk.pilot.resize_terminal(*chance.choice(((120, 40), (80, 24), (40, 12))))
        return "resizes"
    key = chance.choice(KEYS)
    await desk.pilot.press(key)
    return key


@pytest.mark.parametrize("seed", range(4))
async def test_any_order(start: Start, paths: Paths, seed: int) -> None:
    chance = Random(seed)
    inference = FakeInference(hold=True, slow_load=True)
    done: list[str] = []
    async with start(inference) as desk:
        for _ in range(120):
            done.append(await do(desk, chance))
            if chance.random() < 0.3:
                await desk.settle()
                if not desk.desk.scribe.writing:
                    assert desk.desk.page.text == desk.keeper.text, done
                    check(desk, paths, done)
        await desk.settle()
        while desk.app.screen is not desk.desk:
            await desk.app.pop_screen()
        desk.desk.action_stop()
        await desk.settle()
        assert desk.desk.page.text == desk.keeper.text, done
        check(desk, paths, done)


def check(desk: Desk, paths: Paths, done: list[str]) -> None:
    """The library has what the page has."""
    if desk.keeper.story_id is None:
        assert desk.keeper.text == "", done
        return
    with Library(paths.library) as library:
        assert library.text(desk.keeper.story_id) == desk.keeper.text, done
