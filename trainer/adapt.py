"""Adapt: texts without labels and a base checkpoint in, a base checkpoint out that has read them.

Masked words are guessed as in pre-training, on texts of the task (Gururangan et al. 2020): fine-tuning from what comes
out needs fewer labels. The loop, its checkpoints and its resumption are those of `train`.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import keras

from trainer.adapt_job import AdaptJob, build_masked, compile_masked, plan_adaptation
from trainer.adapt_network import MaskedBert
from trainer.adapt_settings import ADAPT, AdaptSettings, read_adaptation
from trainer.disk import check_room, check_writable
from trainer.estimate import Pace, Speed, measure
from trainer.folders import refuse_existing, writing
from trainer.memory import memory_line
from trainer.progress import Reporter, duration
from trainer.resume import Earlier, earlier_run
from trainer.run import Before, History
from trainer.train import Conduct, disk_bytes, fit, memory_sufficing, seconds_done
from worker.errors import ArtifactError


def adapt(
    settings: AdaptSettings,
    data: Sequence[Path],
    out: Path,
    *,
    force: bool,
    reporter: Reporter,
    conduct: Conduct,
) -> History:
    """Pre-train on texts.

    Args:
        settings: as asked; what is absent or `auto` is chosen here.
        data: CSVs with a column `text`, or files with a text a line.
        out: the folder to make, or with `conduct.resume` the one to go on in.
        force: replace an earlier one.
        reporter: is told what happens.
        conduct: of the run.

    Raises:
        UsageError: `out` or a file cannot be used, or a setting does not fit the network or the run that is to go on.
        DataError: there are too few texts.
        ArtifactError: the base checkpoint or the run's own cannot be used.
        TrainingError: the loss is not a number, or the memory does not suffice.
        ReviewScorerError: the disk has not the room, or cannot be written.
        InterruptedRun: a signal ended the run, and it can go on.
    """
    if not conduct.resume:
        refuse_existing(out, marker=ADAPT, force=force)
    check_writable(out)
    keras.utils.set_random_seed(settings.seed)
    job = plan_adaptation(settings, data, reporter)
    if conduct.resume and settings.minutes is not None and (out / ADAPT).is_file():
        # How many steps the minutes are was settled by the first call; other minutes are refused below.
        begun = read_adaptation(out).settings
        job = job.of_steps(begun.steps) if begun.steps is not None else job
    earlier = earlier_run(out, job) if conduct.resume else None
    if earlier is not None and earlier.state is None:
        reporter.say(f"{out}: this adaptation is finished; there is nothing to go on with")
        return earlier.history
    network, fresh = build_masked(job)
    check_room(out, disk_bytes(network, copies=1 if earlier else 2))
    with memory_sufficing(f"batches of {settings.batch_size} x {settings.length} tokens", job.smaller):
        _describe(job, network, fresh, reporter)
        reporter.fact("memory", memory_line(job, network))
        before = _before(job, network, earlier, reporter)
        job, speed = _measured(job, network, reporter)
        pace = Pace(job, speed)
        done = seconds_done(pace, earlier)
        rest = " for what is left" if done else ""
        reporter.fact("time", f"about {duration(pace.total - done)}{rest}, from timing training steps on this machine")
        with writing(out):
            force = force or conduct.resume
            return fit(job, network, pace, out, earlier, reporter, force=force, conduct=conduct, before=before)


def _measured(job: AdaptJob, network: MaskedBert, reporter: Reporter) -> tuple[AdaptJob, Speed]:
    """What a step takes; and where the job has minutes and no steps yet, the job with as many as fit."""
    with reporter.working("compiling the training step and timing it"):
        speed = measure(network, job.training_batches, job.training.lengths, job.plans[0], job.buckets)
    if job.settings.minutes is not None and job.settings.steps is None:
        job = job.within(60 * job.settings.minutes, speed)
        compile_masked(network, job)  # the rate's way depends on the number of steps
        network.make_train_function()
        network.make_test_function()
        if job.steps == 1:
            reporter.say(f"note: {job.settings.minutes:g} minutes are hardly enough to judge the held-out texts twice")
    share = job.steps / -(-len(job.training) // job.settings.batch_size)
    reporter.fact(
        "batches", f"{job.steps:,} of {job.settings.batch_size}, {share:.2f} x all rows: {job.padding:.1%} padding"
    )
    return job, speed


def _before(job: AdaptJob, network: MaskedBert, earlier: Earlier | None, reporter: Reporter) -> Before:
    """How the network guesses held-out words before it learns from the others."""
    before = None if earlier is None else earlier.history.before
    if before is None:
        with reporter.bar("held out", len(job.validation_plan)) as advance:
            network.make_test_function()
            batches = job.validation_batches(network)
            for number, _ in enumerate(job.validation_plan, start=1):
                network.test_function(batches)
                advance(number, "")
        found = network.get_metrics_result()
        if not math.isfinite(found["loss"]):
            raise ArtifactError(
                f"{job.checkpoint.folder}: what it says of held-out texts is not a number; its weights are broken, or "
                "--precision float32 is needed"
            )
        before = Before(loss=float(found["loss"]), accuracy=float(found["accuracy"]))
        network.reset_metrics()
    reporter.fact("before", guessing(before.loss, before.accuracy))
    return before


def guessing(loss: float, accuracy: float) -> str:
    """How held-out words are guessed, for a person."""
    return f"masked loss {loss:.4f}, {accuracy:.1%} of the masked words of held-out texts guessed"


def _describe(job: AdaptJob, network: MaskedBert, fresh: tuple[str, ...], reporter: Reporter) -> None:
    """Say what will be computed, on what, and why."""
    settings, config = job.settings, job.checkpoint.config
    reporter.fact("device", job.device.name)
    reporter.fact("precision", f"{settings.precision}: {job.reason}")
    head = "starts fresh" if "head" in fresh else "is trained further"
    reporter.fact(
        "network",
        f"{settings.base}: {config.num_hidden_layers} layers of {config.hidden_size}, "
        f"{network.count_params():,} parameters; its head for masked words {head}",
    )
    again = f", {job.repeated:,} that stood there twice left out" if job.repeated else ""
    reporter.fact(
        "texts",
        f"{sum(source.texts for source in job.sources):,}{again}; {len(job.training):,} rows of at most "
        f"{settings.length} tokens to learn from ({int(job.training.lengths.sum()):,} tokens), "
        f"{len(job.validation):,} held out",
    )
    reporter.fact("masked", f"15% of the {'words, each with all its pieces' if settings.whole_words else 'tokens'}")
    reporter.fact("optimizer", f"AdamW at {job.learning_rate:g}, 10% warm-up, then down to 0")
