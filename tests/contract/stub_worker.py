"""`review-worker` with an engine that takes no time: the protocol sets the pace, not BERT, and the start takes one
second instead of six. Everything else is the worker's own.

The environment makes it fail where a test wants it to:

    STUB_SECONDS            how long a batch takes
    STUB_HANG_AT            number of the batch that never ends, from 1
    STUB_ROOM               tokens that the device has room for at once
    STUB_POISON             reviews of so many tokens or more make it fail
    STUB_MAX_POLL           seconds, below what the settings allow
    STUB_METADATA           seconds after which the consumer asks for new partitions
    STUB_NO_STAY            it leaves the group unattended while the device works
    STUB_OPEN               seconds for which each transaction stays open behind its tenth record
    STUB_CRASH              kill -9 at this point of a transaction, as `reach` is told
    STUB_CRASH_AT           number of that transaction, from 1
"""

import os
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import numpy as np
from kafka import KafkaConsumer, KafkaProducer
from kafka.producer.transaction_manager import EndTxnHandler

import worker.outbox
import worker.service
import worker.source
from worker.artifact import Artifact
from worker.cli import main
from worker.delivery import Delivery
from worker.engine import EngineDescription, Scored
from worker.engine.memory import host_memory
from worker.letters import Outgoing
from worker.tokens import Ids

IN_THE_MIDST = 10
"""Records of a transaction."""

STUCK_SECONDS = 60


def number(name: str, otherwise: float) -> float:
    """A number of the environment."""
    return float(os.environ.get(name, otherwise))


class StubEngine:
    """Gives every row the same logits."""

    description = EngineDescription("stub", "none", "float32", "a test")

    def __init__(self, artifact: Artifact, *_: Any, rescore: bool) -> None:
        self._labels = len(artifact.manifest.labels)
        self._seconds = number("STUB_SECONDS", 0)
        self._hang_at = number("STUB_HANG_AT", -1)
        self._room = number("STUB_ROOM", np.inf)
        self._poison = number("STUB_POISON", np.inf)
        self._batches = 0
        self._thread = ThreadPoolExecutor(max_workers=1)

    memory = staticmethod(host_memory)

    def warm_up(self) -> None:
        """There is nothing to compile."""

    def submit(self, rows: Sequence[Ids]) -> Future[Scored]:
        """On a thread of its own, as a real engine does."""
        return self._thread.submit(self._score, [len(row) for row in rows])

    def _score(self, lengths: Sequence[int]) -> Scored:
        self._batches += bool(lengths)
        if self._batches == self._hang_at:
            Event().wait()
        time.sleep(self._seconds if lengths else 0)
        if sum(lengths) > self._room:
            raise MemoryError
        if any(length >= self._poison for length in lengths):
            raise ValueError("poison")
        return Scored(np.zeros((len(lengths), self._labels), dtype=np.float32), self._seconds, sum(lengths))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)


class SlowProducer(KafkaProducer):  # type: ignore[misc]
    """Holds its transactions open, or ends its process, as kill -9 does, at one point of one of them."""

    open_seconds = number("STUB_OPEN", 0)
    point = os.environ.get("STUB_CRASH")
    at = number("STUB_CRASH_AT", 1)
    transaction = 0

    def reach(self, point: str) -> None:
        """The process ends here if it is the point."""
        if point == self.point and self.transaction == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def begin_transaction(self) -> None:
        """Points before and after it."""
        type(self).transaction += 1
        self.reach("before begin")
        super().begin_transaction()
        self.reach("after begin")

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        """Points before and after it."""
        self.reach("before offsets")
        super().send_offsets_to_transaction(*arguments)
        self.reach("after offsets")

    def commit_transaction(self) -> None:
        """Points when the broker's reply has come and nobody has read it, and behind the commit."""
        handle = EndTxnHandler.handle_response

        def crash(handler: EndTxnHandler, response: Any) -> None:
            self.reach("reply to commit")
            handle(handler, response)

        EndTxnHandler.handle_response = crash
        try:
            super().commit_transaction()
        finally:
            EndTxnHandler.handle_response = handle
        self.reach("after commit")

    def close(self, *arguments: Any, **options: Any) -> None:
        """The point of a worker that was told to stop."""
        if self.point == "in shutdown":
            os.kill(os.getpid(), signal.SIGKILL)
        super().close(*arguments, **options)


class SlowDelivery(Delivery):
    """With the point that is behind the tenth record, which the broker has then."""

    def send(self, records: Sequence[Outgoing]) -> None:
        """All of them, or ten, and then the others."""
        producer = self._producer
        if len(records) >= IN_THE_MIDST and (producer.open_seconds or producer.point == "mid sends"):
            super().send(records[:IN_THE_MIDST])
            assert not self.failures(time.monotonic() + STUCK_SECONDS)
            producer.reach("mid sends")
            time.sleep(producer.open_seconds)
            records = records[IN_THE_MIDST:]
        super().send(records)


class ImpatientConsumer(KafkaConsumer):  # type: ignore[misc]
    """With time-outs below what the settings allow, so that no test waits for minutes."""

    def __init__(self, **options: Any) -> None:
        if "STUB_MAX_POLL" in os.environ:
            options["max_poll_interval_ms"] = round(number("STUB_MAX_POLL", 0) * 1000)
        if "STUB_METADATA" in os.environ:
            options["metadata_max_age_ms"] = round(number("STUB_METADATA", 0) * 1000)
        super().__init__(**options)


class AbsentSource(worker.source.ReviewSource):
    """Gives no sign of life between two polls."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.patience_seconds = 1e6


class ImpatientSource(worker.source.ReviewSource):
    """Gives its signs of life in time for the shorter time-out."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.patience_seconds = number("STUB_MAX_POLL", 0) / 4


worker.service.open_engine = StubEngine  # type: ignore[assignment]
worker.source.KafkaConsumer = ImpatientConsumer
worker.outbox.KafkaProducer = SlowProducer
worker.outbox.Delivery = SlowDelivery  # type: ignore[misc]
if "STUB_NO_STAY" in os.environ:
    worker.service.ReviewSource = AbsentSource  # type: ignore[misc]
elif "STUB_MAX_POLL" in os.environ:
    worker.service.ReviewSource = ImpatientSource  # type: ignore[misc]
main()
