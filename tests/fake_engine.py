"""An engine that fails where a test wants it to, held to the real one's seam by `test_rescue.py`."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from worker.engine import EngineDescription, Scored
from worker.engine.memory import host_memory
from worker.tokens import Ids

LABELS = 3


class OutOfMemoryError(Exception):
    """As a device says it."""


class FakeEngine:
    """Gives each row the logits (its first content token, its length, 0), unless `fail` raises or spoils them.

    Attributes:
        calls: tokens of each row of each call.
        closed: whether it was.
    """

    description = EngineDescription("fake", "no device", "float32", "a test")

    def __init__(self, fail: Callable[[Sequence[Ids], np.ndarray], None] = lambda rows, logits: None) -> None:
        self.fail = fail
        self.calls: list[list[int]] = []
        self.closed = False
        self._thread = ThreadPoolExecutor(max_workers=1)

    memory = staticmethod(host_memory)

    def warm_up(self) -> None:
        """There is nothing to warm."""

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """On a thread of its own, as a real engine does."""
        return self._thread.submit(self._score, rows)

    def close(self) -> None:
        """End the thread."""
        self.closed = True
        self._thread.shutdown()

    def _score(self, rows: Sequence[Ids]) -> Scored:
        self.calls.append([len(row) for row in rows])
        logits = np.zeros((len(rows), LABELS), dtype=np.float32)
        for number, row in enumerate(rows):
            logits[number] = (row[1], len(row), 0)
        self.fail(rows, logits)
        return Scored(logits, 0.5, sum(len(row) for row in rows))
