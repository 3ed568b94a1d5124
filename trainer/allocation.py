"""The memory that a CPU trains in: how much is free, and a limit to what is taken. Nothing here imports TensorFlow."""

import os
from pathlib import Path

SPARED = 256 << 20
"""Bytes of the free memory that TensorFlow's allocator does not get: for everything that is not a tensor."""


def limit_memory() -> None:
    """Have TensorFlow take no more of a CPU's memory than is free now. To be called before its first tensor.

    A step too large for it is then an error that can be told, where the kernel would end the process without a word.
    The allocator that knows a limit is the one it has for GPUs. It is as fast as the one that oneDNN brings along; both
    keep what they have got from one step to the next. What the user has set stays.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "1")
    free = free_memory()
    if free is not None:
        os.environ.setdefault("TF_CPU_BFC_MEM_LIMIT_IN_MB", str(max(free - SPARED, SPARED) >> 20))


def free_memory() -> int | None:
    """Bytes that this process could still take, by the machine and by its control group; None where it is not known."""
    found = [free for free in (_machine(), _group()) if free is not None]
    return min(found, default=None)


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group(folder: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Of a container's limit what is not in use; the files' cache can be given back, and does not count."""
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else int(limit) - int(used) + int(cache.get("inactive_file", 0))
