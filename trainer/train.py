"""Train: prepared data and a base checkpoint in, a run folder with the best epoch's weights out."""

import math
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import accumulate, chain
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import tensorflow as tf

from trainer.checkpoint import write_shape, write_weights
from trainer.dataset import batches
from trainer.errors import TrainingError
from trainer.estimate import Speed, measure
from trainer.folders import refuse_existing, writing
from trainer.job import Job, build_network, describe, plan_job
from trainer.progress import Advance, Reporter, duration
from trainer.run import EpochRecord, History, start_run, write_history
from trainer.settings import SETTINGS, TrainSettings

LOOK_SECONDS = 0.1
"""Least time between two looks at the running loss: each waits for the device."""


def train(settings: TrainSettings, data: Path, out: Path, *, force: bool, reporter: Reporter) -> History:
    """Fine-tune.

    Args:
        settings: as asked; what is absent or `auto` is chosen here.
        data: a folder made by `prepare`.
        out: the run folder to make.
        force: replace an earlier run.
        reporter: is told what happens.

    Raises:
        UsageError: `out` cannot be used, or a setting does not fit the network.
        DataError: the data cannot be used.
        ArtifactError: the base checkpoint cannot be used.
        TrainingError: the loss is not a number, or the memory does not suffice.
    """
    refuse_existing(out, marker=SETTINGS, force=force)
    keras.utils.set_random_seed(settings.seed)
    job = plan_job(settings, data, reporter)
    network, fresh = build_network(job)
    describe(job, network, fresh, reporter)
    try:
        with reporter.working("compiling the training step and timing it"):
            speed = measure(network, job.training, job.plans[0], job.buckets)
        pace = Pace(job, speed)
        reporter.fact("time", f"about {duration(pace.total)}, from timing training steps on this machine")
        with writing(out):
            start_run(out, job.settings, job.info, force=force)
            write_shape(out, network.config, job.checkpoint.tokenizer, job.buckets.longest)
            return _fit(job, network, pace, out, reporter)
    except tf.errors.ResourceExhaustedError:
        longest = job.buckets.longest
        raise TrainingError(
            f"the memory does not suffice for batches of {settings.batch_size} x {longest} tokens; "
            "lower --batch-size or --max-tokens"
        ) from None


class Pace:
    """When which step should be done, from the measured speed.

    Attributes:
        steps: for each epoch the seconds after which each of its steps is done.
        validation: seconds of one validation pass.
        total: seconds of the run.
    """

    def __init__(self, job: Job, speed: Speed) -> None:
        self.steps = [list(accumulate(speed.training(plan, job.training, job.buckets))) for plan in job.plans]
        self.validation = speed.validation(job.validation_plan, job.validation, job.buckets)
        self.total = sum(steps[-1] + self.validation for steps in self.steps)

    def done(self, epoch: int, step: int) -> float:
        """Seconds of work that lie behind `step` of `epoch`, both from 0."""
        return sum(steps[-1] + self.validation for steps in self.steps[:epoch]) + self.steps[epoch][step]


def _fit(job: Job, network: Any, pace: Pace, out: Path, reporter: Reporter) -> History:
    history = History(
        device=job.device.name,
        parameters=network.count_params(),
        padding=job.padding,
        estimated_seconds=pace.total,
    )
    keeper = Keeper(job, pace, history, out, reporter)
    with keeper, _interrupts(keeper):
        network.fit(
            batches(job.training, list(chain(*job.plans)), job.buckets),
            epochs=len(job.plans),
            steps_per_epoch=len(job.plans[0]),
            validation_data=batches(job.validation, job.validation_plan, job.buckets),
            callbacks=[keeper],
            shuffle=False,
            verbose=0,
        )
    return keeper.history


