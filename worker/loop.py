"""Loop: the one file that names two stations, and the data's way on one screen.

    source -> intake -> scorer (tokens -> engine -> verdict) -> letters -> outbox

A pipeline of depth one: while the device scores a batch, the loop commits the one before and prepares the one after.
One future is carried from turn to turn; there is no queue, since not polling is all the back-pressure that is needed.
Batches are committed in the order in which they were read, and never is more than one transaction open.
"""

import logging
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event

from worker.engine import Scored
from worker.errors import BrokerError, Rewind
from worker.intake import read_review
from worker.letters import Letters
from worker.metrics import Metrics
from worker.outbox import Outbox
from worker.pace import Pace
from worker.scorer import Prepared, Scorer
from worker.source import Batch, ReviewSource
from worker.watchdog import Watchdog

log = logging.getLogger(__name__)

IDLE_SECONDS = 0.5
"""How long a poll waits when nothing is in hand; also how soon a stop is noticed."""

MAX_CONSECUTIVE_ABORTS = 10
"""A batch that can't be committed so often will not be: end, and let the supervisor's back-off take over."""


@dataclass(frozen=True, slots=True)
class InHand:
    """A batch that the device works on."""

    batch: Batch
    prepared: Prepared
    scores: Future[Scored]


@dataclass
class Loop:
    """Reads, scores and commits until told to stop."""

    source: ReviewSource
    scorer: Scorer
    letters: Letters
    outbox: Outbox
    pace: Pace
    metrics: Metrics
    watchdog: Watchdog
    max_message_bytes: int
    stopping: Event
    """Set from a signal handler: end after the batch in hand is committed."""
    aborts: int = 0
    """Transactions that were not committed since the last one that was."""

    def run(self) -> None:
        """Until `stopping` is set.

        Raises:
            BrokerError: the broker refuses what the worker needs, or nothing could be committed ten times in a row.
        """
        in_hand: InHand | None = None
        while not self.stopping.is_set() or in_hand is not None:
            try:
                in_hand = self._turn(in_hand)
            except Rewind as rewind:
                in_hand = None
                self._rewind(rewind)

    def _turn(self, in_hand: InHand | None) -> InHand | None:
        """Read the next batch, start the device on it as soon as it is free, and commit the one that it finished."""
        batch = None if self.stopping.is_set() else self._poll(0 if in_hand else IDLE_SECONDS)
        prepared = self._prepare(batch) if batch else None
        scored = self._wait(in_hand) if in_hand else None
        following = InHand(batch, prepared, self.scorer.submit(prepared)) if batch and prepared else None
        if in_hand and scored:
            self._commit(in_hand, scored)
        return following

    def _poll(self, seconds: float) -> Batch | None:
        self.watchdog.enter("poll")
        self.source.measure_lag()
        with self.metrics.timed("poll"):
            return self.source.poll(seconds, self.pace.next_reviews)

    def _prepare(self, batch: Batch) -> Prepared:
        self.watchdog.enter("intake")
        with self.metrics.timed("intake"):
            read = [read_review(message, self.max_message_bytes) for message in batch.messages]
        self.watchdog.enter("tokenize")
        with self.metrics.timed("tokenize"):
            prepared = self.scorer.prepare(read)
        self.pace.observe(len(prepared.rows), prepared.tokens)
        return prepared

    def _wait(self, in_hand: InHand) -> Scored:
        self.watchdog.enter("score")
        scored = in_hand.scores.result()
        self.metrics.stage_seconds.labels("score").observe(scored.seconds)
        self.metrics.device_busy.inc(scored.seconds)
        return scored

    def _commit(self, in_hand: InHand, scored: Scored) -> None:
        self.watchdog.enter("commit")
        batch = in_hand.batch
        with self.metrics.timed("commit"):
            outcomes = self.scorer.conclude(in_hand.prepared, [message.source for message in batch.messages], scored)
            records = [self.letters.write(message, it) for message, it in zip(batch.messages, outcomes, strict=True)]
            self.outbox.publish(records, batch.positions, batch.membership)
        self.aborts = 0
        self.metrics.count_batch(batch.messages, outcomes, scored)

    def _rewind(self, rewind: Rewind) -> None:
        self.watchdog.enter("rewind")
        log.warning("going back to the committed offsets", extra={"cause": str(rewind), "outcome": rewind.outcome})
        if rewind.outcome is not None:
            self.metrics.transactions.labels(rewind.outcome).inc()
            self.aborts += 1
        if self.aborts >= MAX_CONSECUTIVE_ABORTS:
            raise BrokerError(f"nothing could be committed {self.aborts} times in a row; the last cause: {rewind}")
        self.source.rewind()
