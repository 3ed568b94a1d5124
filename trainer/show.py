"""Tables for people."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trainer.card import describe_cut, measured
from trainer.data import LabelledReview
from trainer.evaluation import Evaluation, LabelFigures
from trainer.info import SPLITS, DataInfo

if TYPE_CHECKING:
    # Their libraries take seconds to import, which a table does not need.
    from trainer.anatomy import Anatomy
    from trainer.baseline import Baseline

SHOWN_CHARACTERS = 160


def info_lines(info: DataInfo) -> Iterator[str]:
    """What was prepared, in lines."""
    for name, source in info.sources.items():
        yield f"{name:<11} {source.name}: {source.reviews:,} reviews, {source.refused:,} rows refused"
    for split in SPLITS:
        counts = ", ".join(f"{count:,} {label}" for label, count in info.splits[split].labels.items())
        yield f"{split:<11} {info.splits[split].reviews:,} reviews: {counts}"


def balance_table(info: DataInfo) -> Table:
    """Reviews by split and label."""
    table = _table("split", "reviews", *info.labels)
    for name in SPLITS:
        split = info.splits[name]
        shares = (f"{count:,} ({count / max(split.reviews, 1):.1%})" for count in split.labels.values())
        table.add_row(name, f"{split.reviews:,}", *shares)
    return table


def examples_table(labels: Sequence[str], reviews: Sequence[LabelledReview]) -> Table:
    """Some reviews, shortened."""
    table = Table(box=box.SIMPLE, title_justify="left")
    table.add_column("row", justify="right")
    table.add_column("label")
    table.add_column("text", overflow="fold")
    for review in reviews:
        table.add_row(str(review.row), labels[review.label], Text(shortened(review.text)))
    return table


def shortened(text: str) -> str:
    """One line of a text that a terminal shows safely: what does not print becomes a space."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"


def evaluation_tables(found: Evaluation) -> Iterator[RenderableType]:
    """An evaluation for a person."""
    model, interval = found.model, found.accuracy_interval
    split = f" ({found.split})" if found.split else ""
    yield Text(f"{model.name} version {model.version} on {found.data}{split}: {found.reviews:,} reviews")
    yield Text(f"accuracy   {found.accuracy:.4f}   95 % interval {interval.low:.4f} to {interval.high:.4f}")
    if found.baseline is not None:
        other = found.baseline.accuracy_interval
        yield Text(f"baseline   {found.baseline.accuracy:.4f}   95 % interval {other.low:.4f} to {other.high:.4f}")
    if found.cuts is not None:
        yield Text(f"cuts       mean of the logits of {', '.join(found.cuts)}")
    if found.rating is not None:
        error = found.rating
        yield Text(f"ratings    mean absolute error {error.mae:.4f}, RMSE {error.rmse:.4f}, R2 {error.r2:.4f}")
    yield Text(f"loss       {found.loss:.4f}")
    yield Text(_calibration_line(found))
    yield Text(
        f"speed      {found.reviews_per_second:.1f} reviews/s, {found.tokens / found.reviews:.0f} tokens each, "
        f"{found.truncated:,} cut ({found.engine} on {found.device}, {found.precision})"
    )
    yield _report_table({**found.labels, **found.averages})
    names = list(found.labels)
    confusion = _table("true \\ predicted", *names)
    for name, counts in zip(names, found.confusion, strict=True):
        confusion.add_row(name, *(f"{count:,}" for count in counts))
    yield confusion


def _report_table(figures: Mapping[str, LabelFigures]) -> Table:
    report = _table("label", "precision", "recall", "f1", "reviews")
    for name, one in figures.items():
        report.add_row(name, f"{one.precision:.4f}", f"{one.recall:.4f}", f"{one.f1:.4f}", f"{one.reviews:,}")
    return report


def _calibration_line(found: Evaluation) -> str:
    now, before = found.calibration, found.uncalibrated
    line = f"confidence expected calibration error {now.ece:.4f}, Brier score {now.brier:.4f}"
    if found.temperature == 1:
        return f"{line}; no temperature was fitted"
    return f"{line}; without the temperature of {found.temperature:.4f}: {before.ece:.4f}, {before.brier:.4f}"


def baseline_tables(found: "Baseline") -> Iterator[RenderableType]:
    """A baseline for a person."""
    for split, score in found.splits.items():
        interval = score.accuracy_interval
        yield Text(
            f"{split}: accuracy {score.accuracy:.4f}, 95 % interval {interval.low:.4f} to {interval.high:.4f}, "
            f"{score.reviews:,} reviews"
        )
        yield _report_table(score.labels)


def anatomy_tables(found: "Anatomy") -> Iterator[RenderableType]:
    """What an artefact is, for a person."""
    model = found.model
    yield Text(f"{model.name} version {model.version}, {found.bytes / 1e6:,.1f} MB, from {found.base}")
    facts = {
        "digest": model.digest,
        "made": f"{found.created_at:%Y-%m-%d %H:%M} UTC",
        "labels": ", ".join(f"{index} {label}" for index, label in enumerate(found.labels)),
        "cut": f"{describe_cut(found.cut)} tokens",
        "cleaning": ", ".join(found.cleaning) or "none",
        "temperature": f"{found.temperature:.4f}",
        "trained on": found.data_digest or "not known",
        "computed by": f"{found.engine} on {found.device} in {found.precision}",
    }
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        yield Text(f"{name:<{width}}{value}")
    if found.metrics:
        yield _rows("measured", {name.replace("_", " "): measured(value) for name, value in found.metrics.items()}, "")
    counts = {**found.parameters, "all": sum(found.parameters.values())}
    yield _rows("layers", {name: f"{count:,}" for name, count in counts.items()}, "parameters")
    if found.signature is None:
        yield Text("no SavedModel: this artefact has no saved_model.pb")
    else:
        yield Text(f"signature {found.signature.name} ({found.signature.method})")
        for what, tensors in (("input", found.signature.inputs), ("output", found.signature.outputs)):
            for tensor in tensors:
                yield Text(f"  {what:<6}  {tensor}")
    yield Text("")
    yield Text(f"{shortened(found.text)}")
    yield Text(found.prediction.model_dump_json(indent=2))


def _rows(first: str, rows: dict[str, str], second: str) -> Table:
    table = _table(first, second)
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
