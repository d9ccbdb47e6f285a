"""What values a slider can take and where on its track they stand. Exact: decimals throughout."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

Number = float | int | str | Decimal

# Key presses from one end of a logarithmic scale to the other.
_LOGARITHMIC_STEPS = 40


def exact(value: Number) -> Decimal:
    """Return the decimal a number is written as: 0.1 is one tenth."""
    return value if isinstance(value, Decimal) else Decimal(str(value))


@dataclass(frozen=True)
class Scale:
    """A range of values: multiples of the precision above the minimum, the ends and the stops."""

    minimum: Decimal
    maximum: Decimal
    step: Decimal
    large_step: Decimal
    precision: Decimal
    kind: Literal["linear", "logarithmic"] = "linear"
    stops: tuple[Decimal, ...] = ()

    def __post_init__(self) -> None:
        if not self.minimum < self.maximum:
            raise ValueError(f"minimum {self.minimum} is not below maximum {self.maximum}")
        if min(self.step, self.large_step, self.precision) <= 0:
            raise ValueError("step, large_step and precision must be above 0")
        if any(not self.minimum <= stop <= self.maximum for stop in self.stops):
            raise ValueError(f"stops outside {self.minimum}..{self.maximum}: {self.stops}")

    @classmethod
    def make(
        cls,
        minimum: Number,
        maximum: Number,
        step: Number,
        large_step: Number | None = None,
        precision: Number | None = None,
        kind: Literal["linear", "logarithmic"] = "linear",
        stops: Sequence[Number] | None = None,
    ) -> Scale:
        """Make a scale of numbers of any kind."""
        small = exact(step)
        return cls(
            exact(minimum),
            exact(maximum),
            small,
            small * 10 if large_step is None else exact(large_step),
            small if precision is None else exact(precision),
            kind,
            tuple(sorted({exact(stop) for stop in stops or ()})),
        )

    @property
    def decimals(self) -> int:
        """Digits after the point that tell any two values apart."""
        numbers = (self.minimum, self.maximum, self.step, self.precision, *self.stops)
        return max(0, *(-int(number.normalize().as_tuple().exponent) for number in numbers))

    def fit(self, value: Decimal) -> Decimal:
        """Return the value of the scale nearest to any number."""
        if not value.is_finite():
            raise ValueError(f"not a number on a scale: {value}")
        if value <= self.minimum:
            return self.minimum
        if value >= self.maximum:
            return self.maximum
        if value in self.stops:
            return value
        count = ((value - self.minimum) / self.precision).to_integral_value(ROUND_HALF_EVEN)
        return min(self.minimum + count * self.precision, self.maximum)

    def stepped(self, value: Decimal, direction: int, *, large: bool = False) -> Decimal:
        """Return the value a key press away; the ends hold."""
        if self.stops:
            return self._next_stop(value, direction * (3 if large else 1))
        if self.kind == "linear":
            return self.fit(value + direction * (self.large_step if large else self.step))
        count = (5 if large else 1) * direction
        there = self.fit(self._at(self.place(value) + count / _LOGARITHMIC_STEPS))
        # Near the small end a press may round to nothing: move a step at least.
        least = self.fit(value + direction * self.step)
        return max(there, least) if direction > 0 else min(there, least)

    def place(self, value: Decimal) -> float:
        """Return where a value stands on the track, 0 to 1."""
        if self.stops:
            return self._place_among_stops(value)
        if self.kind == "linear":
            return float((value - self.minimum) / (self.maximum - self.minimum))
        return math.log(float((value - self.minimum) / self._unit) + 1) / self._span

    def at(self, place: float) -> Decimal:
        """Return the value at a place of the track."""
        if self.stops:
            place = min(max(place, 0.0), 1.0)
            return self.stops[round(place * (len(self.stops) - 1))]
        if place >= 1:
            return self.maximum  # which need not be a whole number of steps away
        return self.fit(self._at(place))

    @property
    def _unit(self) -> Decimal:
        """What a logarithmic scale counts in: its minimum, or a step where that is 0."""
        return self.minimum if self.minimum > 0 else self.step

    @property
    def _span(self) -> float:
        return math.log(float((self.maximum - self.minimum) / self._unit) + 1)

    def _at(self, place: float) -> Decimal:
        place = min(max(place, 0.0), 1.0)
        if self.kind == "linear":
            return self.minimum + (self.maximum - self.minimum) * exact(place)
        return self.minimum + self._unit * exact(math.exp(place * self._span) - 1)

    def _next_stop(self, value: Decimal, count: int) -> Decimal:
        if count > 0:
            index = bisect_right(self.stops, value) - 1 + count
        else:
            index = bisect_left(self.stops, value) + count
        return self.stops[min(max(index, 0), len(self.stops) - 1)]

    def _place_among_stops(self, value: Decimal) -> float:
        last = len(self.stops) - 1
        if last == 0 or value <= self.stops[0]:
            return 0.0
        if value >= self.stops[-1]:
            return 1.0
        index = bisect_right(self.stops, value) - 1
        low, high = self.stops[index], self.stops[index + 1]
        return (index + float((value - low) / (high - low))) / last
