"""`review-worker` with an engine that takes no time and is of different opinions: the longer a review, the more likely
is each label behind the first. Everything else is the worker's own."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

import worker.service
from worker.artifact import Artifact
from worker.cli import main
from worker.engine import EngineDescription, Scored
from worker.engine.memory import host_memory
from worker.tokens import Ids

SECONDS = 0.01
"""For a batch."""


class OpinionatedEngine:
    """Logits by the number of tokens."""

    description = EngineDescription("stub", "<b>no device</b>", "float32", "a test")

    def __init__(self, artifact: Artifact, *_: Any, rescore: bool) -> None:
        self._labels = len(artifact.manifest.labels)
        self._thread = ThreadPoolExecutor(max_workers=1)

    memory = staticmethod(host_memory)

    def warm_up(self) -> None:
        """There is nothing to compile."""

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """On a thread of its own, as a real engine does."""
        return self._thread.submit(self._score, [len(row) for row in rows])

    def _score(self, lengths: Sequence[int]) -> Scored:
        time.sleep(SECONDS if lengths else 0)
        logits = np.zeros((len(lengths), self._labels), dtype=np.float32)
        for row, length in enumerate(lengths):
            logits[row, length % self._labels] = length / 4
        return Scored(logits, SECONDS, 2 * sum(lengths))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)


worker.service.open_engine = OpinionatedEngine  # type: ignore[assignment]
main()
