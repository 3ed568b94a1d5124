"""What this machine computes on, and the precision that suits it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tensorflow as tf

from trainer.settings import Precision
from worker.engine.keras_engine import has_fast_bfloat16

AMPERE = (8, 0)
"""Compute capability from which NVIDIA's GPUs multiply bfloat16."""


@dataclass(frozen=True)
class Device:
    """The first device that training runs on.

    Attributes:
        kind: `gpu` or `cpu`.
        name: for a person.
        bfloat16: multiplies bfloat16 in hardware.
    """

    kind: Literal["gpu", "cpu"]
    name: str
    bfloat16: bool


def find_device() -> Device:
    """The first GPU that TensorFlow can use, or the CPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return Device("cpu", f"CPU, {_cpu_name()}, {_cores()} cores", has_fast_bfloat16())
    for gpu in gpus:
        # TensorFlow takes all of the device's memory at once unless told otherwise.
        tf.config.experimental.set_memory_growth(gpu, True)
    details = tf.config.experimental.get_device_details(gpus[0])
    more = f" (the first of {len(gpus)})" if len(gpus) > 1 else ""
    capability = details.get("compute_capability", (0, 0))
    return Device("gpu", f"GPU, {details.get('device_name', gpus[0].name)}{more}", capability >= AMPERE)


def make_deterministic() -> None:
    """Have TensorFlow use only operations that give the same bits every time, at whatever cost in speed.

    For GPUs, whose fastest kernels add up in the order in which their threads come. On a CPU with a given number of
    cores the usual ones are deterministic as they are.
    """
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()


def choose_precision(asked: Precision, device: Device) -> tuple[Precision, str]:
    """The precision to train in, and why."""
    if asked != "auto":
        return asked, "asked for"
    if device.bfloat16:
        return "mixed_bfloat16", f"this {device.kind.upper()} multiplies bfloat16 natively"
    if device.kind == "gpu":
        return "mixed_float16", "this GPU has no bfloat16"
    return "float32", "this CPU has no fast bfloat16"


def _cpu_name() -> str:
    """The processor as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")


def _cores() -> int:
    """The cores that this process may use, which a container may have fewer of than the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
