"""The optimizer: AdamW with warm-up and linear decay (Devlin et al. 2019, appendix A), or the notebook's plain Adam."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from trainer.settings import TrainSettings

NOT_DECAYED = ("bias", "gamma", "beta")
"""Names of biases and of the normalisations' weights: decay would pull them away from where they belong."""

ENCODER_LAYER = re.compile(r"(?:^|/)layer_(\d+)/")
HEAD = re.compile(r"(?:^|/)(?:pooler|classifier)/")


class WarmupLinear(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rises in a line from 0 to `peak`, then falls in a line to 0 at the last step.

    Args:
        peak: the highest rate.
        steps: of the whole run, each an update.
        warmup_steps: over which it rises.
        every: batches of an update; it is batches that Keras counts for a schedule.
    """

    def __init__(self, peak: float, steps: int, warmup_steps: int, every: int = 1) -> None:
        self.peak = peak
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.every = every

    def __call__(self, batch: Any) -> Any:
        """The rate of the step that a batch belongs to, counted from 0; the first one already learns."""
        step = ops.cast(ops.floor_divide(batch, self.every), "float32")
        rising = (step + 1) / max(self.warmup_steps, 1)
        falling = (self.steps - step) / max(self.steps - self.warmup_steps, 1)
        return self.peak * ops.clip(ops.minimum(rising, falling), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"peak": self.peak, "steps": self.steps, "warmup_steps": self.warmup_steps, "every": self.every}


def rate_factor(path: str, layers: int, decay: float) -> float:
    """What the rate of a variable is multiplied by: 1 for pooler and classifier, `decay` for the last encoder layer,
    and once more for each layer below it, the embeddings being the lowest.

    What pre-training knows of words and grammar lies low in the network and should change little; the head starts
    fresh (Howard and Ruder 2018, section 3.2; the count of the layers is that of Clark et al. 2020, ELECTRA).

    Args:
        path: the variable's, such as `bert/layer_3/inner/kernel`.
        layers: of the encoder.
        decay: above 0 and at most 1.
    """
    if HEAD.search(path):
        return 1.0
    layer = ENCODER_LAYER.search(path)
    return float(decay ** (layers - int(layer[1]) if layer else layers + 1))


class Update:
    """What Keras' (3.15) optimizers lack here, put before either of them.

    - TensorFlow's gradient of an embedding is a list of rows in which a token that stands twice comes twice. Keras
      squares that list as it is, in the global norm and in Adam's second moment, where the square of the sum is meant:
      position and type embeddings, whose rows all repeat, would be clipped and scaled wrongly. So gradients are made
      dense.
    - Keras clips before it sums over devices: each device's part alone, so the same batch would train differently on
      two of them. So gradients are summed first.
    - Keras takes the moving average behind every batch, update or not. So it is taken behind updates.
    - Rates by layer; the decay of a weight goes with its rate.
    """

    layer_decay = 1.0
    layers = 0

    def build(self, variables: Any) -> None:
        """Know every variable's factor."""
        super().build(variables)  # type: ignore[misc]
        self._factors = [rate_factor(variable.path, self.layers, self.layer_decay) for variable in variables]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update the variables, as any Keras optimizer does."""
        dense = [None if grad is None else tf.convert_to_tensor(grad) for grad in grads]
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            dense = context.all_reduce(tf.distribute.ReduceOp.SUM, dense)
        super().apply(dense, trainable_variables)  # type: ignore[misc]

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        """They are summed already."""
        return grads_and_vars

    def _apply_weight_decay(self, variables: Any) -> None:
        """Comes with each variable's own step."""

    def _update_model_variables_moving_average(self, trainable_variables: Any) -> None:
        """The first update's weights, then a share of each later one's."""
        batch, every = self._iterations, self.gradient_accumulation_steps or 1  # type: ignore[attr-defined]
        later = ops.where(batch < every, 0.0, self.ema_momentum)  # type: ignore[attr-defined]
        old = ops.cast(ops.where((batch + 1) % every == 0, later, 1.0), "float32")
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):  # type: ignore[attr-defined]
            average.assign(old * average + (1 - old) * variable)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One variable's update, at its own rate."""
        factor = self._factors[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        rate = ops.cast(learning_rate, variable.dtype) * factor
        if self.weight_decay and self._use_weight_decay(variable):  # type: ignore[attr-defined]
            variable.assign_sub(variable * self.weight_decay * rate)  # type: ignore[attr-defined]
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            super().update_step(gradient, variable, rate)  # type: ignore[misc]
        else:
            self._fused_step(gradient, variable, rate)

    def _fused_step(self, gradient: Any, variable: Any, rate: Any) -> None:
        """Adam in one pass over weights and moments, by TensorFlow's own kernel: what Keras computes in some ten."""
        at = self._get_variable_index(variable)  # type: ignore[attr-defined]
        number = ops.cast(self.iterations + 1, "float32")  # type: ignore[attr-defined]
        first, second = self.beta_1, self.beta_2  # type: ignore[attr-defined]
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[at].value.handle,  # type: ignore[attr-defined]
            v=self._velocities[at].value.handle,  # type: ignore[attr-defined]
            beta1_power=first**number,
            beta2_power=second**number,
            lr=rate,
            beta1=first,
            beta2=second,
            epsilon=self.epsilon,  # type: ignore[attr-defined]
            grad=gradient,
        )


class Adam(Update, keras.optimizers.Adam):  # type: ignore[misc]
    """Adam, as described above."""


class AdamW(Update, keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW, as described above."""


def make_optimizer(settings: TrainSettings, learning_rate: float, steps: int, layers: int = 0) -> Any:
    """A fresh optimizer.

    Args:
        settings: of the run.
        learning_rate: the schedule's highest.
        steps: batches of the run; an update comes every `settings.accumulate` of them.
        layers: of the encoder; needed where `settings.layer_decay` is not 1.
    """
    every = settings.accumulate
    updates = steps // every
    options = {
        "global_clipnorm": settings.clip_norm or None,
        "gradient_accumulation_steps": every if every > 1 else None,
        "use_ema": settings.average > 0,
        "ema_momentum": settings.average,
    }
    if settings.optimizer == "adam":
        optimizer = Adam(learning_rate, **options)
    else:
        schedule = WarmupLinear(learning_rate, updates, round(settings.warmup * updates), every)
        optimizer = AdamW(schedule, weight_decay=settings.weight_decay, **options)
        optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    optimizer.layer_decay, optimizer.layers = settings.layer_decay, layers
    return optimizer


@contextmanager
def averaged(network: Any) -> Iterator[None]:
    """Inside the block the network has the moving average of its weights, where its optimizer keeps one.

    Keras' own `SwapEMAWeights` swaps by adding and subtracting, which loses the last bits of both.
    """
    optimizer = getattr(network.optimizer, "inner_optimizer", network.optimizer)  # float16's scaling is around it
    if not optimizer.use_ema:
        yield
        return
    weights = network.trainable_variables
    before = [np.array(weight.numpy()) for weight in weights]
    for weight, average in zip(weights, optimizer._model_variables_moving_average, strict=True):
        weight.assign(average.numpy())
    try:
        yield
    finally:
        for weight, value in zip(weights, before, strict=True):
            weight.assign(value)
