"""The pictures of a report: figures in, SVG out.

Text and axes take the colour of the page, which a style inside each SVG follows into dark mode, also where it stands in
an `<img>`. Drawn on figures of their own, never through pyplot: no window, no shared state.
"""

import io
import re
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from trainer.calibrate import BINS, reliability
from trainer.document import Picture
from trainer.run import EpochRecord
from worker.verdict import Probabilities

INK = "#010203"
"""Stands for the page's own text colour until the SVG is written."""

BLUE, ORANGE = "#3b82f6", "#e8710a"
SERIES = (BLUE, ORANGE, "#12a37a", "#a855f7", "#e5484d", "#b58900", "#0891b2", "#db2777", "#65a30d", "#8b8b8b")
"""Told apart on white and on near-black, and by readers who do not tell red from green."""

DRAWN_LABELS = len(SERIES)
"""One-vs-rest curves in one picture at most: those of the labels with the most reviews."""

WRITTEN_LABELS = 12
"""Labels of a confusion matrix whose cells are still wide enough for their counts."""

STYLE = """<style>svg { color: #1f2328 } @media (prefers-color-scheme: dark) { svg { color: #e6edf3 } }</style>"""

SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "review-scorer",  # the same figures give the same file
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.18,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.2,
    "legend.frameon": False,
    **dict.fromkeys(
        ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"], INK
    ),
    **dict.fromkeys(["figure.facecolor", "axes.facecolor", "savefig.facecolor"], "none"),
}

LOCK = threading.Lock()
"""matplotlib's settings are one for the process, and two exports may draw at once."""

PERCENT = FuncFormatter(lambda share, _: f"{share:.0%}")
COUNT = FuncFormatter(lambda count, _: f"{count:,.0f}")


def curves(epochs: Sequence[EpochRecord], best: int | None) -> Picture:
    """Loss and accuracy by epoch, training and validation."""
    numbers = [record.epoch for record in epochs]

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for axes, what, training, validation in (
            (left, "loss", [one.loss for one in epochs], [one.validation_loss for one in epochs]),
            (right, "accuracy", [one.accuracy for one in epochs], [one.validation_accuracy for one in epochs]),
        ):
            axes.plot(numbers, training, color=BLUE, marker="o", label="training")
            axes.plot(numbers, validation, color=ORANGE, marker="s", label="validation")
            if best in numbers:
                axes.axvline(best, color=INK, linestyle=":", linewidth=1.4, label="exported epoch")
            axes.set(title=f"{what.capitalize()} by epoch", xlabel="epoch", ylabel=what)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(numbers[0] - 0.3, numbers[-1] + 0.3)
        rated = any(record.rating is not None for record in epochs)
        left.set_ylabel("loss (squared error of standardized ratings)" if rated else "loss (nats per review)")
        left.set_ylim(bottom=0)
        right.yaxis.set_major_formatter(PERCENT)
        _legend_below(figure, left)

    last = epochs[-1]
    alt = (
        f"Loss and accuracy over {len(epochs)} epochs; in the last one training loss {last.loss:.3f}, validation loss "
        f"{last.validation_loss:.3f}, training accuracy {last.accuracy:.1%}, validation accuracy "
        f"{last.validation_accuracy:.1%}"
    )
    return Picture("curves", alt, _svg(draw, 9.2, 4.1))


