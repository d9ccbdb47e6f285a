"""Seed, choice, panel, header and status line: one line each, by key and by mouse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fireside.app.tui.widgets import numbers
from fireside.app.tui.widgets.choice import Choice
from fireside.app.tui.widgets.header import StoryHeader, shorten
from fireside.app.tui.widgets.meter import Meter, MeterState, gauge, sparkline
from fireside.app.tui.widgets.seed import SeedField
from fireside.app.tui.widgets.statusline import StatusLine
from tests.app.tui.snapshots import assert_snapshot
from tests.app.tui.widgets.stage import on_stage

WEIGHTS = [("none", "as is"), ("q8", "Q8"), ("q4", "Q4")]
WRITING = MeterState(
    tokens_per_second=1184.2,
    generating=True,
    context_used=512,
    context_size=1024,
    reused=498,
    computed=14,
    memory_bytes=61_000_000,
    kernels="native avx512_vnni",
)
READING = MeterState(
    prefill_done=3120, prefill_total=8004, prefill_seconds_left=12.2, context_size=8192
)

# -- seed


async def test_the_last_seed_can_be_kept_and_let_go() -> None:
    seed = SeedField(last=811402)
    async with on_stage(seed, size=(42, 3)) as (stage, pilot):
        assert stage.rows[0] == "Seed         random  last 811 402"
        seed.focus()
        await pilot.pause()
        assert stage.rows[0] == "Seed         random  k keeps 811 402"
        await pilot.press("k", "r", "enter", "enter", "space", "delete", "k", "backspace")
        told = [message.seed for message in stage.sent(SeedField.Changed)]
        assert told == [811402, None] * 4


async def test_a_seed_can_be_typed() -> None:
    seed = SeedField()
    async with on_stage(seed) as (stage, pilot):
        seed.focus()
        await pilot.press("k")  # there is none to keep
        await pilot.press("4", "2", "x", "1", "backspace", "enter")
        assert seed.seed == 42
        await pilot.press("7", "escape")
        assert seed.seed == 42
        await pilot.press(*"9" * 30, "enter")
        assert seed.seed is not None
        assert seed.seed < 2**64
        assert [message.seed for message in stage.sent(SeedField.Changed)] == [42, seed.seed]


async def test_a_click_keeps_the_last_seed() -> None:
    seed = SeedField(last=5)
    async with on_stage(seed) as (_, pilot):
        await pilot.click(seed, offset=(15, 0))
        assert seed.seed == 5
        await pilot.click(seed, offset=(15, 0))
        assert seed.seed is None


# -- choice


async def test_moving_changes_nothing_until_enter() -> None:
    choice = Choice(WEIGHTS, "q8", label="Weights")
    async with on_stage(choice, size=(42, 3)) as (stage, pilot):
        assert stage.rows[0] == "Weights ( ) as is  (•) Q8  ( ) Q4"
        choice.focus()
        await pilot.press("right", "right")
        assert choice.value == "q8"
        await pilot.press("enter")
        assert choice.value == "q4"
        assert stage.rows[0] == "Weights ( ) as is  ( ) Q8  (•) Q4"
        await pilot.press("home", "space", "3", "1", "9")
        told = [message.value for message in stage.sent(Choice.Changed)]
        assert told == ["q4", "none", "q4", "none"]


async def test_a_click_chooses() -> None:
    choice = Choice(WEIGHTS, "q8", label="Weights")
    async with on_stage(choice, size=(42, 3)) as (stage, pilot):
        row = stage.rows[0]
        await pilot.click(choice, offset=(row.index("Q4"), 0))
        assert choice.value == "q4"
        await pilot.click(choice, offset=(row.index("( ) as"), 0))
        assert choice.value == "none"
        await pilot.click(choice, offset=(2, 0))  # the label
        await pilot.click(choice, offset=(40, 0))  # beyond
        assert choice.value == "none"


async def test_a_choice_leaves_marks_out_before_options() -> None:
    choice = Choice([*WEIGHTS, ("f16", "F16")], "q8", label="Weights")
    async with on_stage(choice, size=(32, 3)) as (stage, pilot):
        assert stage.rows[0] == "Weights as is  (•) Q8  Q4  F16"
        await pilot.click(choice, offset=(stage.rows[0].index("F16"), 0))
        assert choice.value == "f16"
        assert stage.rows[0] == "Weights as is  Q8  Q4  (•) F16"
        await pilot.click(choice, offset=(stage.rows[0].index("as is"), 0))
        assert choice.value == "none"


async def test_a_narrow_choice_shows_one_and_goes_round() -> None:
    choice = Choice(WEIGHTS, "q8", label="Weights")
    async with on_stage(choice, size=(24, 3)) as (stage, pilot):
        assert stage.rows[0] == "Weights ‹ (•) Q8 ›"
        await pilot.click(choice, offset=(12, 0))
        assert choice.value == "q4"
        choice.focus()
        await pilot.press("left")
        assert stage.rows[0] == "Weights ‹ ( ) Q8 ›"
        await pilot.press("enter")
        assert choice.value == "q8"
        await pilot.click(choice, offset=(stage.rows[0].index("‹"), 0))
        assert choice.value == "none"
        await pilot.click(choice, offset=(stage.rows[0].index("›"), 0))
        assert choice.value == "q8"
        await pilot.click(choice, offset=(2, 0))  # the label
        await pilot.click(choice, offset=(22, 0))  # beyond
        assert choice.value == "q8"


async def test_code_can_choose_what_is_on_offer_and_nothing_else() -> None:
    choice = Choice(WEIGHTS)
    async with on_stage(choice) as (stage, pilot):
        choice.value = "q4"
        await pilot.pause()
        assert [message.value for message in stage.sent(Choice.Changed)] == ["q4"]
        with pytest.raises(ValueError, match="'q5' is none of none, q8, q4"):
            choice.value = "q5"


# -- panel


async def test_the_panel_tells_what_goes_on() -> None:
    meter = Meter(clock=lambda: 0.0)
    async with on_stage(meter, size=(40, 6)) as (stage, pilot):
        assert stage.rows[0].strip() == "– tok/s"
        meter.update_state(WRITING)
        await pilot.pause()
        assert stage.rows[0] == " 1 184 tok/s  █"
        assert stage.rows[1].startswith("Context ███")
        assert stage.rows[1].endswith("512 of 1 024")
        assert stage.rows[2] == "Reused 498 · computed 14 · 61 MB"
        assert stage.rows[3] == "Kernels native avx512_vnni"
        meter.update_state(READING)
        await pilot.pause()
        assert stage.rows[1] == "reading 3 120 of 8 004 · 12 s left"


async def test_speeds_are_gathered_over_time_while_writing() -> None:
    now = 0.0
    meter = Meter(clock=lambda: now)
    async with on_stage(meter, size=(40, 6)) as (stage, pilot):
        for speed in (100.0, 120.0, 400.0, 800.0, 800.0, 800.0):
            meter.update_state(MeterState(tokens_per_second=speed, generating=True))
            now += 0.3
        meter.update_state(MeterState(tokens_per_second=1.0))
        await pilot.pause()
        assert meter.speeds == (120.0, 800.0, 800.0)
        assert stage.rows[0].endswith("▂██")
        meter.clear_speeds()
        await pilot.pause()
        assert meter.speeds == ()


async def test_only_lines_that_differ_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(clock=lambda: 0.0)
    async with on_stage(meter, size=(40, 6)) as (_, pilot):
        meter.update_state(WRITING)
        await pilot.pause()
        drawn: list[int] = []

        monkeypatch.setattr(meter, "repaint", lambda region: drawn.append(region.y))
        meter.update_state(WRITING)
        assert drawn == []
        meter.update_state(MeterState(**{**vars(WRITING), "context_used": 600}))
        assert drawn == [1]


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_speed_keeps_its_width(one: float, other: float) -> None:
    texts = {len(MeterState(tokens_per_second=speed).speed_text) for speed in (one, other, None)}
    assert len(texts) == 1 or max(one, other) >= 99_999


@given(st.floats(-1, 2), st.integers(1, 40))
def test_a_gauge_has_its_width_and_is_full_only_when_full(share: float, width: int) -> None:
    drawn = gauge(share, width)
    assert len(drawn) == width
    assert ("░" not in drawn) == (share >= 1)
    if width > 1:
        assert ("█" in drawn) == (share > 0)


@given(st.lists(st.floats(0, 1e6), max_size=60), st.integers(0, 40))
def test_a_sparkline_shows_the_newest(values: list[float], width: int) -> None:
    drawn = sparkline(values, width)
    assert len(drawn) == min(len(values), width)
    if drawn and max(values[-width:]) > 0:
        assert "█" in drawn


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0"), (9.94, "9.9"), (9.96, "10"), (1184.4, "1 184"), (1e6, "1 000 000")],
)
def test_speed_in_words(value: float, text: str) -> None:
    assert numbers.speed(value) == text.replace(" ", "\u00a0")


def test_sizes_and_times_in_words() -> None:
    assert numbers.memory(900_000) == "900 kB"
    assert numbers.memory(4_600_000) == "4.6 MB"
    assert numbers.memory(61_000_000) == "61 MB"
    assert numbers.memory(13_000_000_000) == "13.0 GB"
    assert [numbers.seconds(left) for left in (0.2, 12.2, 600, 7200)] == [
        "under a second",
        "12 s",
        "10 min",
        "2.0 h",
    ]


# -- header and status line


async def test_the_header_gives_way_from_the_least_important() -> None:
    header = StoryHeader("The dragon who could not roar", "storyteller · q8 · native avx2")
    async with on_stage(header, size=(90, 3)) as (stage, pilot):
        assert stage.rows[0].startswith(" Fireside   The dragon who could not roar")
        assert stage.rows[0].endswith("storyteller · q8 · native avx2")
        await pilot.resize_terminal(66, 3)
        await pilot.pause()
        assert stage.rows[0].endswith("roar        storyteller · q8")
        await pilot.resize_terminal(46, 3)
        await pilot.pause()
        assert stage.rows[0] == " The dragon who could not roar    storyteller"
        await pilot.resize_terminal(44, 3)
        await pilot.pause()
        assert stage.rows[0] == " Fireside   The dragon who could not roar"
        await pilot.resize_terminal(24, 3)
        await pilot.pause()
        assert stage.rows[0] == " The dragon who could…"


async def test_a_bar_while_a_model_loads() -> None:
    header = StoryHeader("Tale", "storyteller")
    async with on_stage(header, size=(60, 3)) as (stage, pilot):
        header.activity = "loading Q4"
        header.progress = 0.5
        await pilot.pause()
        assert stage.rows[0].endswith("loading Q4 ███░░░  50 %")
        header.progress = None
        await pilot.pause()
        assert stage.rows[0].endswith("storyteller")


async def test_clicks_on_the_header() -> None:
    header = StoryHeader("Tale", "storyteller")
    async with on_stage(header, size=(60, 3)) as (stage, pilot):
        await pilot.click(header, offset=(14, 0))
        await pilot.click(header, offset=(30, 0))
        await pilot.click(header, offset=(55, 0))
        kinds = [type(message).__name__ for message in stage.sent(StoryHeader.TitleClicked)]
        assert kinds == ["TitleClicked", "DetailClicked"]


@given(st.text(st.sampled_from("ab 字é"), max_size=30), st.integers(0, 20))
def test_shortening(text: str, width: int) -> None:
    assert cell_len(shorten(text, width)) <= width
    if cell_len(text) <= width:
        assert shorten(text, width) == text


async def test_the_status_line_says_what_fits() -> None:
    status = StatusLine(model="storyteller")
    async with on_stage(status, size=(52, 3)) as (stage, pilot):
        status.update_state(WRITING)
        await pilot.pause()
        assert stage.rows[0].strip() == "1 184 tok/s ·   512 of 1 024 · storyteller"
        await pilot.resize_terminal(40, 3)
        await pilot.pause()
        assert stage.rows[0].strip() == "1 184 tok/s ·   512 of 1 024"
        status.update_state(READING)
        await pilot.pause()
        assert stage.rows[0].strip() == "reading 3 120 of 8 004 · 12 s left"
        status.note = "↓ 3 new lines"
        await pilot.pause()
        assert stage.rows[0] == "↓ 3 new lines"


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark"])
async def test_look(theme: str) -> None:
    header = StoryHeader("The dragon", "storyteller · q8")
    meter = Meter(clock=lambda: 0.0)
    reading = Meter(READING)
    status = StatusLine(WRITING)
    widgets = [header, Choice(WEIGHTS, "q8", label="Weights"), SeedField(7), SeedField(last=12345)]
    async with on_stage(*widgets, meter, reading, status, size=(44, 14), theme=theme) as (
        stage,
        pilot,
    ):
        meter.update_state(WRITING)
        stage.query_one(Choice).focus()
        await pilot.press("right")
        assert_snapshot(stage, f"small-widgets-{theme}")
