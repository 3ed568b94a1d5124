"""The two pictures: throughput against review length, and the cost of a review against the size of the backlog."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from worker.bench.rounds import Spread
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.bench.suite import Found

BLUE, GREY = "#3b82f6", "#8b8b8b"


def draw(found: "Found", folder: Path) -> list[Path]:
    """Write `throughput.png` and `backlog.png`, each where it was measured.

    Raises:
        UsageError: the folder cannot be written to.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, measured, paint in (
            ("throughput.png", found.lengths, _throughput),
            ("backlog.png", found.backlogs, _backlog),
        ):
            if measured:
                written.append(_save(folder / name, found, paint))
    except OSError as error:
        raise UsageError(f"--plot {folder}: {error.strerror}") from None
    return written


def _save(path: Path, found: "Found", paint: Callable[["Found", Figure], None]) -> Path:
    """On a figure of its own, never through pyplot: no window, no shared state."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    paint(found, figure)
    canvas.print_figure(path, dpi=144)
    return path


def _throughput(found: "Found", figure: Figure) -> None:
    axes = figure.subplots()
    lengths = [it.tokens for it in found.lengths]
    _points(axes, lengths, [it.reviews_per_second for it in found.lengths], "measured")
    limits = [it.limit_reviews_per_second for it in found.lengths if it.limit_reviews_per_second is not None]
    if len(limits) == len(lengths):
        axes.plot(lengths, limits, color=GREY, linestyle="--", label="the matrix products alone")
    named = found.engine
    title = f"Throughput by length: {named.engine}, {named.precision}" if named else "Throughput by length"
    axes.set(title=title, xlabel="tokens of a review", ylabel="reviews/s", xscale="log", yscale="log")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    _finish(axes)


def _backlog(found: "Found", figure: Figure) -> None:
    axes = figure.subplots()
    sizes = [it.reviews for it in found.backlogs]
    costs = [it.milliseconds_per_review for it in found.backlogs]
    _points(axes, sizes, costs, "measured, with a stub for a model")
    axes.set(title="Cost of a review by backlog", xlabel="reviews of the backlog", ylabel="ms a review", xscale="log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_ylim(0, 1.3 * max(cost.most for cost in costs))
    _finish(axes)


def _points(axes: Axes, places: Sequence[float], values: Sequence[Spread], label: str) -> None:
    middle = [value.median for value in values]
    bars = [
        [value.median - value.least for value in values],
        [value.most - value.median for value in values],
    ]
    axes.errorbar(places, middle, yerr=bars, color=BLUE, marker="o", capsize=3, label=label)


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
