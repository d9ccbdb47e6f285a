"""How numbers are written: groups of three apart, widths that hold still."""

from __future__ import annotations

NARROW_SPACE = "\u00a0"


def grouped(number: int) -> str:
    """Write 811402 as "811 402", with a space at which no line breaks."""
    return f"{number:,}".replace(",", NARROW_SPACE)


def speed(tokens_per_second: float) -> str:
    """Write a speed: whole tokens, and one decimal below ten."""
    if tokens_per_second < 9.95:
        return f"{tokens_per_second:.1f}"
    return grouped(round(tokens_per_second))


def memory(size: int) -> str:
    """Write a number of bytes in the unit that fits."""
    if size < 1_000_000:
        return f"{size / 1_000:.0f} kB"
    if size < 10_000_000:
        return f"{size / 1_000_000:.1f} MB"
    if size < 10_000_000_000:
        return f"{grouped(round(size / 1_000_000))} MB"
    return f"{size / 1_000_000_000:.1f} GB"


def seconds(left: float) -> str:
    """Write how long something takes yet."""
    if left < 1:
        return "under a second"
    if left < 90:
        return f"{left:.0f} s"
    if left < 5_400:
        return f"{left / 60:.0f} min"
    return f"{left / 3_600:.1f} h"
