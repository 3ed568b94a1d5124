"""An adaptation: everything chosen, read, tokenized and planned, before the first step."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trainer.adapt_data import SHARE, Masking, Rows, masked_batches, masking_of, read_rows
from trainer.adapt_network import MaskedBert, load_masked, save_masked
from trainer.adapt_settings import (
    ADAPT,
    Adaptation,
    AdaptSettings,
    TextSource,
    default_adapt_rate,
    read_adaptation,
)
from trainer.checkpoint import Checkpoint, open_checkpoint, stage_weights, write_shape
from trainer.cuts import EVERYTHING
from trainer.data import Refusal, TextFile, read_texts
from trainer.dataset import Buckets, Lengths, Plan, fine_buckets, padding_share, reading_plan, training_plan
from trainer.device import Device, choose_precision, find_device
from trainer.errors import DataError
from trainer.estimate import Speed
from trainer.folders import replace_file
from trainer.optimizer import make_optimizer
from trainer.progress import Reporter
from worker.artifact import digest_bytes
from worker.bert_config import BertConfig
from worker.errors import SettingsError
from worker.tokens import ReviewTokenizer

HELD_OUT, MOST_HELD_OUT = 0.05, 200
"""The share of the texts that is held out, and how many at most: 200 of IMDB are some 8,500 masked tokens."""

HELD = 0
"""Stands for the epoch where held-out rows are masked, the same every time; training epochs count from 1 there."""

HEAD_NUMBERS = 4
"""What a step keeps of each masked token's guess for each word of the vocabulary."""


@dataclass(frozen=True)
class AdaptJob:
    """What an adaptation computes with; see `trainer.work`.

    Attributes:
        settings: with nothing left to choose but the steps that fit into its minutes.
        learning_rate: the schedule's highest.
        sources: the files that were read.
        reason: why this precision.
        masking: of the checkpoint.
        repeated: texts that stood there twice.
    """

    settings: AdaptSettings
    learning_rate: float
    checkpoint: Checkpoint
    sources: tuple[TextSource, ...]
    device: Device
    reason: str
    buckets: Buckets
    training: Rows
    validation: Rows
    plans: list[Plan]
    validation_plan: Plan
    masking: Masking
    repeated: int

    patience = None
    marker = ADAPT
    unit = "rows"
    smaller = "lower --batch-size or --length"

    @property
    def data_digest(self) -> str:
        """Of the files' digests, in their order."""
        return digest_bytes("\n".join(source.sha256 for source in self.sources).encode())

    @property
    def shape(self) -> BertConfig:
        """The checkpoint's own."""
        return self.checkpoint.config

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return sum(len(plan) for plan in self.plans)

    @property
    def padding(self) -> float:
        """The share of the computed training tokens that is padding."""
        return padding_share(self.plans, self.lengths, self.buckets)

    @property
    def lengths(self) -> list[Lengths]:
        """See `trainer.work`: every epoch reads the same."""
        return [self.training.lengths] * len(self.plans)

    def head_numbers(self, tokens: int) -> int:
        """See `trainer.work`: a number for each word of the vocabulary and each masked token."""
        return round(HEAD_NUMBERS * SHARE * tokens) * self.shape.vocab_size

    def begin(self, folder: Path) -> None:
        """Write the settings, and all of the checkpoint but its weights."""
        content = Adaptation(settings=self.settings, sources=self.sources, data_digest=self.data_digest)
        replace_file(folder / ADAPT, content.model_dump_json(indent=2) + "\n")
        positions = self.shape.max_position_embeddings
        write_shape(folder, self.shape, self.checkpoint.tokenizer, positions, "BertForMaskedLM")

    def begun(self, out: Path) -> tuple[AdaptSettings, str]:
        """The settings and the data's digest that a folder was begun with."""
        there = read_adaptation(out)
        return there.settings, there.data_digest

    def stage(self, out: Path, network: Any, _: float) -> Path:
        """Write the network under a name that no reader looks for."""
        return stage_weights(out, network, save_masked)

    def rating_error(self, _: Mapping[str, float]) -> None:
        """There are no ratings."""

    def training_batches(self, plan: Plan) -> Iterator[Any]:
        """What the training step takes of a plan, masked as the first epoch is."""
        return iter(masked_batches(self.training, plan, self.buckets, self.masking, self._seeds(1, 0, len(plan))))

    def batches_from(self, _: Any, epoch: int, step: int) -> Iterator[Any]:
        """What the training step takes, from a step of an epoch on; both count from 0."""
        plan = self.plans[epoch]
        seeds = self._seeds(epoch + 1, step, len(plan))
        return iter(masked_batches(self.training, plan[step:], self.buckets, self.masking, seeds))

    def validation_batches(self, _: Any) -> Iterator[Any]:
        """What the validation step takes: the same words are masked every time."""
        plan = self.validation_plan
        return iter(masked_batches(self.validation, plan, self.buckets, self.masking, self._seeds(HELD, 0, len(plan))))

    def _seeds(self, epoch: int, first: int, last: int) -> list[tuple[int, int, int]]:
        return [(self.settings.seed, epoch, step) for step in range(first, last)]

    def within(self, seconds: float, speed: Speed) -> "AdaptJob":
        """The same with as many steps as should take so long, the two validations included; one at least."""
        left = seconds - 2 * speed.validation(self.validation_plan, self.validation.lengths, self.buckets)
        (plan,) = self.plans
        ends = list(accumulate(speed.training(plan, self.training.lengths, self.buckets)))
        whole, rest = divmod(max(left, 0.0), ends[-1])
        steps = int(whole) * len(plan) + sum(end <= rest for end in ends)
        return self.of_steps(max(steps, 1))

    def of_steps(self, steps: int) -> "AdaptJob":
        """The same with so many steps: whole epochs, and the beginning of one more."""
        plans: list[Plan] = []
        while steps > 0:
            plan = _plan(self.training, self.settings, len(plans))[:steps]
            plans.append(plan)
            steps -= len(plan)
        settings = self.settings.model_copy(update={"epochs": len(plans), "steps": sum(map(len, plans))})
        return replace(self, settings=settings, plans=plans)


