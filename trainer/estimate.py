"""How long a run will take, measured on this machine before it starts."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Buckets, Lengths, Plan
from trainer.work import Work

Feed = Callable[[Plan], Iterator[Any]]
"""A plan's training batches, as the network's step functions take them."""

REPEATS = 3
ENOUGH_SECONDS = 1.0
"""A width is timed three times, or for a second where its steps are long."""


@dataclass(frozen=True)
class Speed:
    """What steps take here.

    Attributes:
        widths: measured batch widths, tokens, ascending.
        seconds: of one full training batch at each width.
        batch: rows of a full batch.
        forward_share: seconds of a validation batch over those of a training batch.
    """

    widths: Sequence[int]
    seconds: Sequence[float]
    batch: int
    forward_share: float

    def step(self, rows: int, width: int) -> float:
        """Seconds of a training step, between the measured widths in proportion, beyond them by tokens."""
        if width >= self.widths[-1]:
            full = self.seconds[-1] * width / self.widths[-1]
        else:
            full = float(np.interp(width, self.widths, self.seconds))
        return full * rows / self.batch

    def training(self, plan: Plan, lengths: Lengths, buckets: Buckets) -> list[float]:
        """Seconds of each step of a plan."""
        return [self.step(len(rows), buckets.width(lengths[rows])) for rows in plan]

    def validation(self, plan: Plan, lengths: Lengths, buckets: Buckets) -> float:
        """Seconds of a validation pass."""
        return self.forward_share * sum(self.training(plan, lengths, buckets))


class Pace:
    """When which step should be done, from the measured speed.

    Attributes:
        steps: for each epoch the seconds after which each of its steps is done.
        validation: seconds of one validation pass.
        total: seconds of the run.
    """

    def __init__(self, job: Work, speed: Speed) -> None:
        self.steps = [
            list(accumulate(speed.training(plan, lengths, job.buckets)))
            for plan, lengths in zip(job.plans, job.lengths, strict=True)
        ]
        self.validation = speed.validation(job.validation_plan, job.validation.lengths, job.buckets)
        self.total = sum(steps[-1] + self.validation for steps in self.steps)

    def done(self, epoch: int, step: int) -> float:
        """Seconds of work that lie behind the first `step` steps of `epoch`, which counts from 0."""
        before = sum(steps[-1] + self.validation for steps in self.steps[:epoch])
        return before + (self.steps[epoch][step - 1] if step else 0.0)


def measure(network: Any, feed: Feed, lengths: Lengths, plan: Plan, buckets: Buckets) -> Speed:
    """Time real training steps on planned batches: the narrowest, the median, the widest; then put everything back.

    The widest comes first: it shows at once whether the memory suffices.

    Args:
        network: compiled, its optimizer built; unchanged afterwards, random state included.
        feed: gives the batches of a plan.
        lengths: tokens of each row, (rows,).
        plan: an epoch's.
        buckets: of the run.
    """
    variables = [*network.variables, *network.optimizer.variables]
    before = [np.array(variable.numpy()) for variable in variables]
    network.make_train_function()
    network.make_test_function()
    full = max(len(rows) for rows in plan)
    by_width = {buckets.width(lengths[rows]): rows for rows in plan if len(rows) == full}
    widths = sorted(by_width)
    chosen = sorted({widths[0], widths[len(widths) // 2], widths[-1]}, reverse=True)
    seconds = {width: _seconds(network.train_function, feed, by_width[width]) for width in chosen}
    forward = _seconds(network.test_function, feed, by_width[chosen[0]]) / seconds[chosen[0]]
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    network.reset_metrics()
    ascending = chosen[::-1]
    return Speed(ascending, [seconds[width] for width in ascending], full, forward)


def _seconds(function: Any, feed: Feed, rows: NDArray[np.int64]) -> float:
    """The median time of a step. The first run of a width is not counted: it compiles, or finds its memory."""
    iterator = feed([rows] * (1 + REPEATS))
    taken: list[float] = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        float(function(iterator)["loss"])
        taken.append(time.perf_counter() - start)
        if sum(taken[1:]) > ENOUGH_SECONDS:
            break
    return median(taken[1:])