def confusion(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Picture:
    """True label by predicted label: counts, coloured by their share of the true label's reviews."""
    table = np.array(counts)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    written = len(labels) <= WRITTEN_LABELS
    notes = [
        [f"{count:,}\n{share:.1%}" for count, share in zip(*row, strict=True)]
        for row in zip(table, shares, strict=True)
    ]
    size = min(max(3.2 + 0.75 * len(labels), 4.6), 12.0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        sns.heatmap(
            shares,
            ax=axes,
            annot=np.array(notes) if written else False,
            fmt="",
            cmap="Blues",
            vmin=0,
            vmax=1,
            square=True,
            linewidths=1.5,
            linecolor="#8b949e",
            annot_kws={"fontsize": 11 if len(labels) <= 4 else 9},
            cbar_kws={"label": "share of the true label's reviews", "format": PERCENT, "shrink": 0.85},
        )
        axes.grid(visible=False)
        names = [_shortened(label) for label in labels]
        axes.set_xticks(
            np.arange(len(names)) + 0.5,
            names,
            rotation=45 if len(names) > 4 else 0,
            ha="right" if len(names) > 4 else "center",
        )
        axes.set_yticks(np.arange(len(names)) + 0.5, names, rotation=0)
        axes.tick_params(length=0)
        axes.set(title="Confusion matrix", xlabel="predicted label", ylabel="true label")

    right = int(np.trace(table))
    alt = f"Confusion matrix of {len(labels)} labels: {right:,} of {int(table.sum()):,} reviews lie on the diagonal"
    return Picture("confusion", alt, _svg(draw, size + 1.6, size))


def curves_by_label(shares: Probabilities, truth: NDArray[np.int64], labels: Sequence[str]) -> Picture | None:
    """Receiver operating characteristic and precision-recall, one label against the rest; None where no label is told
    apart from another, since all reviews carry the same one.

    Two labels give one pair of curves each, of the second label: the first label's would mirror it.
    """
    counts = np.bincount(truth, minlength=len(labels))
    chosen = [int(at) for at in np.argsort(-counts, kind="stable") if 0 < counts[at] < len(truth)][:DRAWN_LABELS]
    if len(labels) == 2:
        chosen = chosen and [1]
    if not chosen:
        return None
    areas: list[str] = []

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        left.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.2, alpha=0.7)
        for color, at in zip(SERIES, sorted(chosen), strict=False):
            own, share = truth == at, shares[:, at]
            area, precise = float(roc_auc_score(own, share)), float(average_precision_score(own, share))
            wrong, found, _ = roc_curve(own, share)
            precision, recall, _ = precision_recall_curve(own, share, drop_intermediate=True)
            name = _shortened(labels[at])
            left.plot(wrong, found, color=color, label=f"{name}, area {area:.4f}")
            right.plot(recall, precision, color=color, label=f"{name}, average precision {precise:.4f}")
            right.axhline(own.mean(), color=color, linestyle=":", linewidth=1.2, alpha=0.8)
            areas.append(f"{labels[at]}: area {area:.4f}, average precision {precise:.4f}")
        left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
        right.set(title="Precision and recall", xlabel="recall", ylabel="precision")
        for axes in (left, right):
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
            axes.xaxis.set_major_formatter(PERCENT)
            axes.yaxis.set_major_formatter(PERCENT)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), fontsize=10)

    picture = _svg(draw, 9.2, 4.9 + 0.24 * (len(chosen) - 1))
    alt = "ROC and precision-recall curves, each label against the rest; " + "; ".join(areas)
    return Picture("roc-pr", alt, picture)


def reliability_diagram(before: Probabilities, after: Probabilities | None, truth: NDArray[np.int64]) -> Picture:
    """Accuracy by stated confidence, without and with the temperature; one panel where they are the same."""
    panels = [("Without temperature" if after is not None else "Reliability", BLUE, before)]
    if after is not None:
        panels.append(("With temperature", ORANGE, after))

    def draw(figure: Figure) -> None:
        grid = figure.subplots(2, len(panels), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [4, 1.1]})
        lowest = 1 / before.shape[1]
        for at, (title, color, shares) in enumerate(panels):
            bins = reliability(shares, truth)
            top, bottom = grid[0][at], grid[1][at]
            left, width = [part.low for part in bins], 1 / BINS
            accuracy = [part.accuracy for part in bins]
            spans = [(part.accuracy - part.interval[0], part.interval[1] - part.accuracy) for part in bins]
            top.bar(left, accuracy, width, align="edge", color=color, alpha=0.3, linewidth=0)
            top.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1.4, label="as sure as right")
            top.errorbar(
                [part.confidence for part in bins],
                accuracy,
                yerr=np.abs(np.array(spans).T),
                fmt="o",
                color=color,
                markersize=5,
                linewidth=1.3,
                capsize=2.5,
                label="reviews of a bin, 95 % interval" + (f", {title.lower()}" if after is not None else ""),
            )
            top.set(title=title, ylabel="accuracy", ylim=(0, 1.03), xlim=(max(0.0, lowest - 0.07), 1.005))
            top.yaxis.set_major_formatter(PERCENT)
            bottom.bar(left, [part.reviews for part in bins], width, align="edge", color=color, alpha=0.55, linewidth=0)
            bottom.set(xlabel="confidence", ylabel="reviews")
            bottom.yaxis.set_major_locator(MaxNLocator(2, integer=True))
            bottom.yaxis.set_major_formatter(COUNT)
            bottom.xaxis.set_major_formatter(PERCENT)
        entries = {
            name: handle for axes in grid[0] for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=1, fontsize=10)

    alt = "; ".join(
        f"{title.lower()}: mean confidence {shares.max(axis=-1).mean():.1%}, "
        f"accuracy {(shares.argmax(axis=-1) == truth).mean():.1%}"
        for title, _, shares in panels
    )
    return Picture("reliability", f"Accuracy by confidence. {alt}", _svg(draw, 4.8 * len(panels), 5.4))


