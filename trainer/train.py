"""Train: prepared data and a base checkpoint in, a run folder with the best epoch's weights out."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trainer.board import FOLDER, Board
from trainer.device import make_deterministic
from trainer.disk import check_room, check_writable
from trainer.errors import TrainingError
from trainer.estimate import Pace, measure
from trainer.fit import Fit
from trainer.folders import new_folder, refuse_existing, writing
from trainer.held import data_noted
from trainer.interrupt import Interrupt
from trainer.job import build_network, describe, plan_job
from trainer.memory import held_bytes, memory_line
from trainer.progress import Reporter, duration
from trainer.resume import Earlier, earlier_run
from trainer.run import HISTORY, Before, History
from trainer.settings import SETTINGS, TrainSettings
from trainer.snapshot import CHECKPOINT, variables
from trainer.work import Work


@dataclass(frozen=True)
class Conduct:
    """How a run is conducted: nothing here changes its result.

    Attributes:
        resume: go on from the checkpoint in the run folder; begin where there is none yet.
        every: seconds between two checkpoints, beside those at the ends of epochs.
        tensorboard: write scalars for TensorBoard into the run folder.
    """

    resume: bool = False
    every: float = 300.0
    tensorboard: bool = False


def train(
    settings: TrainSettings,
    data: Path,
    out: Path,
    *,
    force: bool,
    reporter: Reporter,
    conduct: Conduct = Conduct(),
) -> History:
    """Fine-tune.

    Args:
        settings: as asked; what is absent or `auto` is chosen here.
        data: a folder made by `prepare`.
        out: the run folder to make, or with `conduct.resume` the one to go on in.
        force: replace an earlier run.
        reporter: is told what happens.
        conduct: of the run.

    Raises:
        UsageError: `out` cannot be used, or a setting does not fit the network or the run that is to go on.
        DataError: the data cannot be used.
        ArtifactError: the base checkpoint or the run's own cannot be used.
        TrainingError: the loss is not a number, or the memory does not suffice.
        ReviewScorerError: the disk has not the room, or cannot be written.
        InterruptedRun: a signal ended the run, and it can go on.
    """
    if not conduct.resume:
        refuse_existing(out, marker=SETTINGS, force=force)
    check_writable(out)
    if settings.deterministic:
        make_deterministic()
    keras.utils.set_random_seed(settings.seed)
    job = plan_job(settings, data, reporter)
    earlier = earlier_run(out, job) if conduct.resume else None
    if earlier is not None and earlier.state is None:
        reporter.say(f"{out}: this run is finished; there is nothing to go on with")
        return earlier.history
    network, fresh = build_network(job)
    describe(job, network, fresh, reporter)
    reporter.fact("memory", memory_line(job, network))
    check_room(out, disk_bytes(network, copies=1 if earlier else 2))
    longest = job.buckets.longest
    with memory_sufficing(f"batches of {settings.batch_size} x {longest} tokens", job.smaller):
        with reporter.working("compiling the training step and timing it"):
            speed = measure(
                network, lambda plan: job.training_batches(network, plan), job.lengths[-1], job.plans[-1], job.buckets
            )
        pace = Pace(job, speed)
        done = seconds_done(pace, earlier)
        rest = " for what is left" if done else ""
        reporter.fact("time", f"about {duration(pace.total - done)}{rest}, from timing training steps on this machine")
        with writing(out), data_noted(out, data):
            return fit(job, network, pace, out, earlier, reporter, force=force or conduct.resume, conduct=conduct)


@contextmanager
def memory_sufficing(what: str, advice: str) -> Iterator[None]:
    """Turn TensorFlow's word that a device's memory is full into one line."""
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise TrainingError(f"the memory does not suffice for {what}; {advice}") from None


def disk_bytes(network: Any, copies: int) -> int:
    """What a run writes at most: its weights and its checkpoint, the old ones standing until the new ones are whole."""
    weights: int = 4 * network.count_params()
    return copies * (weights + held_bytes(variables(network)))


def seconds_done(pace: Pace, earlier: Earlier | None) -> float:
    """Seconds of work that lie behind an earlier call's checkpoint, at this machine's pace."""
    state = None if earlier is None else earlier.state
    if state is None:
        return 0.0
    return pace.total if state.epoch == len(pace.steps) else pace.done(state.epoch, state.step)


def fit(
    job: Work,
    network: Any,
    pace: Pace,
    out: Path,
    earlier: Earlier | None,
    reporter: Reporter,
    *,
    force: bool,
    conduct: Conduct,
    before: Before | None = None,
) -> History:
    """Begin a run or go on with it, to its end or to a signal.

    Args:
        job: what is computed.
        network: compiled and measured.
        pace: of the job.
        out: the run folder.
        earlier: what is there already.
        reporter: is told what happens.
        force: replace what stands there, where nothing is gone on with.
        conduct: of the run.
        before: how the network does before the first step, where that is worth knowing.

    Raises:
        InterruptedRun: see `train`.
        TrainingError: the loss is not a number.
        OSError: the disk is full, or cannot be written.
    """
    with ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        if earlier is None:
            if conduct.resume:
                reporter.say(f"{out}: nothing to go on from yet; the run begins")
            with new_folder(out, marker=job.marker, force=force) as folder:
                job.begin(folder)
            stack.callback(_remove_if_bare, out)
        board = stack.enter_context(Board(out / FOLDER if conduct.tensorboard else None))
        run = Fit(job, network, pace, out, reporter, board, interrupt, conduct.every, before)
        if earlier is not None:
            run.go_on(earlier)
        return run.run()


def _remove_if_bare(out: Path) -> None:
    """A run that failed before it wrote anything to go on from leaves no folder."""
    if not (out / CHECKPOINT).exists() and not (out / HISTORY).exists():
        shutil.rmtree(out, ignore_errors=True)
