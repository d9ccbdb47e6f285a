"""The list of models gets others: from the hub, over HTTP, and from elsewhere on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.widgets import Input

from fireside.app.paths import Paths
from fireside.app.tui.screens.getting import VersionsScreen
from fireside.app.tui.screens.models import ModelsScreen
from fireside.engine import open_checkpoint
from fireside.engine.checkpoints.atomic import is_ours
from fireside.engine.convert import convert
from tests.app.hub_server import Hub, running_hub
from tests.app.tiny import write_tiny
from tests.app.tui.conftest import Desk, Start


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the package huggingface_hub is not installed")
    with running_hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("NO_PROXY", "*")
        yield running


@pytest.fixture
def model(tmp_path: Path) -> bytes:
    """A model with its vocabulary in one file."""
    from dataclasses import replace

    from fireside.engine.tokenizers import read_vocabulary

    path = write_tiny(tmp_path / "from")
    vocabulary = read_vocabulary(path.with_name("tokenizer.bin"))
    convert(replace(open_checkpoint(path), vocabulary=vocabulary), tmp_path / "m.gguf")
    return (tmp_path / "m.gguf").read_bytes()


async def open_models(desk: Desk) -> ModelsScreen:
    await desk.press("ctrl+o")
    screen = desk.app.screen
    assert isinstance(screen, ModelsScreen)
    await until(desk, lambda: not screen.searching)
    return screen


async def until(desk: Desk, happened) -> None:  # type: ignore[no-untyped-def]
    for _ in range(500):
        if happened():
            return
        await desk.pilot.pause(0.02)
    raise AssertionError("it did not happen")


async def ask(desk: Desk, screen: ModelsScreen, wanted: str) -> None:
    await desk.press("g")
    screen.query_one("#line", Input).value = wanted
    await desk.press("enter")


def free(part: Path) -> bool:
    with part.open("rb") as file:
        return is_ours(part, file)


def said(screen: ModelsScreen) -> str:
    return str(screen.query_one("#detail").render())


async def test_one_of_several_comes_from_the_hub(
    start: Start, server: Hub, model: bytes, paths: Paths
) -> None:
    server.repositories["o/tiny"] = {"tiny.Q8_0.gguf": b"x", "tiny.F32.gguf": model}
    async with start() as desk:
        screen = await open_models(desk)
        await ask(desk, screen, "o/tiny")
        await until(desk, lambda: isinstance(desk.app.screen, VersionsScreen))
        await desk.press("slash", *"f32", "enter", "enter")
        await until(desk, lambda: any(e.name == "tiny.F32" for e in screen.entries))
        await until(desk, lambda: not screen.searching)
        assert (paths.models_dir / "tiny.F32.gguf").read_bytes() == model
        assert screen.highlighted is not None
        assert screen.highlighted.name == "tiny.F32"
        assert not screen.query_one("#line").display
        await desk.press("enter")
        assert desk.inference.specs[-1].path == paths.models_dir / "tiny.F32.gguf"


async def test_giving_up_and_going_on(
    start: Start, server: Hub, model: bytes, paths: Paths
) -> None:
    data = model + bytes(32 << 20)
    server.repositories["o/tiny"] = {"m.gguf": data}
    server.stall["m.gguf"] = 24 << 20
    async with start() as desk:
        screen = await open_models(desk)
        await ask(desk, screen, "o/tiny:m.gguf")
        await until(desk, lambda: "Getting m.gguf: " in said(screen))
        await desk.press("escape")
        assert "goes on from here" in said(screen)
        server.closing.set()
        (part,) = paths.models_dir.glob(".*.part")
        await until(desk, lambda: free(part))
        there = part.stat().st_size
        assert 0 < there < len(data)
        await ask(desk, screen, "o/tiny:m.gguf")
        await until(desk, lambda: any(e.name == "m" for e in screen.entries))
        assert (paths.models_dir / "m.gguf").read_bytes() == data
        assert server.asked[-1][1] == f"bytes={there}-"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("o/none", "no such repository"),
        ("o/wrong", "another checksum"),
        ("o/empty", "no GGUF file"),
        ("nonsense", "no OWNER/NAME"),
        ("/nowhere/m.gguf", "no such file"),
    ],
)
async def test_what_does_not_come_is_told(
    start: Start, server: Hub, paths: Paths, wanted: str, words: str
) -> None:
    server.repositories["o/wrong"] = {"m.gguf": b"x" * 1000}
    server.wrong.add("m.gguf")
    server.repositories["o/empty"] = {"README.md": b"#"}
    async with start() as desk:
        screen = await open_models(desk)
        await ask(desk, screen, wanted)
        await until(desk, lambda: words in said(screen))
        assert not list(paths.models_dir.glob("**/m.gguf"))
        await desk.press("escape")
        assert desk.app.screen is desk.desk


async def test_a_file_on_the_disk_is_imported(
    start: Start, model: bytes, paths: Paths, tmp_path: Path
) -> None:
    source = tmp_path / "elsewhere.gguf"
    source.write_bytes(model)
    async with start() as desk:
        screen = await open_models(desk)
        await ask(desk, screen, str(source))
        await until(desk, lambda: any(e.name == "elsewhere" for e in screen.entries))
        assert (paths.models_dir / "elsewhere.gguf").samefile(source)
        # the line is left by esc, and the list as before
        await desk.press("g", "escape")
        assert desk.app.screen is screen
