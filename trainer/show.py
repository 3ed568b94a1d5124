"""Tables for people."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from trainer.data import LabelledReview
from trainer.evaluation import Evaluation
from trainer.info import SPLITS, DataInfo

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
    yield Text(f"loss       {found.loss:.4f}")
    yield Text(
        f"speed      {found.reviews_per_second:.1f} reviews/s, {found.tokens / found.reviews:.0f} tokens each, "
        f"{found.truncated:,} cut ({found.engine} on {found.device}, {found.precision})"
    )
    report = _table("label", "precision", "recall", "f1", "reviews")
    for name, figures in (*found.labels.items(), *found.averages.items()):
        row = (f"{value:.4f}" for value in (figures.precision, figures.recall, figures.f1))
        report.add_row(name, *row, f"{figures.reviews:,}")
    yield report
    names = list(found.labels)
    confusion = _table("true \\ predicted", *names)
    for name, counts in zip(names, found.confusion, strict=True):
        confusion.add_row(name, *(f"{count:,}" for count in counts))
    yield confusion


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
