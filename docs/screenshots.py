"""Make the pictures of the README from the real program: `make screenshots`.

It drives the application on the embedded storyteller, in a library of its own, and writes
docs/images/*.svg.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from fireside.app.settings import Paths, load
from fireside.app.tui.app import FiresideApp

IMAGES = Path(__file__).parent / "images"
OPENING = "Once upon a time there was a little dragon who could not roar."
STEER = "One day a mouse came by, and the mouse was lost."


async def tell(folder: Path, name: str, theme: str, size: tuple[int, int]) -> None:
    """Write two parts of a story, let the model go on after each, and take a picture."""
    environment = {"FIRESIDE_DATA_DIR": str(folder), "FIRESIDE_CONFIG": str(folder / "none.toml")}
    paths = Paths.find(environment)
    app = FiresideApp(
        load({"theme": theme, "seed": 25, "passage_tokens": 70}, environment), paths=paths
    )
    async with app.run_test(size=size) as pilot:
        await asyncio.sleep(2)  # the model loads
        for words in (OPENING, STEER):
            await pilot.press(*("space" if c == " " else c for c in words))
            await pilot.press("enter")
            await asyncio.sleep(4)
        svg = app.export_screenshot(title="fireside")
    (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(IMAGES / f"{name}.svg")  # noqa: T201


async def main() -> None:
    """Every picture."""
    IMAGES.mkdir(exist_ok=True)
    for name, theme, size in (
        ("desk", "", (118, 36)),
        ("desk-80x24", "", (80, 24)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            await tell(Path(folder), name, theme, size)


if __name__ == "__main__":
    asyncio.run(main())
