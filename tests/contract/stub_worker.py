"""`review-worker` with an engine that takes no time: the protocol sets the pace, not BERT, and the start takes one
second instead of six. Everything else is the worker's own."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

import worker.service
from worker.artifact import Artifact
from worker.cli import main
from worker.engine import EngineDescription, Scored
from worker.tokens import Ids


class StubEngine:
    """Gives every row the same logits, after `STUB_SECONDS`."""

    description = EngineDescription("stub", "none", "float32", "a test")

    def __init__(self, artifact: Artifact, *_: Any) -> None:
        self._labels = len(artifact.manifest.labels)
        self._seconds = float(os.environ.get("STUB_SECONDS", "0"))
        self._thread = ThreadPoolExecutor(max_workers=1)

    def warm_up(self) -> None:
        """There is nothing to compile."""

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """On a thread of its own, as a real engine does."""
        return self._thread.submit(self._score, len(rows))

    def _score(self, rows: int) -> Scored:
        time.sleep(self._seconds)
        return Scored(np.zeros((rows, self._labels), dtype=np.float32), self._seconds, rows)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()


worker.service.open_engine = StubEngine  # type: ignore[assignment]
main()
