"""Sliders: exact numbers by key, mouse and typing, told only when they really change."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import events

from fireside.app.tui.widgets.scale import Scale
from fireside.app.tui.widgets.slider import Slider
from tests.app.tui.snapshots import assert_snapshot
from tests.app.tui.widgets.stage import on_stage

STOPS = (0, 1, 2, 5, 10, 20, 40, 80, 100, 200)


def temperature(**options: Any) -> Slider:
    return Slider("Temperature", "0.8", maximum=2, precision="0.01", **options)


def values(stage: Any) -> list[float]:
    return [message.value for message in stage.sent(Slider.Changed)]


# -- the scale

scales = st.one_of(
    st.builds(
        Scale.make,
        minimum=st.sampled_from(["0", "0.05", "-1", "1"]),
        maximum=st.sampled_from(["2", "10", "4096", "2.03"]),
        step=st.sampled_from(["0.05", "0.1", "1", "0.01", "8"]),
        precision=st.sampled_from([None, "0.01"]),
        kind=st.sampled_from(["linear", "logarithmic"]),
    ),
    st.just(Scale.make(0, 200, 1, stops=STOPS)),
)
numbers = st.decimals(-10, 5000, places=3)


@given(scales, numbers)
def test_fitting_keeps_to_the_scale_and_is_settled(scale: Scale, number: Decimal) -> None:
    value = scale.fit(number)
    assert scale.minimum <= value <= scale.maximum
    assert scale.fit(value) == value
    ends = {scale.minimum, scale.maximum, *scale.stops}
    assert value in ends or (value - scale.minimum) % scale.precision == 0


@given(scales, numbers, st.lists(st.sampled_from([1, -1]), max_size=30), st.booleans())
def test_steps_go_their_way_and_never_off_the_scale(
    scale: Scale, number: Decimal, directions: list[int], large: bool
) -> None:
    value = scale.fit(number)
    for direction in directions:
        then = scale.stepped(value, direction, large=large)
        assert scale.minimum <= then <= scale.maximum
        end = (scale.stops or (scale.maximum,))[-1] if direction > 0 else scale.minimum
        assert (then - value) * direction > 0 or value == end
        value = then


@given(scales, numbers)
def test_place_grows_with_the_value_and_leads_back(scale: Scale, number: Decimal) -> None:
    value = scale.fit(number)
    assert 0 <= scale.place(value) <= 1
    if not scale.stops:
        back = scale.at(scale.place(value))
        assert abs(back - value) <= scale.precision
    assert scale.at(0.0) == scale.minimum
    assert scale.at(1.0) == scale.maximum


@given(st.integers(1, 40))
def test_steps_add_up_as_on_paper(count: int) -> None:
    scale = Scale.make(0, 2, "0.1")
    value = Decimal(0)
    for _ in range(count):
        value = scale.stepped(value, 1)
    assert value == min(Decimal(2), count * Decimal("0.1"))
    assert str(float(value)) == str(round(count * 0.1, 1)) or value == 2


@pytest.mark.parametrize(
    "options",
    [
        {"minimum": 1, "maximum": 1, "step": 1},
        {"minimum": 0, "maximum": 1, "step": 0},
        {"minimum": 0, "maximum": 1, "step": 1, "stops": [2]},
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"minimum|above 0|outside"):
        Scale.make(**options)


# -- keys


async def test_nothing_is_told_before_something_changes() -> None:
    slider = temperature()
    async with on_stage(slider) as (stage, pilot):
        slider.value = 0.8
        await pilot.pause()
        assert values(stage) == []
        slider.value = 0.9
        slider.value = 0.9
        await pilot.pause()
        assert values(stage) == [0.9]
        with slider.prevent(Slider.Changed):
            slider.value = 1.0
        await pilot.pause()
        assert values(stage) == [0.9]


async def test_keys() -> None:
    slider = temperature()
    async with on_stage(slider) as (stage, pilot):
        slider.focus()
        await pilot.press(
            "right", "right", "left", "pageup", "pagedown", "end", "right", "home", "r"
        )
        assert values(stage) == [0.85, 0.9, 0.85, 1.35, 0.85, 2.0, 0.0, 0.8]
        await pilot.press("shift+right", "delete", "left", "backspace")
        assert values(stage)[8:] == [1.3, 0.8, 0.75, 0.8]


async def test_many_steps_do_not_drift() -> None:
    slider = Slider("Top-p", 0, step="0.1", maximum=1)
    async with on_stage(slider) as (stage, pilot):
        slider.focus()
        await pilot.press(*["right"] * 10)
        assert values(stage) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


async def test_typing_a_value() -> None:
    slider = temperature()
    async with on_stage(slider) as (stage, pilot):
        slider.focus()
        await pilot.press("1", ".", "0", "3", "9")
        assert slider.typed == "1.039"
        assert "1.039" in stage.rows[0]
        assert slider.value == 0.8
        await pilot.press("backspace", "enter")
        assert slider.value == 1.03
        await pilot.press("7", "escape")
        assert slider.typed is None
        assert slider.value == 1.03
        await pilot.press("9", "9", "enter")
        assert slider.value == 2.0
        await pilot.press("1", ".", ".", "enter")
        assert slider.value == 2.0
        await pilot.press("0", ".", "5", "right")  # an arrow takes up from the value that stands
        assert slider.typed is None
        assert values(stage) == [1.03, 2.0]


async def test_leaving_takes_what_was_typed() -> None:
    first, second = temperature(), temperature()
    async with on_stage(first, second) as (_, pilot):
        first.focus()
        await pilot.press("1", "tab")
        assert first.value == 1.0
        assert second.has_focus


async def test_escape_and_enter_are_left_alone_where_nothing_is_typed() -> None:
    slider = temperature()
    async with on_stage(slider) as (stage, pilot):
        slider.focus()
        await pilot.press("escape", "enter", "x")
        keys = [event.key for event in stage.sent(events.Key)]
        assert keys == ["escape", "enter", "x"]
        assert values(stage) == []


async def test_stops() -> None:
    slider = Slider("Top-k", 40, maximum=200, step=1, stops=STOPS, off=0)
    async with on_stage(slider) as (stage, pilot):
        slider.focus()
        await pilot.press("right", "left", "left", "3", "3", "enter", "right", "left", "home")
        assert values(stage) == [80, 40, 20, 33, 40, 20, 0]
        assert "off" in stage.rows[0]
        assert all(isinstance(value, int) for value in values(stage))


async def test_a_logarithmic_scale_gives_room_to_small_numbers() -> None:
    slider = Slider("Length", 1, minimum=1, maximum=4096, step=1, scale="logarithmic")
    async with on_stage(slider) as (stage, pilot):
        for _ in range(60):
            slider.action_step(1)
        await pilot.pause()
        seen = values(stage)
        assert seen[:3] == [2, 3, 4]
        assert seen[-1] == 4096
        assert len(seen) < 60
        assert all(isinstance(value, int) for value in seen)


# -- mouse


async def test_pressing_and_dragging() -> None:
    slider = Slider("Top-p", 1, step="0.05", maximum=1)
    async with on_stage(slider, size=(41, 3)) as (stage, pilot):
        start, cells = slider._track
        assert stage.rows[0][start] == "├"
        assert stage.rows[0][start + cells - 1] == "┤"
        await pilot.mouse_down(slider, offset=(start + 1, 0))
        assert slider.value == 0
        await pilot.hover(slider, offset=(start + cells - 2, 0))
        assert slider.value == 1
        await pilot.hover(slider, offset=(start + 1 + (cells - 3) // 2, 0))
        assert slider.value == 0.5
        await pilot.mouse_up(slider, offset=(start + 1 + (cells - 3) // 2, 0))
        await pilot.hover(slider, offset=(start + 1, 0))
        assert slider.value == 0.5


async def test_the_knob_stands_under_the_pointer() -> None:
    slider = Slider("Top-p", 1, step="0.01", maximum=1)
    async with on_stage(slider, size=(36, 3)) as (stage, pilot):
        start, cells = slider._track
        for cell in range(1, cells - 1):
            await pilot.mouse_down(slider, offset=(start + cell, 0))
            await pilot.mouse_up(slider, offset=(start + cell, 0))
            assert stage.rows[0][start + cell] in "●◆"


async def test_a_click_on_the_name_only_focuses_and_a_double_click_resets() -> None:
    slider = temperature()
    async with on_stage(slider) as (_, pilot):
        await pilot.click(slider, offset=(2, 0))
        assert slider.has_focus
        assert slider.value == 0.8
        slider.value = 1.5
        await pilot.click(slider, offset=(30, 0), times=2)
        assert slider.value == 0.8


async def test_the_wheel_turns_only_what_has_the_focus() -> None:
    slider = temperature()
    async with on_stage(slider) as (_, pilot):
        await pilot._post_mouse_events([events.MouseScrollUp], slider, offset=(30, 0))
        assert slider.value == 0.8
        slider.focus()
        await pilot._post_mouse_events([events.MouseScrollUp], slider, offset=(30, 0))
        assert slider.value == 0.85
        await pilot._post_mouse_events([events.MouseScrollDown], slider, offset=(30, 0))
        assert slider.value == 0.8


async def test_a_disabled_slider_does_not_move() -> None:
    slider = temperature(disabled=True)
    async with on_stage(slider) as (stage, pilot):
        await pilot.click(slider, offset=(30, 0))
        await pilot.press("tab", "right")
        assert values(stage) == []


# -- looks


async def test_width_holds_still_and_a_changed_value_is_marked() -> None:
    slider = temperature()
    async with on_stage(slider, size=(42, 3)) as (stage, pilot):
        track = stage.rows[0].index("├")
        assert "0.80 " in stage.rows[0]
        assert "*" not in stage.rows[0]
        slider.focus()
        for key in ("end", "home", "1", "escape", "right"):
            await pilot.press(key)
            assert stage.rows[0].index("├") == track
        assert "0.05*" in stage.rows[0]


async def test_without_room_there_is_no_track() -> None:
    async with on_stage(temperature(), size=(22, 3)) as (stage, _):
        assert stage.rows[0] == "Temperature   0.80"


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "ansi-dark"])
async def test_look(theme: str) -> None:
    typing = temperature()
    sliders = [
        temperature(),
        Slider("Top-p", "0.9", default="0.95", precision="0.01", maximum=1, off=1),
        Slider("Top-k", 40, maximum=200, step=1, stops=STOPS, off=0),
        Slider("Min-p", 0, maximum="0.5", step="0.01", off=0),
        Slider("Length", 200, minimum=1, maximum=4096, step=1, scale="logarithmic"),
        temperature(disabled=True),
        typing,
    ]
    async with on_stage(*sliders, size=(44, 8), theme=theme) as (stage, pilot):
        typing.focus()
        await pilot.press("1", ".", "2")
        assert_snapshot(stage, f"sliders-{theme}")
