"""Report: what is known of a model, as `report.md` with pictures and as one HTML page.

In: an evaluation and the scores behind it, and of an export also how the model was trained. Texts of reviews stand in
it only where they are asked for.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, ValidationError

from schemas import Cut
from schemas.record import Record
from trainer.anatomy import parameter_groups
from trainer.calibrate import wilson
from trainer.card import describe_cut
from trainer.document import Block, Code, Heading, Paragraph, Table, write_report
from trainer.evaluate import Scores
from trainer.evaluation import Calibration, Evaluation, Score
from trainer.folders import new_folder
from trainer.held import Held
from trainer.info import SPLITS, DataInfo
from trainer.labels import DEFAULT_SPEC
from trainer.progress import duration
from trainer.run import History
from trainer.settings import TrainSettings
from worker.artifact import Artifact
from worker.errors import ReviewScorerError
from worker.verdict import probabilities

RUN = "run.json"
MARKER = "report.html"
FIGURES = "evaluation.json"
MISTAKES = 20
TEXT_CHARACTERS = 600
LIBRARIES = ("matplotlib", "seaborn")

IN_SAMPLE = (
    "The best epoch was chosen, and the temperature was fitted, on these reviews: on others, such as a test split, "
    "expect a little less."
)


class RunRecord(Record):
    """How an artefact was trained: `report/run.json` in it, so that a later version with other figures can tell.

    Example: `{"settings": {...}, "info": {...}, "history": {...}}`
    """

    model_config = ConfigDict(extra="forbid", strict=False)

    settings: TrainSettings
    info: DataInfo
    history: History


@dataclass(frozen=True)
class Subject:
    """The model that a report is about.

    Attributes:
        name: a name, and where it is known a version and a digest.
        story: how it came about, a sentence or two.
        labels: in the order of the outputs.
        cut: what it reads of a long review.
        parameters: by group of layers.
    """

    name: str
    story: str
    labels: Sequence[str]
    cut: Cut
    cleaning: Sequence[str]
    parameters: Mapping[str, int]


@dataclass(frozen=True)
class Findings:
    """An evaluation and what it was counted from.

    Attributes:
        figures: the counts.
        scores: of every review.
        source: the CSV that the numbers of rows belong to.
        texts: of every review, where a report may show them.
        note: what a reader must know of these reviews.
    """

    figures: Evaluation
    scores: Scores
    source: str
    texts: Sequence[str] | None = None
    note: str = ""


def missing_library() -> str | None:
    """The line that says what pictures need; None where it is there. The worker never needs it."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if not missing:
        return None
    return f"a report needs {' and '.join(missing)}: pip install 'review-scorer[report]'"


def require_libraries() -> None:
    """Ask before the work and not after it.

    Raises:
        ReviewScorerError: matplotlib or seaborn is not installed.
    """
    line = missing_library()
    if line is not None:
        raise ReviewScorerError(line)


def evaluation_report(
    out: Path,
    artifact: Artifact,
    held: Held,
    scores: Scores,
    found: Evaluation,
    options: Mapping[str, str | None],
    *,
    with_texts: bool,
    force: bool,
) -> None:
    """`report.md`, `report.html`, pictures and `evaluation.json` as a new folder: whole, or not at all.

    Args:
        out: the folder to make.
        artifact: the model.
        held: the reviews that were scored.
        scores: of the reviews.
        found: the figures.
        options: of the command that was given; None where one was not.
        with_texts: show texts of the worst mistakes.
        force: replace an earlier report.

    Raises:
        UsageError: `out` exists and `force` is not given, or it is no report.
        ReviewScorerError: it cannot be written.
    """
    manifest = artifact.manifest
    subject = Subject(
        name=f"{manifest.name} version {manifest.version}",
        story=f"Made from {manifest.base} at {manifest.created_at:%Y-%m-%d %H:%M} UTC; digest {artifact.digest}.",
        labels=manifest.labels,
        cut=manifest.cut,
        cleaning=manifest.cleaning,
        parameters=parameter_groups(artifact.folder),
    )
    texts = [review.text for review in held.data.reviews] if with_texts else None
    given = [word for option, value in options.items() if value is not None for word in (option, value)]
    place = f"MODELS/{manifest.name}/{manifest.version}"
    commands = [_line("evaluate", place, "--data", held.data.name, *given)]
    if held.data.split is not None:
        commands.append(_line("baseline", held.data.name))
    with new_folder(out, marker=MARKER, force=force) as folder:
        write_report(folder, report(subject, Findings(found, scores, held.source, texts), None, commands))
        (folder / FIGURES).write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")


