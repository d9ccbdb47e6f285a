"""What `fireside bench` prints: Markdown that a person can paste."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from fireside.app.bench import Result

LEFT = 3  # columns that are set to the left; the others are numbers
PLURAL = {1: "thread"}


def machine() -> str:
    """The processor, how many of its cores there are to use, the memory, the system."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    parts = [name, f"{cores} core{'s' if cores > 1 else ''}"]
    with contextlib.suppress(ValueError, OSError, AttributeError):  # a system that does not tell
        nbytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        parts.append(f"{nbytes / 2**30:.0f} GiB")
    return ", ".join([*parts, f"{platform.system()} {platform.machine()}"])


def speed(value: float | None) -> str:
    """Tokens a second."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def markdown(results: Sequence[Result], decode: int) -> str:
    """The table: a row a result; a speed with a ratio, where a peer was measured beside it."""
    lengths = sorted({int(n) for r in results for n in r.prefill_tok_s})
    head = ["model", "quant", "kernels", "threads", *(f"prefill {n}" for n in lengths)]
    starts = sorted({int(n) for r in results for n in r.at_tok_s})
    head += [f"decode {decode}", *(f"at {n}" for n in starts)]
    head += ["% of floor", "GB/s", "MB/token", "MB"]
    noted = any(r.error for r in results)
    rows = [[*_row(r, lengths, starts), *([_note(r)] if noted else [])] for r in results]
    return table(head + ["note"] * noted, rows)


def _note(r: Result) -> str:
    return f"failed: {r.error}".replace("|", "/") if r.error else ""


def _row(r: Result, lengths: Sequence[int], starts: Sequence[int]) -> list[str]:
    kernels = r.kernels if r.isa in ("", r.kernels) else f"{r.kernels} {r.isa}"
    quant = f"{r.quant} ({r.blocks})" if r.quant == "none" and r.blocks else r.quant

    def cell(key: str, value: float | None) -> str:
        ratio = (r.ratios or {}).get(key)
        return speed(value) + (f" ({ratio:.2f}x)" if ratio is not None else "")

    return [
        r.model.replace("|", "/"),
        quant,
        kernels,
        str(r.threads),
        *(cell(f"prefill {n}", r.prefill_tok_s.get(str(n))) for n in lengths),
        cell("decode", r.decode_tok_s),
        *(cell(f"at {n}", r.at_tok_s.get(str(n))) for n in starts),
        "-" if r.floor_percent is None else f"{r.floor_percent:.0f}",
        "-" if r.read_gb_s is None else f"{r.read_gb_s:.1f}",
        "-" if r.bytes_per_token is None else f"{r.bytes_per_token / 1e6:,.1f}",
        "-" if r.rss_mb is None else f"{r.rss_mb:,.0f}",
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = LEFT) -> str:
    """Columns as wide as they need; those from `left` on are numbers, a column of notes is not."""
    words = set(range(left)) | {i for i, name in enumerate(head) if name == "note"}
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["-" * w if i in words else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = []
    for row in [head, rule, *rows]:
        cells = [
            cell.ljust(width) if i in words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def profiles(results: Sequence[Result]) -> str:
    """A table for each result that has a profile: microseconds and share by operation."""
    parts = []
    for r in results:
        if not r.profile:
            continue
        threads = f"{r.threads} {PLURAL.get(r.threads, 'threads')}"
        title = f"{r.model}, quant {r.quant}, {r.kernels} {r.isa}, {threads}:"
        parts.append(f"{title}\n\n{_profile(r.profile)}")
    return "\n\n".join(parts) or "No profile: only the native kernels tell where the time goes."


def _profile(profile: dict[str, dict[str, float]]) -> str:
    """One of them. Operations that took no time anywhere are left out."""
    head = ["operation"]
    for name in profile:
        head += [f"{name}, us", "%"]
    names = [n for n in next(iter(profile.values())) if any(part[n] for part in profile.values())]
    sums = {name: sum(part.values()) or 1.0 for name, part in profile.items()}
    rows = []
    for operation in names:
        cells = [operation]
        for name, part in profile.items():
            seconds = part[operation]
            cells += [f"{1e6 * seconds:,.1f}", f"{100 * seconds / sums[name]:.1f}"]
        rows.append(cells)
    total = ["total"]
    for value in sums.values():
        total += [f"{1e6 * value:,.1f}", "100.0"]
    return table(head, [*rows, total], left=1)
