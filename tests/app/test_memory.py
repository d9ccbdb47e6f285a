"""What is free, by what the system says of itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fireside.app import memory
from fireside.engine.model import Need

MEMINFO = "MemTotal: 8000 kB\nMemFree: 100 kB\nMemAvailable: 4000 kB\n"
GIB = 1 << 30


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


def test_of_the_machine_alone(tmp_path: Path) -> None:
    assert memory.available(system(tmp_path, {"proc/self/cgroup": "0::/\n"})) == 4_096_000


def test_a_group_and_those_above_it_count(tmp_path: Path) -> None:
    stat = "anon 5\ninactive_file 1000\nactive_file 2000\nshmem 7\n"
    root = system(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user/app\n",
            "sys/fs/cgroup/user/app/memory.max": "max\n",
            "sys/fs/cgroup/user/app/memory.current": "9000\n",
            "sys/fs/cgroup/user/memory.max": "500000\n",
            "sys/fs/cgroup/user/memory.current": "100000\n",
            "sys/fs/cgroup/user/memory.stat": stat,
        },
    )
    assert memory.available(root) == 400_000 + 3000
    (root / "sys/fs/cgroup/user/memory.current").write_text("900000\n", encoding="ascii")
    assert memory.available(root) == 0


def test_in_a_container_the_limit_lies_at_the_top(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/0123\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "300000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "200000\n",
            "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n",
        },
    )
    assert memory.available(root) == 100_050
    none = "9223372036854771712\n"
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(none, encoding="ascii")
    assert memory.available(root) == 4_096_000


def test_where_the_system_says_nothing_nothing_is_refused(tmp_path: Path) -> None:
    assert memory.available(tmp_path) is None
    memory.require("model", 1 << 60, None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says so")
def test_of_this_machine() -> None:
    free = memory.available()
    assert free is not None
    assert 0 < free < 1 << 50


def test_a_long_context_counts_where_it_is_asked_for() -> None:
    need = Need(weights=8 * GIB, cache_per_token=1 << 20, context=100_000)
    assert memory.needed(need, 0) == 9 * GIB + (8192 << 20) * 9 // 8
    assert memory.needed(need, 1024) == 9 * GIB + (1024 << 20) * 9 // 8
    assert memory.needed(need, 10**9) == memory.needed(need, 100_000)
    with pytest.raises(memory.MemoryShortError) as error:
        memory.require("big", memory.needed(need), 3 * GIB // 1024)
    assert error.value.message == "big needs about 19.3 GB of memory, and 3 MB are free"
