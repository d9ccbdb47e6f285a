"""Rows as drawn: always exactly as wide as the window, whatever the text and the selection."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.style import Style
from textual.strip import Strip

from fireside.app.tui.widgets.page_row import Ink, RowPainter, label_cells
from fireside.app.tui.widgets.story_text import Part, StoryText
from tests.app.tui.widgets.test_wrapping import PIECES

INK = Ink(
    base=Style(),
    writer=Style(bold=True),
    bar=Style(color="red"),
    label=Style(color="green"),
    quiet=Style(dim=True),
    caret=Style(blink=True),
    selection=Style(reverse=True),
)
LABELS = ("You", "Story")

texts = st.lists(st.sampled_from([*PIECES, "\n", "\t", "\x1b[0m"]), max_size=25).map("".join)
parts = st.builds(
    Part,
    id=st.integers(1, 3),
    author=st.sampled_from(["writer", "model"]),
    text=texts | st.text(st.characters(), max_size=20),
    unfinished=st.booleans(),
)


def seen(strip: Strip) -> list[tuple[str, Style]]:
    """What is not blank, with its looks."""
    cells = [(c, segment.style or Style()) for segment in strip for c in segment.text]
    return [(c, style.clear_meta_and_links()) if c != " " else (c, Style()) for c, style in cells]


@given(
    st.lists(parts, max_size=4),
    st.integers(2, 30),
    st.booleans(),
    st.booleans(),
    st.none() | st.tuples(st.integers(0, 60), st.integers(0, 60)),
)
@settings(max_examples=300)
def test_a_row_fills_the_window_and_holds_its_text(
    given_parts: list[Part],
    measure: int,
    chat: bool,
    streaming: bool,
    selected: tuple[int, int] | None,
) -> None:
    story = StoryText(measure, separate=chat)
    story.show(given_parts)
    width = measure + 3 + (label_cells(LABELS) if chat else 0)
    labels = LABELS if chat else None
    painter = RowPainter(story, INK, width, 0, labels, selected, streaming)
    for y in range(story.row_count + 1):
        strip = painter.draw(y)
        assert strip.cell_length == width == sum(segment.cell_length for segment in strip)
        assert "\x1b" not in strip.text
        assert "\n" not in strip.text
        if y < story.row_count:
            assert story.row(y).text.rstrip(" ") in strip.text
        assert seen(strip) == seen(painter.draw(y, places=True))


def styles(story: StoryText, **options: object) -> list[tuple[str, bool, bool]]:
    strip = RowPainter(story, INK, 30, 0, **options).draw(0)  # type: ignore[arg-type]
    pieces = []
    for text, style, _ in strip:
        assert style is not None
        pieces.append((text, bool(style.bold), bool(style.reverse)))
    return pieces


def test_weight_tells_the_writer_and_a_selection_crosses_authors() -> None:
    story = StoryText(20)
    story.show([Part(1, "model", "He said "), Part(2, "writer", "no"), Part(3, "model", ".")])
    assert styles(story)[1:4] == [
        ("He said ", False, False),
        ("no", True, False),
        (".", False, False),
    ]
    assert styles(story, selected=(3, 9))[1:5] == [
        ("He ", False, False),
        ("said ", False, True),
        ("n", True, True),
        ("o", True, False),
    ]


def test_a_style_never_changes_inside_a_grapheme() -> None:
    story = StoryText(20)
    story.show([Part(1, "model", "e"), Part(2, "writer", "\u0301x")])
    assert styles(story)[1:3] == [("e\u0301", False, False), ("x", True, False)]
