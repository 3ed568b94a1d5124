"""Several devices: each batch is shared among them, and their gradients are summed (`tf.distribute.MirroredStrategy`).

Keras' own `keras.distribution` does this on its JAX backend only.
"""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainer.dataset import Plan
from trainer.settings import Precision, TrainSettings
from worker.errors import SettingsError, UsageError


def strategy_for(devices: int) -> Any:
    """The strategy to build the network in.

    Args:
        devices: GPUs to use; where there is none, TensorFlow's logical CPU devices.

    Raises:
        UsageError: there are fewer.
    """
    if devices == 1:
        return tf.distribute.get_strategy()
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        raise UsageError(f"--devices {devices}: TensorFlow finds {len(found)} here: {', '.join(d.name for d in found)}")
    return tf.distribute.MirroredStrategy([device.name for device in found[:devices]])


def refuse_unshared(settings: TrainSettings, precision: Precision) -> None:
    """Check that several devices can do what is asked.

    Raises:
        SettingsError: they cannot; says what can be done instead.
    """
    if settings.devices == 1:
        return
    if settings.accumulate > 1:
        raise SettingsError("--accumulate: not with --devices; they share a larger --batch-size instead")
    if settings.xla:
        raise SettingsError("--xla: not with --devices")
    if precision == "mixed_float16":
        raise SettingsError("--devices: not in mixed_float16; --precision mixed_bfloat16 or float32")


def refuse_small(plan: Plan, devices: int) -> None:
    """Check that every device gets a part of every batch: the mean over no review is not a number.

    Raises:
        UsageError: a batch is too small; says what would help.
    """
    least = min(len(rows) for rows in plan)
    if least < devices:
        raise UsageError(
            f"--devices {devices}: a batch has {least} reviews, too few to share; choose a --batch-size that leaves at "
            f"least {devices} for the last batch"
        )


def stream(network: Any, dataset: Any) -> Iterator[Any]:
    """An iterator of batches for the network's step functions."""
    strategy = network.distribute_strategy
    shared = strategy.num_replicas_in_sync > 1
    return iter(strategy.experimental_distribute_dataset(dataset) if shared else dataset)