def _plan(rows: Rows, settings: AdaptSettings, epoch: int) -> Plan:
    return training_plan(rows.lengths, settings.batch_size, settings.seed, epoch)


def plan_adaptation(settings: AdaptSettings, data: Sequence[Path], reporter: Reporter) -> AdaptJob:
    """Read, choose, tokenize and plan; where the settings name minutes, for one epoch.

    Raises:
        SettingsError: `length` is more than the network reads.
        UsageError: a file cannot be read, or has no text.
        DataError: there are too few texts to hold one out.
        ArtifactError: the base checkpoint cannot be used.
    """
    checkpoint = open_checkpoint(settings.base)
    positions = checkpoint.config.max_position_embeddings
    if settings.length > positions:
        raise SettingsError(f"--length {settings.length}: the network reads at most {positions}")
    masking = masking_of(checkpoint, settings.whole_words)
    tokenizer = checkpoint.review_tokenizer(EVERYTHING, settings.cleaning)
    device = find_device()
    precision, reason = choose_precision(settings.precision, device)
    rate = settings.learning_rate or default_adapt_rate(checkpoint.config.hidden_size)
    files = [_read(path, reporter) for path in data]
    every = [text for file in files for text in file.texts]
    texts = list(dict.fromkeys(every))
    training, validation = _split(texts, tokenizer, settings, reporter)
    return AdaptJob(
        settings=settings.model_copy(update={"base": checkpoint.name, "precision": precision, "learning_rate": rate}),
        learning_rate=rate,
        checkpoint=checkpoint,
        sources=tuple(
            TextSource(name=file.name, sha256=file.sha256, texts=len(file.texts), refused=file.refused)
            for file in files
        ),
        device=device,
        reason=reason,
        buckets=fine_buckets(settings.length),
        training=training,
        validation=validation,
        plans=[_plan(training, settings, epoch) for epoch in range(1 if settings.minutes else settings.epochs)],
        validation_plan=reading_plan(validation.lengths, settings.batch_size),
        masking=masking,
        repeated=len(every) - len(texts),
    )


def _read(path: Path, reporter: Reporter) -> TextFile:
    def refuse(refusal: Refusal) -> None:
        reporter.say(f"refused: {path}: {refusal}")

    return read_texts(path, refuse)


def _split(
    texts: list[str], tokenizer: ReviewTokenizer, settings: AdaptSettings, reporter: Reporter
) -> tuple[Rows, Rows]:
    """Rows to learn from, and rows of other texts."""
    held = min(MOST_HELD_OUT, max(1, round(HELD_OUT * len(texts))))
    order = np.random.default_rng(settings.seed).permutation(len(texts))
    with reporter.bar("tokenizing", len(texts)) as advance:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            advance(done, "")

        held_out, others = ([texts[at] for at in part] for part in (order[:held], np.sort(order[held:])))
        validation = read_rows(held_out, tokenizer, settings.length, count)
        training = read_rows(others, tokenizer, settings.length, count)
    if not len(training) or not len(validation):
        raise DataError("too few texts: one in twenty, at least one, is held out, and others are to learn from")
    return training, validation


def build_masked(job: AdaptJob) -> tuple[MaskedBert, tuple[str, ...]]:
    """The compiled network with the checkpoint's weights, and the names of the parts that start fresh."""
    network = MaskedBert(job.shape, job.settings.precision)
    fresh = load_masked(network, job.checkpoint.weights)
    compile_masked(network, job)
    return network, fresh


def compile_masked(network: MaskedBert, job: AdaptJob) -> None:
    """Give the network a loss, and an optimizer whose rate goes up and down over the job's steps."""
    network.compile(
        optimizer=make_optimizer(job.settings.optimizer, job.learning_rate, job.steps),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    network.optimizer.build(network.trainable_variables)
