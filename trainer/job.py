"""A training job: everything chosen, read, tokenized and planned, before the first step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from schemas import Cut
from trainer.card import describe_cut
from trainer.checkpoint import (
    CLASSIFIER,
    Checkpoint,
    labels_agree,
    open_checkpoint,
    stage_weights,
    with_labels,
    write_shape,
)
from trainer.dataset import (
    Buckets,
    Examples,
    Lengths,
    Plan,
    Targets,
    batches,
    fine_buckets,
    padding_share,
    reading_plan,
    shortened,
    tokenize,
    training_plan,
    wide_buckets,
)
from trainer.device import Device, choose_precision, find_device
from trainer.errors import DataError
from trainer.evaluation import RatingError
from trainer.info import DataInfo, Split, read_info
from trainer.optimizer import make_optimizer
from trainer.prepared import read_split
from trainer.progress import Reporter
from trainer.rating import Ratings, as_classifier, rating_metrics, rating_numbers, ratings_of
from trainer.replicas import refuse_small, refuse_unshared, strategy_for, stream
from trainer.run import start_run
from trainer.settings import NARROW, SETTINGS, ClassWeights, TrainSettings, default_learning_rate, read_settings
from worker.bert_config import BertConfig
from worker.errors import SettingsError
from worker.network import Bert
from worker.weights import load_weights


@dataclass(frozen=True)
class Job:
    """What a run computes with.

    Attributes:
        settings: with nothing left to choose.
        learning_rate: the schedule's highest.
        reason: why this precision.
        ratings: the numbers that labels stand for; None where they are classes.
        class_weights: what an error on each label counts; None where all count alike.
        training: what each epoch reads of the reviews to train on.
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
    training: list[Examples]
    validation: Examples
    plans: list[Plan]
    validation_plan: Plan
    ratings: Ratings | None
    class_weights: tuple[float, ...] | None

    @property
    def shape(self) -> BertConfig:
        """Of what is written: one output a label."""
        return with_labels(self.checkpoint.config, self.info.labels)

    @property
    def takes_classifier(self) -> bool:
        """Whether the checkpoint's classifier, where it has one, is for this task and these labels."""
        return self.ratings is not None or labels_agree(self.checkpoint.config, self.info.labels)

    @property
    def patience(self) -> int | None:
        """See `trainer.work`."""
        return self.settings.patience

    @property
    def marker(self) -> str:
        """See `trainer.work`."""
        return SETTINGS

    @property
    def unit(self) -> str:
        """See `trainer.work`."""
        return "reviews"

    @property
    def smaller(self) -> str:
        """See `trainer.work`."""
        return "lower --batch-size or --max-tokens (--accumulate keeps the step as it is)"

    def head_numbers(self, _: int) -> int:
        """See `trainer.work`: a few for each row."""
        return 0

    @property
    def data_digest(self) -> str:
        """Of the training and the validation reviews."""
        return self.info.data_digest

    def begin(self, folder: Path) -> None:
        """Write settings, the data's `info.json`, and all of the model but its weights."""
        start_run(folder, self.settings, self.info)
        write_shape(folder, self.shape, self.checkpoint.tokenizer, self.buckets.longest)

    def begun(self, out: Path) -> tuple[TrainSettings, str]:
        """The settings and the data's digest that a run was begun with."""
        return read_settings(out), read_info(out).data_digest

    def stage(self, out: Path, network: Any, loss: float) -> Path:
        """Write the network, as a classifier, under a name that no reader looks for."""
        shown = network if self.ratings is None else as_classifier(network, self.shape, self.ratings, loss)
        return stage_weights(out, shown)

    def batches_from(self, network: Any, epoch: int, step: int) -> Iterator[Any]:
        """What the network's training step takes, from a step of an epoch on; both count from 0."""
        return self.training_batches(network, self.plans[epoch][step:], epoch)

    def training_batches(self, network: Any, plan: Plan, epoch: int = -1) -> Iterator[Any]:
        """What the network's training step takes of a plan, as an epoch reads it: the last one where none is named."""
        examples = self.training[epoch]
        weights = None if self.class_weights is None else np.array(self.class_weights, dtype=np.float32)
        targets = Targets(self._values(examples), weights)
        return stream(network, batches(examples, plan, self.buckets, targets))

    def validation_batches(self, network: Any) -> Iterator[Any]:
        """What its validation step takes; every review counts alike."""
        targets = Targets(self._values(self.validation))
        return stream(network, batches(self.validation, self.validation_plan, self.buckets, targets))

    def _values(self, examples: Examples) -> NDArray[np.float32] | None:
        if self.ratings is None or examples.ratings is None:
            return None
        return self.ratings.standardized(examples.ratings)

    def rating_error(self, figures: Mapping[str, float]) -> RatingError | None:
        """Of the validation reviews, from their `loss` and `mae`; None where labels are classes."""
        if self.ratings is None or self.validation.ratings is None:
            return None
        return self.ratings.error(figures["loss"], figures["mae"], self.validation.ratings)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return sum(len(plan) for plan in self.plans)

    @property
    def lengths(self) -> list[Lengths]:
        """See `trainer.work`."""
        return [examples.lengths for examples in self.training]

    @property
    def padding(self) -> float:
        """The share of the computed training tokens that is padding."""
        return padding_share(self.plans, self.lengths, self.buckets)


