"""How much memory a run will take, before it takes it, and how much there is."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from trainer.progress import size
from trainer.work import Work

WIDE, INNER, PAIRS = 22, 4, 2
"""What a training step keeps for each token of each layer until its gradients are computed: so many numbers a column,
a column of the feed-forward part, and a pair of tokens of a head. Fitted to the peak of a 6-layer MiniLM on a CPU in
float32: 958 MB for 16 reviews of 128 tokens, 1,425 MB for 4 of 512, the gradients (91 MB) included."""


def step_bytes(job: Work) -> int:
    """What the widest batch's activations take on one device."""
    config, settings = job.checkpoint.config, job.settings
    epochs = zip(job.plans, job.lengths, strict=True)
    width = max(job.buckets.width(lengths[rows]) for plan, lengths in epochs for rows in plan)
    rows = -(-settings.batch_size // settings.devices)
    head = job.head_numbers(rows * width)
    columns = WIDE * config.hidden_size + INNER * config.intermediate_size + PAIRS * config.num_attention_heads * width
    number = 4 if settings.precision == "float32" else 3
    return (rows * width * config.num_hidden_layers * columns + head) * number


def held_bytes(variables: Iterable[Any]) -> int:
    """What variables take."""
    return sum(math.prod(variable.shape) * np.dtype(str(variable.dtype)).itemsize for variable in variables)


def memory_line(job: Work, network: Any) -> str:
    """What the run will take on each device, and, where that is the machine's own memory, what of it is free."""
    weights, kept = 4 * network.count_params(), held_bytes(network.optimizer.variables)
    step = step_bytes(job)
    device = 2 * weights + kept + step
    parts = f"weights {size(weights)}, gradients {size(weights)}, optimizer {size(kept)}, a step {size(step)}"
    each = " on each device" if job.settings.devices > 1 else ""
    line = f"about {size(device)}{each}: {parts}"
    free = free_memory()
    if job.device.kind == "gpu" or free is None:
        return line
    needed = device * job.settings.devices
    if needed <= free:
        return f"{line}; {size(free)} are free"
    return f"WARNING: {line}; only {size(free)} are free: the run will not fit, {job.smaller}"


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
