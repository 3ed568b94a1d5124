"""The training loop: epochs of steps, a validation behind each, and a checkpoint whenever it is time.

A loop of our own, since Keras' `fit` cannot begin in the middle of an epoch. The checkpoint is the truth: the best
epoch's weights and `history.json` are written after it and can be made from it again.
"""

import math
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from trainer.board import Board
from trainer.disk import sync
from trainer.errors import TrainingError
from trainer.estimate import Pace
from trainer.interrupt import Interrupt, InterruptedRun
from trainer.optimizer import averaged
from trainer.progress import Advance, Reporter, duration
from trainer.resume import Earlier
from trainer.run import HISTORY, Before, EpochRecord, History, write_history
from trainer.snapshot import CHECKPOINT, State, libraries, restore, write_snapshot
from trainer.work import Work
from worker.artifact import WEIGHTS, digest_file
from worker.errors import ArtifactError

LOOK_SECONDS = 0.1
"""Least time between two looks at the running loss: each waits for the device."""

PARTS = (f".{WEIGHTS}.part", f".{CHECKPOINT}.part", f".{HISTORY}.*", ".tmp*")
"""What a process that was killed while it wrote may have left; the last is safetensors' own, which it renames when it
has written all of it."""

Figures = dict[str, float]


class Fit:
    """One run, from wherever it stands to its end.

    Args:
        job: what is computed.
        network: compiled and measured.
        pace: when which step should be done.
        out: the run folder.
        reporter: is told what happens.
        board: TensorBoard.
        interrupt: asks the run to end.
        every: seconds between two checkpoints, beside those at the ends of epochs.
        before: how the network does before the first step, where that is known.
    """

    def __init__(
        self,
        job: Work,
        network: Any,
        pace: Pace,
        out: Path,
        reporter: Reporter,
        board: Board,
        interrupt: Interrupt,
        every: float,
        before: Before | None = None,
    ) -> None:
        self._job, self._network, self._pace, self._out = job, network, pace, out
        self._reporter, self._board, self._interrupt, self._every = reporter, board, interrupt, every
        self._base_digest = job.checkpoint.digest
        self._weights: str | None = None
        self._step = 0
        self._began = self._looked = self._saved = time.perf_counter()
        self.history = History(
            device=job.device.name,
            parameters=network.count_params(),
            padding=job.padding,
            estimated_seconds=pace.total,
            before=before,
        )

    def go_on(self, earlier: Earlier) -> None:
        """Take up an earlier call's state.

        Raises:
            ArtifactError: it does not fit the network, or the best epoch's weights are not those that were written.
        """
        state, where = earlier.state, self._out / CHECKPOINT
        if state is None or earlier.tensors is None:
            raise ValueError("a finished run has nothing to go on with. This is a bug.")
        restore(self._network, earlier.tensors, where)
        self.history, self._step, self._weights = state.history, state.step, state.weights
        self._began = time.perf_counter() - state.seconds
        weights = self._out / WEIGHTS
        if self._weights is not None and (not weights.is_file() or digest_file(weights).sha256 != self._weights):
            record = self.history.best
            # Ended after the checkpoint and before the weights: those of the epoch just done are made again.
            if record is None or record.epoch != self._epoch or self._step:
                raise ArtifactError(f"{weights}: is not the file that the run wrote; --force starts anew")
            with averaged(self._network):
                self._stage(record).replace(weights)
            sync(self._out)
        for name in PARTS:
            for part in self._out.glob(name):
                part.unlink()
        if self.history.epochs:
            write_history(self._out, self.history)
        self._say_where(state)

    def _say_where(self, state: State) -> None:
        """Where the run stands, and what it did so far."""
        if (state.device, state.libraries) != (self._job.device.name, libraries()):
            versions = ", ".join(f"{name} {version}" for name, version in state.libraries.items())
            self._reporter.say(
                f"note: saved on {state.device} with {versions}; another machine or version may differ in "
                "the last bits from a run without interruption"
            )
        place = f"step {self._step:,} of epoch {self._epoch + 1}" if self._step else f"epoch {self._epoch}"
        self._reporter.fact("resumed", f"behind {place}, from {self._out / CHECKPOINT}")
        for record in self.history.epochs:
            best = self.history.best_epoch == record.epoch
            self._reporter.say(epoch_line(record, len(self._job.plans), best, self._job.unit))

    def run(self) -> History:
        """Train to the end.

        Raises:
            InterruptedRun: a signal came; a checkpoint is written.
            TrainingError: the loss is not a number.
        """
        while not self.history.finished(self._job.settings):
            name = f"epoch {self._epoch + 1}/{len(self._job.plans)}"
            with self._reporter.bar(name, self._pace.steps[self._epoch][-1] + self._pace.validation) as advance:
                record = self._run_epoch(advance)
            best = self.history.best_epoch == record.epoch
            self._reporter.say(epoch_line(record, len(self._job.plans), best, self._job.unit))
            if self._interrupt.number is not None and not self.history.finished(self._job.settings):
                self._leave()
        (self._out / CHECKPOINT).unlink(missing_ok=True)
        return self.history

    @property
    def _epoch(self) -> int:
        """Epochs that are done, which is the number of the one in hand."""
        return len(self.history.epochs)

    @property
    def _seconds(self) -> float:
        """Since this epoch began, the time between two calls left out."""
        return time.perf_counter() - self._began

    def _run_epoch(self, advance: Advance) -> EpochRecord:
        if not self._step:
            self._network.reset_metrics()
            self._began = time.perf_counter()
        self._train(advance)
        trained, training_seconds = self._figures(), self._seconds
        self._check(trained["loss"])
        advance(self._pace.steps[self._epoch][-1], "validating")
        with averaged(self._network):
            validated = self._validate()
            if validated is not None:
                record = self._record(trained, validated, training_seconds)
                history = self._judged(record)
                staged = self._stage(record) if history.best_epoch == record.epoch else None
        if validated is None:
            self._leave()
        self._close_epoch(history, staged)
        self._board.add("epoch", record.epoch, _scalars(record))
        return record

    def _record(self, trained: Figures, validated: Figures, training_seconds: float) -> EpochRecord:
        return EpochRecord(
            epoch=self._epoch + 1,
            loss=trained["loss"],
            accuracy=trained["accuracy"],
            validation_loss=self._check(validated["loss"]),
            validation_accuracy=validated["accuracy"],
            seconds=self._seconds,
            reviews_per_second=sum(map(len, self._job.plans[self._epoch])) / training_seconds,
            rating=self._job.rating_error(validated),
        )

    def _judged(self, record: EpochRecord) -> History:
        """The history with this epoch, stopped where the last better one is too long ago."""
        history, patience = self.history.with_epoch(record), self._job.patience
        if patience is None or record.epoch == len(self._job.plans):
            return history
        return history.model_copy(update={"stopped_early": record.epoch - (history.best_epoch or 0) >= patience})

    def _train(self, advance: Advance) -> None:
        """The steps that are left of this epoch."""
        plan = self._job.plans[self._epoch]
        if self._step:
            advance(self._pace.steps[self._epoch][self._step - 1], "")
        if self._step == len(plan):
            return
        batches = self._job.batches_from(self._network, self._epoch, self._step)
        while self._step < len(plan):
            logs = self._network.train_function(batches)
            self._step += 1
            self._look(logs, advance)
            if self._interrupt.number is not None:
                self._leave()
            if time.perf_counter() - self._saved >= self._every:
                self._save()

    def _look(self, logs: Any, advance: Advance) -> None:
        """Show the running figures now and then; on a board, each step's."""
        now = time.perf_counter()
        if not self._board.open and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        loss, accuracy = self._check(float(logs["loss"])), float(logs["accuracy"])
        plan = self._job.plans[self._epoch]
        speed = sum(map(len, plan[: self._step])) / self._seconds
        done = self._pace.done(self._epoch, self._step)
        spent = self.history.seconds + self._seconds
        # Early on one slow step would make a wild guess: the measured pace counts as one more minute of experience.
        left = (self._pace.total - done) * (spent + 60) / (done + 60)
        advance(
            self._pace.steps[self._epoch][self._step - 1],
            f"loss {loss:.4f}  accuracy {accuracy:.4f}  {speed:.1f} {self._job.unit}/s  {duration(left)} left",
        )
        if self._board.open:
            number = sum(len(plan) for plan in self._job.plans[: self._epoch]) + self._step
            rate = float(self._network.optimizer.learning_rate)
            self._board.add("step", number, {"loss": loss, "accuracy": accuracy, "rate": rate})

    def _validate(self) -> Figures | None:
        """The figures of the validation reviews; None where a signal comes: the run then stands behind the last step
        of the epoch as if it had not begun to validate."""
        metrics = self._network.metrics_variables
        held = [np.array(variable.numpy()) for variable in metrics]
        self._network.reset_metrics()
        batches = self._job.validation_batches(self._network)
        for _ in self._job.validation_plan:
            if self._interrupt.number is not None:
                break
            self._network.test_function(batches)
        else:
            return self._figures()
        for variable, value in zip(metrics, held, strict=True):
            variable.assign(value)
        return None

    def _figures(self) -> Figures:
        return {name: float(value) for name, value in self._network.get_metrics_result().items()}

    def _stage(self, record: EpochRecord) -> Path:
        """Write the network as it is, under a name that no reader looks for."""
        return self._job.stage(self._out, self._network, record.validation_loss)

    def _close_epoch(self, history: History, staged: Path | None) -> None:
        """Checkpoint, weights, history, in this order: what comes later can be made from what comes earlier."""
        if staged is not None:
            self._weights = digest_file(staged).sha256
        self.history, self._step = history, 0
        self._began = time.perf_counter()
        self._save()
        if staged is not None:
            staged.replace(self._out / WEIGHTS)
            sync(self._out)
        write_history(self._out, history)

    def _save(self) -> None:
        state = State(
            settings=self._job.settings,
            device=self._job.device.name,
            data_digest=self._job.data_digest,
            base_digest=self._base_digest,
            epoch=self._epoch,
            step=self._step,
            seconds=self._seconds,
            history=self.history,
            weights=self._weights,
        )
        if self._step:
            self._check(self._figures()["loss"])  # what cannot be gone on from is no checkpoint
        write_snapshot(self._out, self._network, state)
        self._saved = time.perf_counter()

    def _leave(self) -> NoReturn:
        self._save()
        self._reporter.fact(
            "checkpoint",
            f"epoch {self._epoch + 1} of {len(self._job.plans)}, behind step {self._step:,} of "
            f"{len(self._job.plans[self._epoch]):,}; the same command with --resume goes on from there",
        )
        raise InterruptedRun(self._interrupt.number or 0)

    def _check(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is not a number since step {self._step} of epoch {self._epoch + 1}; try a lower "
                "--learning-rate, or --precision float32"
            )
        return loss


def epoch_line(record: EpochRecord, epochs: int, best: bool, unit: str) -> str:
    """One epoch, for a person."""
    off = f"  mean error {record.rating.mae:.3f}" if record.rating else ""
    return (
        f"epoch {record.epoch}/{epochs}   loss {record.loss:.4f}  accuracy {record.accuracy:.4f}   "
        f"validation loss {record.validation_loss:.4f}  accuracy {record.validation_accuracy:.4f}{off}   "
        f"{duration(record.seconds)}, {record.reviews_per_second:.1f} {unit}/s{'   best so far' if best else ''}"
    )


def _scalars(record: EpochRecord) -> Figures:
    """What a board shows of an epoch."""
    fields = record.model_dump(exclude={"epoch", "rating"})
    return fields | (record.rating.model_dump() if record.rating else {})
