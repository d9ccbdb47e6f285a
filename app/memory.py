"""Whether a model fits: what it needs, and what this machine has to give.

The cache is memory that fills as a text grows, so for a model of a very long context only a usual
length of it is counted, unless somebody asks for more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fireside.engine import FiresideError
from fireside.engine.model import Need

USUAL_CONTEXT = 8192  # tokens of cache to count on where no context is asked for
UNLIMITED = 1 << 60  # cgroup v1 writes a limit near 2^63 where there is none


class MemoryShortError(FiresideError):
    """A model does not fit into the memory that is free. Nothing of it has been loaded."""


def needed(need: Need, context: int = 0) -> int:
    """Bytes a model takes with a cache of `context` tokens (0 = a usual one), and its buffers."""
    tokens = min(context, need.context) if context else min(need.context, USUAL_CONTEXT)
    return (need.weights + tokens * need.cache_per_token) * 9 // 8


def require(name: str, size: int, free: int | None) -> None:
    """Raises MemoryShortError where `size` bytes are more than are free (None = nobody knows)."""
    if free is not None and size > free:
        raise MemoryShortError(
            f"{name} needs about {_amount(size)} of memory, and {_amount(free)} are free",
            "choose q8 or q4 weights, a shorter context or a smaller model",
        )


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"


def available(root: Path = Path("/")) -> int | None:
    """Bytes that may be taken without swapping: of the machine, and of the control groups.

    None where the system does not say. Sources: proc(5), and the kernel's cgroup-v2.rst and
    cgroup-v1/memory.rst. What files occupy in memory counts as free: it is given up when needed.
    """
    at = str(root).rstrip("/")
    found = [
        room
        for room in (_of_the_machine(at), *_of_the_groups(at))
        if room is not None and room < UNLIMITED
    ]
    return max(0, min(found)) if found else None


def _of_the_machine(root: str) -> int | None:
    kibibytes = _table(f"{root}/proc/meminfo").get("MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _of_the_groups(root: str) -> Iterator[int | None]:
    """What is left in this process's control group and in each above it."""
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            top, limit, usage, prefix = "", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            top = "/memory"
            limit, usage, prefix = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        else:
            continue
        names = [name for name in path.split("/") if name]
        # in a container the path is the host's, but the container's own group lies at the top
        for depth in range(len(names), -1, -1):
            folder = "/".join([f"{root}/sys/fs/cgroup{top}", *names[:depth]])
            most = _read(f"{folder}/{limit}").strip()
            if not most.isdigit() or int(most) >= UNLIMITED:
                continue
            used = _read(f"{folder}/{usage}").strip()
            if used.isdigit():
                table = _table(f"{folder}/memory.stat")
                files = (table.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
                yield int(most) - int(used) + sum(files)


def _table(path: str) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = (line.split() for line in _read(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (a Path for each would take longer)
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