def plan_job(settings: TrainSettings, data: Path, reporter: Reporter) -> Job:
    """Read, choose, tokenize and plan.

    Raises:
        SettingsError: `max_tokens` is more than the network reads, or a setting does not fit the data.
        DataError: the data is missing, does not agree with its `info.json`, or holds too little to learn from.
        ArtifactError: the base checkpoint cannot be used.
    """
    info = read_info(data)
    _refuse_one_sided(data, info)
    counts = info.splits["train"].labels
    numbers = rating_numbers(info.labels) if settings.task == "regression" else None
    class_weights = label_weights(settings.class_weights, counts)
    checkpoint = open_checkpoint(settings.base)
    cuts = settings.epoch_cuts(checkpoint.config.max_position_embeddings)
    cut = cuts[-1]
    tokenizer = checkpoint.review_tokenizer(cut, settings.cleaning)
    device = find_device()
    precision, reason = choose_precision(settings.precision, device)
    refuse_unshared(settings, precision)
    learning_rate = settings.learning_rate or default_learning_rate(checkpoint.config.hidden_size)

    def examples(name: Split) -> Examples:
        reviews = read_split(data, name, info)
        with reporter.bar(f"tokenizing {name}", len(reviews)) as advance:
            return tokenize(reviews, tokenizer, lambda done: advance(done, ""), numbers)

    training, validation = examples("train"), examples("validation")
    ratings = None
    if numbers is not None and training.ratings is not None:
        ratings = ratings_of(numbers, training.ratings)
    longest = cut.head + cut.tail
    read = {one: shortened(training, one) for one in set(cuts)}
    plans = [
        training_plan(read[one].lengths, settings.batch_size, settings.seed, epoch) for epoch, one in enumerate(cuts)
    ]
    validation_plan = reading_plan(validation.lengths, settings.batch_size)
    refuse_small([*plans[0], *validation_plan], settings.devices)
    if sum(len(plan) for plan in plans) < settings.accumulate:
        raise SettingsError(f"--accumulate {settings.accumulate}: the run has only {sum(map(len, plans))} batches")
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
        training=[read[one] for one in cuts],
        validation=validation,
        plans=plans,
        validation_plan=validation_plan,
        ratings=ratings,
        class_weights=class_weights,
    )


def _refuse_one_sided(data: Path, info: DataInfo) -> None:
    """A network that sees one label only learns to say that one."""
    for name in ("train", "validation"):
        if name in info.splits and not info.splits[name].reviews:
            raise DataError(f"{data}: has no review in {name}; `review-trainer prepare` with more rows makes one")
    absent = [label for label in info.labels if not info.splits["train"].labels.get(label)]
    if absent:
        raise DataError(
            f"{data}: no review to train on is labelled {absent[0]!r}; `review-trainer prepare` with more rows, or "
            "without that label"
        )


