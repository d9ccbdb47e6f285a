"""How many threads are worth starting: the physical cores that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
_CGROUPS = Path("/sys/fs/cgroup")


def default_threads() -> int:
    """Physical cores within the process's affinity, at most its cgroup's quota; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cpus = os.sched_getaffinity(0)
    else:  # macOS
        cpus = set(range(os.cpu_count() or 1))
    cores = len({_siblings(cpu) for cpu in cpus})
    return max(1, min(cores, _quota()))


def _siblings(cpu: int) -> str:
    """A name of the core that `cpu` is a hardware thread of."""
    try:
        return Path(_TOPOLOGY.format(cpu)).read_text(encoding="utf-8").strip()
    except OSError:
        return str(cpu)


def _quota() -> int:
    """Cores that cgroup v2 allows (cpu.max of the process's group and those above), rounded up."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 1 << 30
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    group = _CGROUPS / path.lstrip("/")
    cores = math.inf
    for folder in (group, *group.parents):
        if folder != _CGROUPS and _CGROUPS not in folder.parents:
            break
        try:
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            continue
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    return 1 << 30 if math.isinf(cores) else math.ceil(cores)