@contextmanager
def _interrupts(keeper: "Keeper") -> Iterator[None]:
    """Ctrl-C ends the run between two steps. Raised wherever Python happens to be, a KeyboardInterrupt can get lost in
    a callback of TensorFlow's, and the run goes on. A second one is raised at once."""

    def interrupt(number: int, _: FrameType | None) -> None:
        keeper.interrupted = True
        signal.signal(number, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if before is not None:  # as it is when something else than Python installed it
            signal.signal(signal.SIGINT, before)


class Keeper(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows progress, keeps the history and the best epoch's weights, and stops a run whose loss is not a number."""

    def __init__(self, job: Job, pace: Pace, history: History, out: Path, reporter: Reporter) -> None:
        super().__init__()
        self.interrupted = False
        self.history = history
        self._job, self._pace, self._out, self._reporter = job, pace, out, reporter
        self._started = self._epoch_started = self._looked = time.perf_counter()
        self._trained = 0.0
        self._rows = 0
        self._epoch = 0
        self._bars = ExitStack()
        self._advance: Advance = lambda done, status: None

    def __enter__(self) -> "Keeper":
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.close()

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Start a bar."""
        self._epoch, self._rows = epoch, 0
        self._epoch_started = time.perf_counter()
        name = f"epoch {epoch + 1}/{len(self._job.plans)}"
        steps = self._pace.steps[epoch][-1]
        self._advance = self._bars.enter_context(self._reporter.bar(name, steps + self._pace.validation))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Stop when asked to; look at the running loss now and then."""
        if self.interrupted:
            raise KeyboardInterrupt
        self._rows += len(self._job.plans[self._epoch][batch])
        now = time.perf_counter()
        if logs is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        loss = self._checked(float(logs["loss"]), batch)
        done = self._pace.done(self._epoch, batch)
        # Early on one slow step would make a wild guess: the measured pace counts as one more minute of experience.
        left = (self._pace.total - done) * (now - self._started + 60) / (done + 60)
        self._advance(
            self._pace.steps[self._epoch][batch],
            f"loss {loss:.4f}  accuracy {float(logs['accuracy']):.4f}  "
            f"{self._rows / (now - self._epoch_started):.1f} reviews/s  {duration(left)} left",
        )

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Training of this epoch is over; validation starts."""
        self._trained = time.perf_counter() - self._epoch_started
        self._advance(self._pace.steps[self._epoch][-1], "validating")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Keep what is worth keeping."""
        figures = {name: float(value) for name, value in (logs or {}).items()}
        self._checked(figures["loss"], len(self._job.plans[epoch]) - 1)
        self._checked(figures["val_loss"], len(self._job.plans[epoch]) - 1)
        record = EpochRecord(
            epoch=epoch + 1,
            loss=figures["loss"],
            accuracy=figures["accuracy"],
            validation_loss=figures["val_loss"],
            validation_accuracy=figures["val_accuracy"],
            seconds=time.perf_counter() - self._epoch_started,
            reviews_per_second=self._rows / self._trained,
        )
        self.history = self.history.with_epoch(record)
        best = self.history.best_epoch == record.epoch
        if best:
            write_weights(self._out, self.model)
        # After the weights: a history never speaks of an epoch whose weights are not there.
        write_history(self._out, self.history)
        self._bars.close()
        self._reporter.say(_epoch_line(record, len(self._job.plans), best))

    def _checked(self, loss: float, step: int) -> float:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is not a number since step {step + 1} of epoch {self._epoch + 1}; try a lower "
                "--learning-rate, or --precision float32"
            )
        return loss


def _epoch_line(record: EpochRecord, epochs: int, best: bool) -> str:
    return (
        f"epoch {record.epoch}/{epochs}   loss {record.loss:.4f}  accuracy {record.accuracy:.4f}   "
        f"validation loss {record.validation_loss:.4f}  accuracy {record.validation_accuracy:.4f}   "
        f"{duration(record.seconds)}, {record.reviews_per_second:.1f} reviews/s{'   best so far' if best else ''}"
    )