def label_weights(wanted: ClassWeights | None, counts: Mapping[str, int]) -> tuple[float, ...] | None:
    """What an error on each label counts. `balanced`: in inverse proportion to its reviews, so that over all reviews
    the mean is 1 and the loss keeps its scale.

    Raises:
        SettingsError: a label is not known.
    """
    if wanted is None:
        return None
    if wanted == "balanced":
        return tuple(sum(counts.values()) / (len(counts) * count) for count in counts.values())
    unknown = [name for name in wanted if name not in counts]
    if unknown:
        raise SettingsError(f"--class-weights: no label {unknown[0]!r} in the data; they are {', '.join(counts)}")
    return tuple(wanted.get(name, 1.0) for name in counts)


def build_network(job: Job) -> tuple[Any, tuple[str, ...]]:
    """The compiled network with the checkpoint's weights, and the names of the parts that start fresh."""
    settings = job.settings
    with strategy_for(settings.devices).scope():
        config = job.shape if job.ratings is None else with_labels(job.checkpoint.config, ("rating",))
        network = Bert(config, settings.precision)
        fresh = load_weights(network, job.checkpoint.weights, head_required=False, same_labels=job.takes_classifier)
        if job.ratings is None:
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            metrics = [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
        else:
            loss, metrics = keras.losses.MeanSquaredError(), rating_metrics(job.ratings)
        network.compile(
            optimizer=make_optimizer(settings, job.learning_rate, job.steps, config.num_hidden_layers),
            loss=loss,
            metrics=metrics,
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
    if job.checkpoint.head == CLASSIFIER and not job.takes_classifier:
        started += f", since the checkpoint's is for {', '.join(job.checkpoint.config.labels)}"
    reporter.fact(
        "network",
        f"{settings.base}: {config.num_hidden_layers} layers of {config.hidden_size}, "
        f"{network.count_params():,} parameters{started}",
    )
    longest, truncated = job.buckets.longest, job.training[-1].truncated
    cut = f"of the {truncated:,} longer than {longest} tokens {describe_cut(job.cut)} are read"
    reporter.fact(
        "data",
        f"{len(job.training[-1]):,} reviews to train on, {len(job.validation):,} to validate; "
        + (cut if truncated else f"none is longer than {longest} tokens"),
    )
    if job.ratings is not None:
        reporter.fact("task", f"regression on {min(job.ratings.values):g} to {max(job.ratings.values):g}, one output")
    if job.class_weights is not None:
        shares = ", ".join(f"{name} {w:.3g}" for name, w in zip(job.info.labels, job.class_weights, strict=True))
        reporter.fact("weights", f"an error counts by its label: {shares}")
    together = f", {settings.accumulate} of them an update" if settings.accumulate > 1 else ""
    shared = f", each shared by {settings.devices} devices" if settings.devices > 1 else ""
    reporter.fact(
        "batches",
        f"{settings.epochs} x {len(job.plans[0]):,} of {settings.batch_size}{together}{shared}, "
        f"of similar length: {job.padding:.1%} padding",
    )
    if settings.first_tokens:
        reporter.fact("reading", reading_line(settings.first_tokens, longest))
    reporter.fact("optimizer", _optimizer_line(job))


def reading_line(first_tokens: Sequence[int], longest: int) -> str:
    """What each epoch reads of a review, for a person; `longest` is what the later ones read, in tokens as well."""
    count = len(first_tokens)
    which = "epoch 1 reads" if count == 1 else f"epochs 1 to {count} read"
    read = first_tokens if len(set(first_tokens)) > 1 else first_tokens[:1]
    return f"{which} at most {', '.join(map(str, read))} tokens of a review, later ones up to {longest}"


def _optimizer_line(job: Job) -> str:
    settings, width = job.settings, job.checkpoint.config.hidden_size
    more = f", gradients clipped to {settings.clip_norm:g}" if settings.clip_norm else ""
    if settings.layer_decay < 1:
        more += f", x {settings.layer_decay:g} a layer down"
    if settings.average:
        more += f", moving average of the weights ({settings.average:g})"
    if job.learning_rate == default_learning_rate(width):
        side = "at most" if width <= NARROW else "more than"
        rate = f"{job.learning_rate:g} (the default for {side} {NARROW} columns)"
    else:
        rate = f"{job.learning_rate:g}"
    if settings.optimizer == "adam":
        return f"Adam at {rate}{more}"
    return f"AdamW at {rate}, {settings.warmup:.0%} warm-up, then down to 0; decay {settings.weight_decay:g}{more}"
