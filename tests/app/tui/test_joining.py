"""How typed words join the story."""

from __future__ import annotations

import pytest

from fireside.app.tui.joining import join


@pytest.mark.parametrize(
    ("story", "words", "expected"),
    [
        ("", "  Once ", "Once"),
        ("He ran", "home", " home"),
        ("He ran", "home  ", " home"),
        ("He ran ", "home", "home"),
        ("He ran", " home", " home"),
        ("He ran", ", and fell", ", and fell"),
        ("He ran", "... and fell", "... and fell"),
        ("He ran.\n\n", "Then", "Then"),
        ("He ran.", "\nThen", "\nThen"),
        ('He said, "Come', '" and left', '" and left'),
        ("He said,", '"Come"', ' "Come"'),
        ('She said "no"', "and left", " and left"),
        ('She said "', "no", "no"),
        ("the boys'", "hats", " hats"),
        ("She (", "who", "who"),
        ("昔々", "ある所に", "ある所に"),
        ("昔々", "once", " once"),
        ("He ran", "   ", ""),
    ],
)
def test_the_space_between(story: str, words: str, expected: str) -> None:
    assert join(story, words) == expected
