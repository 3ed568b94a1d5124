"""Watchdog: ends the process when a stage of the loop does not return.

kafka-python's `commit_transaction`, `abort_transaction` and `send_offsets_to_transaction` have no time-out, and a
device can hang. A process that ends is restarted, and its `init_transactions()` aborts what was left open; one that
hangs keeps its partitions for ever.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import Self

log = logging.getLogger(__name__)

EXIT_CODE = 1


class Watchdog:
    """A thread that holds the loop to a time limit.

    The loop calls `enter(stage)` whenever it begins a stage. Use as a context manager around the loop.

    Attributes:
        stage: the stage the loop is in.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._usual = limit_seconds
        self._limit = limit_seconds
        self._since = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.stage = "start"

    def enter(self, stage: str, limit_seconds: float | None = None) -> None:
        """The loop begins `stage`; the one before is over. A stage may have a time limit of its own."""
        self.stage = stage
        self._since = time.monotonic()
        self._limit = self._usual if limit_seconds is None else limit_seconds

    @property
    def age_seconds(self) -> float:
        """Time since the loop last began a stage."""
        return time.monotonic() - self._since

    @property
    def alive(self) -> bool:
        """False when the stage in hand is over its limit."""
        return self.age_seconds < self._limit

    def __enter__(self) -> Self:
        self.enter("start")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._usual / 4)):
            if not self.alive:
                try:
                    log.critical(
                        "stage did not return; ending the process",
                        extra={"stage": self.stage, "seconds": round(self.age_seconds, 1)},
                    )
                    # Stacks hold names and lines only, never values.
                    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
                finally:
                    # Whatever became of the lines above. A normal exit would wait for the hung thread.
                    os._exit(EXIT_CODE)
