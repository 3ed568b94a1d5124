"""The worker with a scorer that takes no time, or as much as it is told: what is left is Kafka, JSON and transactions.

`python -m worker.bench.stub` is `review-worker run` but for tokens and engine: every review has the same token row and
the same logits. Predictions have all their fields, so that what is published has its real size.
"""

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from schemas import Rejection, Review
from worker.artifact import Artifact
from worker.console import run_app
from worker.engine import EngineDescription, Scored
from worker.engine.memory import DeviceMemory, host_memory
from worker.scorer import Prepared, Scorer
from worker.settings import Settings, load_settings
from worker.tokens import Ids, TokenRow

ROW = TokenRow(np.ones(256, dtype=np.int32), truncated=False)


class StubEngine:
    """Scores so many reviews a second, without the processor's help."""

    description = EngineDescription("stub", "none", "none", "a measurement without a model")

    def __init__(self, labels: int, reviews_per_second: float = math.inf) -> None:
        self._labels = labels
        self._rate = reviews_per_second
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")

    def memory(self) -> DeviceMemory:
        """Of the process."""
        return host_memory()

    def warm_up(self) -> None:
        """There is nothing to compile."""

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """See `worker.engine.Engine.submit`."""
        return self._thread.submit(self._score, len(rows))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _score(self, rows: int) -> Scored:
        seconds = rows / self._rate
        time.sleep(seconds)
        return Scored(np.zeros((rows, self._labels), dtype=np.float32), seconds, rows * len(ROW.ids))


class StubScorer(Scorer):
    """Reads no text."""

    def __init__(self, artifact: Artifact, reviews_per_second: float = math.inf) -> None:
        super().__init__(artifact, StubEngine(len(artifact.manifest.labels), reviews_per_second))

    def prepare(self, read: Sequence[Review | Rejection]) -> Prepared:
        """The same row for every review."""
        return Prepared(read, [ROW] * sum(isinstance(item, Review) for item in read))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def _run(
    config: Annotated[Path | None, typer.Option()] = None,
    reviews_per_second: Annotated[float, typer.Option()] = math.inf,
) -> None:
    from worker.service import run

    def load(artifact: Artifact, _: Settings, __: int) -> Scorer:
        return StubScorer(artifact, reviews_per_second)

    run(load_settings(config), load)


if __name__ == "__main__":
    run_app(app)
