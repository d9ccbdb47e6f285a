"""What the screens look like, in the sizes and colours that matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from fireside.app.catalogue import ModelEntry
from fireside.app.tui.screens.models import ModelsScreen
from tests.app.tui.conftest import Desk, Start
from tests.app.tui.fake import FakeInference
from tests.app.tui.snapshots import assert_snapshot

TALE = (
    " who could not roar. Every morning he tried, and every morning only a small puff of smoke"
    " came out.\n\nOne day he met a mouse who was lost.",
    ' asked the mouse.\n\nThe dragon thought and thought. "I cannot roar," he said, "but I can make'
    ' smoke." He puffed and puffed until a big grey cloud rose over the hill.',
)
MODELS = [
    ModelEntry(
        "storyteller",
        Path("/opt/fireside/storyteller.gguf"),
        "embedded",
        "Fireside storyteller",
        "GGUF v3",
        "llama",
        15_191_712,
        {"Q8_0": 15_000_000},
        16_700_000,
        {"none": 16_200_000, "q8": 16_200_000, "q4": 8_600_000},
        512,
    ),
    ModelEntry(
        "stories110M",
        Path("/home/me/models/stories110M.bin"),
        "local",
        "stories110M",
        "llama2.c v0",
        "llama",
        109_529_856,
        {"F32": 109_000_000},
        438_119_452,
        {"none": 438_119_424, "q8": 116_400_000, "q4": 61_600_000},
        1024,
    ),
    ModelEntry(
        "half",
        Path("/home/me/models/half.gguf"),
        "local",
        file_bytes=1_234_567,
        problem="the file ends in the middle of tensor blk.3.ffn_up.weight",
    ),
]


@pytest.fixture(autouse=True)
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fireside.app.tui.widgets.prompt_line.PromptLine.cursor_blink", False)
    monkeypatch.setattr("textual.widgets.Input.cursor_blink", False)
    monkeypatch.setattr("fireside.app.tui.screens.stories.ago", lambda moment: "yesterday")


async def tell(desk: Desk) -> None:
    """A story of two rounds, its second part written twice."""
    await desk.type("Once upon a time there was a dragon", "enter")
    await desk.type('"Can you help me find my mother?"', "enter")


@pytest.mark.parametrize("theme", ["fireside", "fireside-paper"])
@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_the_desk(start: Start, size: tuple[int, int], theme: str) -> None:
    async with start(FakeInference(*TALE), size=size, theme=theme) as desk:
        await tell(desk)
        assert_snapshot(desk.app, f"desk-{size[0]}x{size[1]}-{theme}")


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_an_empty_page(start: Start, size: tuple[int, int]) -> None:
    async with start(size=size) as desk:
        assert_snapshot(desk.app, f"desk-empty-{size[0]}x{size[1]}")


async def test_while_the_model_writes(start: Start) -> None:
    inference = FakeInference(hold=True)
    async with start(inference) as desk:
        await desk.type("Once upon a time there was a dragon", "enter")
        inference.say(TALE[0])
        await desk.settle()
        assert_snapshot(desk.app, "desk-writing")


async def test_while_a_prompt_is_read_and_a_model_loads(start: Start) -> None:
    inference = FakeInference(hold=True)
    async with start(inference) as desk:
        await desk.type("Once upon a time there was a dragon", "enter")
        inference.read(128, 480)
        inference.slow_load = True
        desk.desk.choose_quant("q4")
        inference.progress(0.6)
        await desk.settle()
        assert_snapshot(desk.app, "desk-reading-loading")


async def test_the_panel_over_the_page(start: Start) -> None:
    async with start(FakeInference(*TALE), size=(80, 24)) as desk:
        await tell(desk)
        await desk.press("f2")
        assert_snapshot(desk.app, "desk-panel-80x24")


async def test_a_chat(start: Start) -> None:
    async with start(
        FakeInference("I am a dragon. I cannot roar.", "Only smoke."), size=(80, 24)
    ) as desk:
        await desk.press("f4")
        await desk.type("Who are you?", "enter")
        await desk.type("What comes out, then?", "enter")
        assert_snapshot(desk.app, "desk-chat")


async def test_an_error(start: Start) -> None:
    inference = FakeInference(*TALE)
    async with start(inference, size=(80, 24)) as desk:
        await tell(desk)
        inference.fail_load = "there is not enough memory (choose a smaller model, or q8 or q4)"
        desk.desk.choose_quant("q8")
        await desk.settle()
        assert_snapshot(desk.app, "desk-error")


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_models(start: Start, size: tuple[int, int]) -> None:
    async with start(size=size) as desk:
        screen = ModelsScreen(lambda: MODELS, Path("models"), str(MODELS[0].path))
        await desk.app.push_screen(screen)
        for _ in range(200):
            await desk.pilot.pause(0.01)
            if not screen.searching:
                break
        await desk.press("down", "down")
        assert_snapshot(desk.app, f"models-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", [(120, 40), (80, 24)])
async def test_stories(start: Start, size: tuple[int, int]) -> None:
    async with start(FakeInference(*TALE, " flew a kite."), size=size) as desk:
        await tell(desk)
        await desk.press("ctrl+n")
        await desk.type("Tom", "enter")
        await desk.press("ctrl+s", "slash", *"mother")
        assert_snapshot(desk.app, f"stories-found-{size[0]}x{size[1]}")
        await desk.press("escape")
        assert_snapshot(desk.app, f"stories-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_help(start: Start, size: tuple[int, int]) -> None:
    async with start(size=size) as desk:
        await desk.press("f1")
        assert_snapshot(desk.app, f"help-{size[0]}x{size[1]}")