def write_artifact_report(
    folder: Path, subject: Subject, findings: Findings | None, run: RunRecord | None, commands: Sequence[str]
) -> None:
    """`report/` of an artefact that is being written.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir()
    write_report(folder, report(subject, findings, run, commands))
    if run is not None:
        (folder / RUN).write_text(run.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_run(folder: Path) -> RunRecord | None:
    """`run.json` of an artefact's report; None where it has none, or another release's."""
    try:
        return RunRecord.model_validate_json((folder / RUN).read_bytes())
    except (OSError, ValidationError):
        return None


def report(subject: Subject, findings: Findings | None, run: RunRecord | None, commands: Sequence[str]) -> list[Block]:
    """All blocks, in order."""
    blocks: list[Block] = [Heading(1, f"Report on {subject.name}"), Paragraph(subject.story.replace("`", ""))]
    if findings is not None:
        blocks += [
            *_result(findings),
            *_labels(findings, subject.labels),
            *_confidence(findings, subject.labels),
            *_lengths(findings, subject.cut),
            *_mistakes(findings, subject.labels),
        ]
    if run is not None:
        blocks += _training(run)
    blocks += _network(subject)
    if findings is not None or run is not None:
        blocks += _data(findings, run)
    return [*blocks, Heading(2, "Commands"), Code(commands)]


def _result(findings: Findings) -> Iterator[Block]:
    found = findings.figures
    split = f", split {found.split}" if found.split else ""
    yield Heading(2, "Result")
    yield Paragraph(f"On {found.data}{split}: {found.reviews:,} reviews. {findings.note}".strip())
    rows = [("accuracy", f"{found.accuracy:.4f}", _span(found.accuracy_interval.low, found.accuracy_interval.high))]
    if found.baseline is not None:
        rows.append(_baseline_row(found.baseline))
    for name, average in found.averages.items():
        rows.append((f"F1, {name}", f"{average.f1:.4f}", ""))
    if found.rating is not None:
        rows += [
            ("mean absolute error of the rating", f"{found.rating.mae:.4f}", ""),
            ("root mean squared error (RMSE)", f"{found.rating.rmse:.4f}", ""),
            ("explained variance (R²)", f"{found.rating.r2:.4f}", ""),
        ]
    rows.append(("loss (negative log-likelihood)", f"{found.loss:.4f}", ""))
    yield Table(("figure", "value", "95 % interval"), rows)
    if found.rating is not None:
        yield Paragraph("The rating of a review is the mean of its labels, weighted by their probabilities.")
    if found.cuts is not None:
        yield Paragraph(f"Of a long review the logits of these readings were averaged: {', '.join(found.cuts)}.")
    yield Paragraph(
        f"Scored with {found.engine} on {found.device} in {found.precision}: {found.reviews_per_second:.1f} reviews/s, "
        f"{found.tokens / found.reviews:.0f} tokens each; {found.truncated:,} reviews are longer than the cut."
    )


def _baseline_row(baseline: Score) -> tuple[str, str, str]:
    interval = baseline.accuracy_interval
    name = "accuracy of the baseline (1-3-grams, logistic regression)"
    return name, f"{baseline.accuracy:.4f}", _span(interval.low, interval.high)


def _span(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}"


def _labels(findings: Findings, labels: Sequence[str]) -> Iterator[Block]:
    from trainer.plots import confusion, curves_by_label

    found, scores = findings.figures, findings.scores
    yield Heading(2, "Labels")
    yield Table(
        ("label", "precision", "recall", "F1", "reviews"),
        [
            (name, f"{one.precision:.4f}", f"{one.recall:.4f}", f"{one.f1:.4f}", f"{one.reviews:,}")
            for name, one in (*found.labels.items(), *found.averages.items())
        ],
    )
    yield confusion(found.confusion, labels)
    picture = curves_by_label(scores.shares, scores.truth, labels)
    if picture is not None:
        yield picture
        yield Paragraph("Dotted: what guessing would reach.")


def _confidence(findings: Findings, labels: Sequence[str]) -> Iterator[Block]:
    from trainer.plots import histogram, reliability_diagram

    found, scores = findings.figures, findings.scores
    tempered = found.temperature != 1
    yield Heading(2, "Confidence")
    yield Paragraph(
        f"Logits are divided by a temperature of {found.temperature:.4f} before the softmax, which changes no label."
        if tempered
        else "No temperature was fitted: probabilities are the softmax of the logits as they are."
    )
    columns: list[tuple[str, Calibration]] = [("value", found.uncalibrated)]
    if tempered:
        columns = [("without temperature", found.uncalibrated), ("with temperature", found.calibration)]
    measures = {"nll": "negative log-likelihood", "brier": "Brier score", "ece": "expected calibration error"}
    yield Table(
        ("the smaller, the better", *(name for name, _ in columns)),
        [(text, *(f"{getattr(one, key):.4f}" for _, one in columns)) for key, text in measures.items()],
    )
    yield Paragraph(
        "Expected calibration error: reviews by the probability of the label given, in 15 bins of equal width; the "
        "difference between mean probability and accuracy in each, weighted by its reviews. Brier score: squared "
        "differences to 1 for the true label and 0 for the others, summed over the labels: 0 to 2."
    )
    before = probabilities(scores.logits, 1.0)
    yield reliability_diagram(before, scores.shares if tempered else None, scores.truth)
    yield histogram(scores.shares, scores.truth, labels)


def _lengths(findings: Findings, cut: Cut) -> Iterator[Block]:
    from trainer.plots import accuracy_by_length

    rows = lengths(findings.scores, cut)
    yield Heading(2, "Length")
    yield accuracy_by_length(rows)
    yield Table(
        ("tokens", "reviews", "accuracy", "95 % interval"),
        [(name, f"{reviews:,}", f"{share:.4f}", _span(low, high)) for name, reviews, share, low, high in rows],
    )


def lengths(scores: Scores, cut: Cut) -> list[tuple[str, int, float, float, float]]:
    """Accuracy by tokens, in ranges that end at an eighth, a quarter, a half and all of what the model reads, and of
    the longer ones: name, reviews, accuracy and the ends of its interval. Empty ranges are left out."""
    longest = cut.head + cut.tail
    ends = [longest // 8, longest // 4, longest // 2, longest]
    right = scores.predicted == scores.truth
    ranges = [(f"more than {longest}, cut", scores.truncated)]
    begin = 1
    whole = []
    for end in ends:
        held = ~scores.truncated & (scores.tokens >= begin) & (scores.tokens <= end)
        whole.append((f"{begin} to {end}", held))
        begin = end + 1
    found = []
    for name, held in (*whole, *ranges):
        reviews = int(held.sum())
        if reviews:
            interval = wilson(int(right[held].sum()), reviews)
            found.append((name, reviews, float(right[held].mean()), interval.low, interval.high))
    return found


def _mistakes(findings: Findings, labels: Sequence[str]) -> Iterator[Block]:
    scores, shares = findings.scores, findings.scores.shares
    confidence = shares.max(axis=-1)
    wrong = np.flatnonzero(scores.predicted != scores.truth)
    yield Heading(2, "Most confident mistakes")
    if not len(wrong):
        yield Paragraph("There is no mistake.")
        return
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    yield Paragraph(
        f"{len(worst)} of {len(wrong):,}, by their row in {findings.source}; the first row below the header is 0."
    )
    headers = ["row", "true label", "predicted label", "confidence"]
    rows = [
        [str(scores.rows[at]), labels[scores.truth[at]], labels[scores.predicted[at]], f"{confidence[at]:.4f}"]
        for at in worst
    ]
    if findings.texts is not None:
        headers.append("text")
        for row, at in zip(rows, worst, strict=True):
            text = " ".join(findings.texts[at].split())
            row.append(text if len(text) <= TEXT_CHARACTERS else f"{text[:TEXT_CHARACTERS]}…")
    yield Table(headers, rows, numbers=False)


def _training(run: RunRecord) -> Iterator[Block]:
    from trainer.plots import curves

    history, settings = run.history, run.settings
    yield Heading(2, "Training")
    yield curves(history.epochs, history.best_epoch)
    rated = any(one.rating is not None for one in history.epochs)
    yield Table(
        (
            *("epoch", "loss", "accuracy", "validation loss", "validation accuracy"),
            *(("mean absolute error", "RMSE", "R²") if rated else ()),
            *("time", "reviews/s"),
        ),
        [
            (
                f"{one.epoch}{' (exported)' if one.epoch == history.best_epoch else ''}",
                f"{one.loss:.4f}",
                f"{one.accuracy:.4f}",
                f"{one.validation_loss:.4f}",
                f"{one.validation_accuracy:.4f}",
                *((f"{value:.4f}" for value in one.rating.model_dump().values()) if one.rating is not None else ()),
                duration(one.seconds),
                f"{one.reviews_per_second:.1f}",
            )
            for one in history.epochs
        ],
    )
    yield Paragraph(
        "Training loss and accuracy are means over the epoch, while the weights were changing, and with dropout."
        + (" Losses are mean squared errors of standardized ratings; the other errors are in ratings." if rated else "")
    )
    if history.stopped_early:
        yield Paragraph("The run was stopped early: no later epoch was better for as many as its patience.")
    yield Table(
        ("what", "value"),
        [
            ("device", history.device),
            ("took", f"{duration(history.seconds)}, estimated {duration(history.estimated_seconds)}"),
            ("padding", f"{history.padding:.1%} of the computed tokens"),
            *((name.replace("_", " "), _said(value)) for name, value in settings.model_dump().items()),
        ],
        numbers=False,
    )


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{label} {weight:g}" for label, weight in value.items())
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _network(subject: Subject) -> Iterator[Block]:
    total = sum(subject.parameters.values())
    yield Heading(2, "Network")
    yield Table(
        ("layers", "parameters", "share"),
        [
            *((name, f"{count:,}", f"{count / total:.1%}") for name, count in subject.parameters.items()),
            ("all", f"{total:,}", "100.0%"),
        ],
    )
    longest = subject.cut.head + subject.cut.tail
    yield Paragraph(
        f"Labels: {', '.join(subject.labels)}. Cleaning: {', '.join(subject.cleaning) or 'none'}. Of a review longer "
        f"than {longest} tokens {describe_cut(subject.cut)} are read."
    )


def _data(findings: Findings | None, run: RunRecord | None) -> Iterator[Block]:
    yield Heading(2, "Data")
    if run is not None:
        info = run.info
        yield Table(
            ("split", "reviews", *info.labels),
            [
                (name, f"{part.reviews:,}", *(f"{part.labels.get(label, 0):,}" for label in info.labels))
                for name in SPLITS
                if (part := info.splits.get(name)) is not None
            ],
        )
        rows = [(f"{source.name} ({name})", source.sha256) for name, source in info.sources.items()]
        rows.append(("training and validation records", info.data_digest))
        yield Table(("what was trained on", "SHA-256"), rows, numbers=False)
    if findings is not None:
        found = findings.figures
        yield Table(
            ("what was scored", "SHA-256"),
            [(f"{found.data} ({found.split})" if found.split else found.data, found.data_digest)],
            numbers=False,
        )
        if found.refused:
            yield Paragraph(f"{found.refused:,} rows of it could not be used.")


def training_commands(run: RunRecord, name: str) -> list[str]:
    """What leads to this artefact from the CSVs. Folders are `DATA` and `RUN`: where they lay is nobody else's
    business."""
    info, settings = run.info, run.settings
    train, test = (info.sources[name].name if name in info.sources else "CSV" for name in ("train", "test"))
    prepare = ["prepare", "--train", train, "--test", test, "--out", "DATA"]
    if info.labels != tuple(label.partition("=")[0] for label in DEFAULT_SPEC.split(",")):
        prepare += ["--labels", ",".join(info.labels)]
    prepare += ["--sample-fraction", f"{info.sample_fraction:g}", "--train-fraction", f"{info.train_fraction:g}"]
    prepare += ["--seed", str(info.seed)]
    return [
        _line(*prepare),
        _line("train", "DATA", "--out", "RUN", *train_options(settings)),
        _line("export", "RUN", "--out", f"MODELS/{name}", "--data", "DATA"),
    ]


def train_options(settings: TrainSettings) -> list[str]:
    """Every setting of a run as an option of `train`, whether it is the default or not: defaults may change."""
    options: list[str] = []
    for name, value in settings.model_dump().items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(option)
        elif isinstance(value, dict):
            options += [option, ",".join(f"{label}={weight}" for label, weight in value.items())]
        elif value is not None and value is not False:
            options += [option, ",".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"]
    return options


def _line(*arguments: str) -> str:
    return shlex.join(["review-trainer", *arguments])
