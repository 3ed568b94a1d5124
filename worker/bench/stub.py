"""The worker with a scorer that takes no time: what is left is Kafka, JSON and the transactions.

`python -m worker.bench.stub` is `review-worker run` but for tokens and engine: every review has the same token row and
the same logits. Predictions have all their fields, so that what is published has its real size.
"""

from collections.abc import Sequence
from concurrent.futures import Future
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
    """Answers at once."""

    description = EngineDescription("stub", "none", "none", "a measurement without a model")

    def __init__(self, labels: int) -> None:
        self._labels = labels

    def memory(self) -> DeviceMemory:
        """Of the process."""
        return host_memory()

    def warm_up(self) -> None:
        """There is nothing to compile."""

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """See `worker.engine.Engine.submit`."""
        done: Future[Scored] = Future()
        logits = np.zeros((len(rows), self._labels), dtype=np.float32)
        done.set_result(Scored(logits, 0.0, len(rows) * len(ROW.ids)))
        return done

    def close(self) -> None:
        """There is nothing to free."""


class StubScorer(Scorer):
    """Reads no text."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(artifact, StubEngine(len(artifact.manifest.labels)))

    def prepare(self, read: Sequence[Review | Rejection]) -> Prepared:
        """The same row for every review."""
        return Prepared(read, [ROW] * sum(isinstance(item, Review) for item in read))


def load_stub(artifact: Artifact, _: Settings) -> Scorer:
    """In place of `worker.service.load_scorer`."""
    return StubScorer(artifact)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def _run(config: Annotated[Path | None, typer.Option()] = None) -> None:
    from worker.service import run

    run(load_settings(config), load_stub)


if __name__ == "__main__":
    run_app(app)