def histogram(shares: Probabilities, truth: NDArray[np.int64], labels: Sequence[str]) -> Picture:
    """How sure the model is: of two labels the probability of the second by true label, of more the confidence by
    right and wrong."""
    if len(labels) == 2:
        values = shares[:, 1]
        parts = [(labels[at], values[truth == at]) for at in (0, 1)]
        title, axis, ends = "Scores by true label", f"probability of {_shortened(labels[1])}", (0.0, 1.0)
    else:
        values, right = shares.max(axis=-1), shares.argmax(axis=-1) == truth
        parts = [("labelled right", values[right]), ("labelled wrong", values[~right])]
        title, axis, ends = "Confidence of right and wrong labels", "confidence", (0.0, 1.0)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        edges = [float(edge) for edge in np.linspace(*ends, 41)]
        for color, (name, held) in zip(SERIES, parts, strict=False):
            label = f"{_shortened(name)} ({len(held):,})"
            axes.hist(held, bins=edges, color=color, alpha=0.35, linewidth=0)
            axes.hist(held, bins=edges, color=color, histtype="step", linewidth=1.6, label=label)
        # A few hundred reviews in the middle say more than the thousands at the ends.
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter(COUNT)
        axes.xaxis.set_major_formatter(PERCENT)
        axes.set(title=title, xlabel=axis, ylabel="reviews (logarithmic above 10)", xlim=ends)
        _legend_below(figure, axes)

    alt = f"{title}: histogram of {axis}; " + ", ".join(
        f"{name}: {len(held):,} reviews" + (f", median {np.median(held):.3f}" if len(held) else "")
        for name, held in parts
    )
    return Picture("scores", alt, _svg(draw, 7.6, 4.2))


def accuracy_by_length(rows: Sequence[tuple[str, int, float, float, float]]) -> Picture:
    """Accuracy of reviews by their length.

    Args:
        rows: name of the range, reviews, accuracy, and the ends of its interval.
    """
    names, reviews, accuracy, low, high = zip(*rows, strict=True)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        at = np.arange(len(names))
        spans = np.abs(np.array([np.subtract(accuracy, low), np.subtract(high, accuracy)]))
        axes.errorbar(at, accuracy, yerr=spans, fmt="o", color=BLUE, capsize=5, markersize=7, linewidth=1.8)
        axes.set_xticks(at, [f"{name}\n{count:,} reviews" for name, count in zip(names, reviews, strict=True)])
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(max(0.0, min(low) - 0.02), min(1.0, max(high)) + 0.01)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.1%}".replace(".0%", "%")))
        axes.set(title="Accuracy by length", xlabel="tokens of the review", ylabel="accuracy, 95 % interval")
        axes.grid(visible=False, axis="x")

    alt = "Accuracy by length: " + ", ".join(f"{name} tokens {share:.1%}" for name, _, share, *_ in rows)
    return Picture("length", alt, _svg(draw, max(5.0, 1.55 * len(names) + 1.2), 4.0))


def _legend_below(figure: Figure, axes: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))


def _svg(draw: Any, width: float, height: float) -> str:
    """Draw on a new figure of `width` x `height` inches and write it down."""
    with LOCK, mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # A label in signs that the font lacks is drawn as boxes; its name stands in the tables.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, bbox_inches="tight")
    text = buffer.getvalue().replace(INK, "currentColor")
    # Each text stands beside its outlines as a comment, which nobody reads.
    text = re.sub(r"\s*<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r"(<svg[^>]*>)", rf"\1{STYLE}", text, count=1)


def _shortened(name: str, limit: int = 18) -> str:
    """A label that fits; a dollar sign would start a formula."""
    short = name if len(name) <= limit else f"{name[: limit - 1]}…"
    return short.replace("$", r"\$")
