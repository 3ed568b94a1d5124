"""Memory: how much of the device's is taken, and how much there is."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""A container's limit, where the machine is one: version 2 and 1 of Linux's control groups."""


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes; not a number where that is not known."""

    used: float
    limit: float


def host_memory() -> DeviceMemory:
    """What this process holds, and what the container or the machine has: of an engine that computes on the CPU."""
    try:
        used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):  # no Linux
        return DeviceMemory(math.nan, math.nan)
    for path in CGROUP_LIMITS:
        try:
            limit = min(limit, int(path.read_text(encoding="ascii")))
        except (OSError, ValueError):  # another version, or "max"
            continue
    return DeviceMemory(used, limit)
