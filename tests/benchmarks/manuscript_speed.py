"""How much the page costs while a story streams onto a long one.

    python tests/benchmarks/manuscript_speed.py [--tokens 5000] [--rate 1000] [--story 30000]

Runs the page beside a panel in a pseudo-terminal of 120x40 that something reads, as a terminal
would, and prints the processor time for a token, the worst time between a flush and its frame, the
longest stall of the event loop and the time to wrap the whole story anew.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import pty
import random
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from textual.app import App, ComposeResult
from textual.containers import Horizontal, Vertical

from fireside.app.tui.widgets.manuscript import Manuscript, Part
from fireside.app.tui.widgets.meter import Meter, MeterState
from fireside.app.tui.widgets.slider import Slider

TEXT = """once upon a time there was little dragon who could not roar every morning he tried and
only smoke came out the mouse asked can you help me find my mother said thought big grey cloud"""
WORDS = TEXT.split()


def words(count: int, seed: int) -> list[str]:
    """Return tokens as a small model gives them: words with a space, now and then a new line."""
    source = random.Random(seed)
    tokens = []
    for index in range(count):
        if index % 60 == 59:
            tokens.append(source.choice([".\n\n", ".\n"]))
        else:
            tokens.append(" " + source.choice(WORDS))
    return tokens


class Page(App[None]):
    """The page beside a panel, and a story that streams onto it; writes its numbers to a file."""

    CSS = "#panel { width: 40; } Manuscript { padding: 1 0 0 0; }"

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()
        self.options = options
        self.frames = 0
        self.flushed_at: float | None = None
        self.latencies: list[float] = []
        self.stalls: list[float] = []

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Manuscript()
            with Vertical(id="panel"):
                for index in range(8):
                    yield Slider(f"slider {index}", 0.5)
                yield Meter()

    def on_mount(self) -> None:
        self.run_worker(self.measure())

    def post_display_hook(self) -> None:
        self.frames += 1
        if self.flushed_at is not None:
            self.latencies.append(time.perf_counter() - self.flushed_at)
            self.flushed_at = None

    async def watch_stalls(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            self.stalls.append(time.perf_counter() - before - 0.01)

    async def stream(self, tokens: list[str]) -> None:
        """Put tokens onto the page, as many a second as were asked for."""
        page, meter = self.query_one(Manuscript), self.query_one(Meter)
        page.begin(Part(2, "writer", "Suddenly"))
        page.begin(Part(3, "model", ""))
        page.streaming = True
        started, done = time.perf_counter(), 0
        while done < len(tokens):
            await asyncio.sleep(1 / self.options.flushes)
            elapsed = time.perf_counter() - started
            due = min(len(tokens), int(elapsed * self.options.rate))
            if self.flushed_at is None:
                self.flushed_at = time.perf_counter()
            page.append("".join(tokens[done:due]))
            meter.update_state(MeterState(due / elapsed, True, context_used=due))
            done = due

    async def measure(self) -> None:
        """Fill the page, stream onto it, and leave."""
        page = self.query_one(Manuscript)
        page.show([Part(1, "model", "".join(words(self.options.story, 1)))])
        await asyncio.sleep(1.0)
        if self.options.away:
            page.scroll_to(y=page.max_scroll_y // 2, animate=False)
        tokens = words(self.options.tokens, 2)
        self.frames = 0
        self.stalls.clear()
        watcher = asyncio.create_task(self.watch_stalls())
        started, processor = time.perf_counter(), time.process_time()
        await self.stream(tokens)
        elapsed = time.perf_counter() - started
        processor = time.process_time() - processor
        watcher.cancel()
        result = self.numbers(len(tokens), elapsed, processor)
        before = time.perf_counter()
        page._story.rewrap(60)
        result["rewrap_all_ms"] = round((time.perf_counter() - before) * 1e3, 1)
        Path(self.options.child).write_text(json.dumps(result))
        self.exit()

    def numbers(self, tokens: int, elapsed: float, processor: float) -> dict[str, float]:
        """What it took to stream so many tokens, in seconds and seconds of a processor."""
        story, latencies = self.query_one(Manuscript)._story, sorted(self.latencies)
        return {
            "seconds": round(elapsed, 2),
            "rows": story.row_count,
            "characters": story.length,
            "processor_us_per_token": round(processor / tokens * 1e6, 1),
            "processor_share_percent": round(processor / elapsed * 100, 1),
            "frames_per_second": round(self.frames / elapsed, 1),
            "frame_ms_p50": round(latencies[len(latencies) // 2] * 1e3, 1),
            "frame_ms_p95": round(latencies[int(len(latencies) * 0.95)] * 1e3, 1),
            "frame_ms_worst": round(latencies[-1] * 1e3, 1),
            "longest_stall_ms": round(max(self.stalls) * 1e3, 1),
        }


def main() -> None:
    """Start the child in a pseudo-terminal, read what it draws, print its numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=5000)
    parser.add_argument("--rate", type=int, default=1000, help="tokens a second")
    parser.add_argument("--story", type=int, default=30000, help="tokens already on the page")
    parser.add_argument("--flushes", type=int, default=30, help="appends a second")
    parser.add_argument("--away", action="store_true", help="the reader has scrolled away")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        Page(options).run()
        return
    with TemporaryDirectory() as folder:
        answer = Path(folder) / "result.json"
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        command = [sys.executable, __file__, *sys.argv[1:], "--child", str(answer)]
        environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        with subprocess.Popen(
            command, stdin=follower, stdout=follower, stderr=follower, env=environment
        ):
            os.close(follower)
            drawn = 0
            last = b""
            while True:
                try:
                    piece = os.read(leader, 1 << 16)
                except OSError:
                    break
                if not piece:
                    break
                drawn += len(piece)
                last = (last + piece)[-3000:]
        if not answer.exists():
            sys.exit(last.decode(errors="replace"))
        for name, value in (json.loads(answer.read_text()) | {"bytes_drawn": drawn}).items():
            print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
