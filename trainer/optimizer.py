"""The optimizer: AdamW with warm-up and linear decay (Devlin et al. 2019, appendix A), or the notebook's plain Adam."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from trainer.settings import TrainSettings

NOT_DECAYED = ("bias", "gamma", "beta")
"""Names of biases and of the normalisations' weights: decay would pull them away from where they belong."""


class WarmupLinear(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rises in a line from 0 to `peak`, then falls in a line to 0 at the last step.

    Args:
        peak: the highest rate.
        steps: of the whole run.
        warmup_steps: over which it rises.
    """

    def __init__(self, peak: float, steps: int, warmup_steps: int) -> None:
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0; the first one already learns."""
        step = ops.cast(step, "float32")
        rising = (step + 1) / max(self.warmup_steps, 1)
        falling = (self.steps - step) / max(self.steps - self.warmup_steps, 1)
        return self.peak * ops.clip(ops.minimum(rising, falling), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps}


class Dense:
    """Makes gradients dense before an optimizer sees them.

    TensorFlow's gradient of an embedding is a list of rows in which a token that stands twice comes twice. Keras
    (3.15) squares that list as it is, in the global norm and in Adam's second moment, where the square of the sum is
    meant: position and type embeddings, whose rows all repeat, would be clipped and scaled wrongly.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables, as any Keras optimizer does."""
        dense = [None if grad is None else tf.convert_to_tensor(grad) for grad in grads]
        super().apply(dense, trainable_variables)  # type: ignore[misc]


class Adam(Dense, keras.optimizers.Adam):  # type: ignore[misc]
    """Adam with dense gradients."""


class AdamW(Dense, keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW with dense gradients."""


def make_optimizer(settings: TrainSettings, learning_rate: float, steps: int) -> Any:
    """A fresh optimizer for a run of `steps` steps."""
    clip = settings.clip_norm or None
    if settings.optimizer == "adam":
        return Adam(learning_rate, global_clipnorm=clip)
    schedule = WarmupLinear(learning_rate, steps, round(settings.warmup * steps))
    optimizer = AdamW(schedule, weight_decay=settings.weight_decay, global_clipnorm=clip)
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    return optimizer
