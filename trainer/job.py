"""A training job: everything chosen, read, tokenized and planned, before the first step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from schemas import Cut
from trainer.card import describe_cut
from trainer.checkpoint import Checkpoint, open_checkpoint, with_labels
from trainer.dataset import (
    Buckets,
    Examples,
    Plan,
    fine_buckets,
    padding_share,
    reading_plan,
    tokenize,
    training_plan,
    wide_buckets,
)
from trainer.device import Device, choose_precision, find_device
from trainer.info import DataInfo, Split, read_info
from trainer.optimizer import make_optimizer
from trainer.prepared import read_split
from trainer.progress import Reporter
from trainer.settings import NARROW, TrainSettings, default_learning_rate
from worker.network import Bert
from worker.weights import load_weights


@dataclass(frozen=True)
class Job:
    """What a run computes with.

    Attributes:
        settings: with nothing left to choose.
        learning_rate: the schedule's highest.
        reason: why this precision.
        plans: training batches, one plan an epoch.
        validation_plan: the same batches every time.
    """

    settings: TrainSettings
    learning_rate: float
    checkpoint: Checkpoint
    info: DataInfo
    device: Device
    reason: str
    cut: Cut
    buckets: Buckets
    training: Examples
    validation: Examples
    plans: list[Plan]
    validation_plan: Plan

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return sum(len(plan) for plan in self.plans)

    @property
    def padding(self) -> float:
        """The share of the computed training tokens that is padding."""
        return padding_share(self.plans, self.training.lengths, self.buckets)


def plan_job(settings: TrainSettings, data: Path, reporter: Reporter) -> Job:
    """Read, choose, tokenize and plan.

    Raises:
        SettingsError: `max_tokens` is more than the network reads.
        DataError: the data is missing or does not agree with its `info.json`.
        ArtifactError: the base checkpoint cannot be used.
    """
    info = read_info(data)
    checkpoint = open_checkpoint(settings.base)
    cut = settings.token_cut(checkpoint.config.max_position_embeddings)
    tokenizer = checkpoint.review_tokenizer(cut, settings.cleaning)
    device = find_device()
    precision, reason = choose_precision(settings.precision, device)
    learning_rate = settings.learning_rate or default_learning_rate(checkpoint.config.hidden_size)

    def examples(name: Split) -> Examples:
        reviews = read_split(data, name, info)
        with reporter.bar(f"tokenizing {name}", len(reviews)) as advance:
            return tokenize(reviews, tokenizer, lambda done: advance(done, ""))

    training, validation = examples("train"), examples("validation")
    longest = cut.head + cut.tail
    return Job(
        settings=settings.model_copy(
            update={
                "base": checkpoint.name,
                "precision": precision,
                "learning_rate": learning_rate,
                "max_tokens": longest,
            }
        ),
        learning_rate=learning_rate,
        checkpoint=checkpoint,
        info=info,
        device=device,
        reason=reason,
        cut=cut,
        buckets=wide_buckets(longest) if settings.xla else fine_buckets(longest),
        training=training,
        validation=validation,
        plans=[
            training_plan(training.lengths, settings.batch_size, settings.seed, epoch)
            for epoch in range(settings.epochs)
        ],
        validation_plan=reading_plan(validation.lengths, settings.batch_size),
    )


def build_network(job: Job) -> tuple[Any, tuple[str, ...]]:
    """The compiled network with the checkpoint's weights, and the names of the parts that start fresh."""
    settings = job.settings
    network = Bert(with_labels(job.checkpoint.config, job.info.labels), settings.precision)
    fresh = load_weights(network, job.checkpoint.weights, head_required=False)
    network.compile(
        optimizer=make_optimizer(settings, job.learning_rate, job.steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=settings.xla,
    )
    network.optimizer.build(network.trainable_variables)
    return network, fresh


def describe(job: Job, network: Any, fresh: tuple[str, ...], reporter: Reporter) -> None:
    """Say what will be computed, on what, and why."""
    settings, config = job.settings, job.checkpoint.config
    reporter.fact("device", job.device.name)
    xla = ", compiled with XLA" if settings.xla else ""
    reporter.fact("precision", f"{settings.precision}: {job.reason}{xla}")
    started = f"; starts fresh: {' and '.join(fresh)}" if fresh else "; its classifier is trained further"
    reporter.fact(
        "network",
        f"{settings.base}: {config.num_hidden_layers} layers of {config.hidden_size}, "
        f"{network.count_params():,} parameters{started}",
    )
    longest, truncated = job.buckets.longest, job.training.truncated
    cut = f"of the {truncated:,} longer than {longest} tokens {describe_cut(job.cut)} are read"
    reporter.fact(
        "data",
        f"{len(job.training):,} reviews to train on, {len(job.validation):,} to validate; "
        + (cut if truncated else f"none is longer than {longest} tokens"),
    )
    reporter.fact(
        "batches",
        f"{settings.epochs} x {len(job.plans[0]):,} of {settings.batch_size}, "
        f"of similar length: {job.padding:.1%} padding",
    )
    reporter.fact("optimizer", _optimizer_line(job))


def _optimizer_line(job: Job) -> str:
    settings, width = job.settings, job.checkpoint.config.hidden_size
    clip = f", gradients clipped to {settings.clip_norm:g}" if settings.clip_norm else ""
    if job.learning_rate == default_learning_rate(width):
        side = "at most" if width <= NARROW else "more than"
        rate = f"{job.learning_rate:g} (the default for {side} {NARROW} columns)"
    else:
        rate = f"{job.learning_rate:g}"
    if settings.optimizer == "adam":
        return f"Adam at {rate}{clip}"
    return f"AdamW at {rate}, {settings.warmup:.0%} warm-up, then down to 0; decay {settings.weight_decay:g}{clip}"
