"""Loop: the one file that names two stations, and the data's way on one screen.

    source -> intake -> scorer (tokens -> engine -> verdict) -> letters -> outbox

A pipeline of depth one: while the device scores a batch, the one before is committed and the one after prepared, at
the same time, since a commit is mostly waiting for the broker. What is under way is carried from turn to turn; there is
no queue, since not polling is all the back-pressure that is needed. Batches are committed in the order in which they
were read, and never is more than one transaction open.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from schemas import Prediction, Rejection
from worker.errors import BrokerError, Rewind
from worker.intake import read_review
from worker.letters import Letters
from worker.limits import DeadLetterCount
from worker.metrics import Metrics, Stage
from worker.models import Models
from worker.outbox import Outbox
from worker.pace import Pace
from worker.page import Samples
from worker.rescue import Collected, Work
from worker.scorer import Prepared
from worker.settings import LimitSettings
from worker.shadow import Shadow
from worker.source import Batch, ReviewSource
from worker.watchdog import Watchdog

if TYPE_CHECKING:
    from worker.tracing import Tracing

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
    work: Work


@dataclass(frozen=True, slots=True)
class Committing:
    """A batch whose transaction is under way."""

    in_hand: InHand
    collected: Collected
    outcomes: Future[list[Prediction | Rejection]]


@dataclass
class Loop:
    """Reads, scores and commits until told to stop."""

    source: ReviewSource
    models: Models
    letters: Letters
    outbox: Outbox
    pace: Pace
    metrics: Metrics
    watchdog: Watchdog
    shadow: Shadow | None
    tracing: "Tracing | None"
    limits: LimitSettings
    max_message_bytes: int
    stopping: Event
    """Set from a signal handler: end after the batch in hand is committed."""
    samples: Samples | None = None
    """Where the page shows review texts."""
    dead_letters: DeadLetterCount = field(default_factory=DeadLetterCount)
    aborts: int = 0
    """Transactions that were not committed since the last one that was."""
    _committing: Committing | None = None
    _committer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "commit"))

    def run(self) -> None:
        """Until `stopping` is set.

        Raises:
            BrokerError: the broker refuses what the worker needs, or nothing could be committed ten times in a row.
            EngineError: tokenizer or device fail on everything.
            LimitError: too many dead letters.
        """
        in_hand: InHand | None = None
        try:
            while not self.stopping.is_set() or in_hand is not None or self._committing is not None:
                try:
                    if in_hand is None and self._committing is None:
                        self.models.take()
                    in_hand = self._turn(in_hand)
                except Rewind as rewind:
                    in_hand = None
                    self._rewind(rewind)
        finally:
            # Whatever ended it: the producer is not closed under a commit.
            self.watchdog.enter("commit")
            self._committer.shutdown()

    def _turn(self, in_hand: InHand | None) -> InHand | None:
        """Read the next batch while the last one is committed, start the device on it as soon as it is free, and begin
        to commit the one that it finished.

        Before a stop and before another model is taken nothing is read, so that nothing is in hand afterwards.
        """
        finishing = self.stopping.is_set() or self.models.waiting
        idle = in_hand is None and self._committing is None
        batch = None if finishing else self._poll(IDLE_SECONDS if idle else 0)
        prepared = self._prepare(batch) if batch else None
        self._end_commit()
        collected = self._wait(in_hand) if in_hand else None
        following = self._submit(batch, prepared) if batch and prepared else None
        if in_hand and collected:
            self._begin_commit(in_hand, collected)
        return following

    def _poll(self, seconds: float) -> Batch | None:
        self.watchdog.enter("poll")
        self.source.measure_lag()
        with self._timed("poll"):
            batch = self.source.poll(seconds, self.pace.next_reviews)
        if self.tracing and batch:
            self.tracing.read(batch.messages)
        return batch

    def _prepare(self, batch: Batch) -> Prepared:
        self.watchdog.enter("intake")
        with self._timed("intake"):
            read = [read_review(message, self.max_message_bytes) for message in batch.messages]
        self.watchdog.enter("tokenize")
        with self._timed("tokenize"):
            prepared = self.models.current.prepare(read)
        self.pace.observe(len(prepared.rows), prepared.tokens)
        return prepared

    def _submit(self, batch: Batch, prepared: Prepared) -> InHand:
        if self.tracing:
            self.tracing.submitted()
        return InHand(batch, prepared, self.models.current.submit(prepared))

    def _wait(self, in_hand: InHand) -> Collected:
        self.watchdog.enter("score")
        while not in_hand.work.done(self.source.patience_seconds):
            self.source.stay()
        collected = self.models.current.collect(in_hand.work)
        if self.tracing:
            self.tracing.scored()
        self.pace.measure(in_hand.prepared.tokens, collected.seconds)
        self.metrics.stage_seconds.labels("score").observe(collected.seconds)
        self.metrics.device_busy.inc(collected.seconds)
        return collected

    def _begin_commit(self, in_hand: InHand, collected: Collected) -> None:
        outcomes = self._committer.submit(self._commit, in_hand, collected)
        self._committing = Committing(in_hand, collected, outcomes)

    def _commit(self, in_hand: InHand, collected: Collected) -> list[Prediction | Rejection]:
        """What became of each message, once it is committed. On a thread of its own."""
        batch = in_hand.batch
        with self._timed("commit"):
            sources = [message.source for message in batch.messages]
            outcomes = self.models.current.conclude(in_hand.prepared, sources, collected)
            dead_letters = self.dead_letters.after(outcomes, self.limits)
            records = [self.letters.write(message, it) for message, it in zip(batch.messages, outcomes, strict=True)]
            # It is polled meanwhile, which may find this worker shut out of the group and join it again.
            given_up = partial(self.source.has_left, batch.membership)
            self.outbox.publish(records, batch.positions, batch.membership, given_up)
        self.dead_letters = dead_letters
        return outcomes

    def _end_commit(self) -> None:
        """Wait for the commit under way, if there is one, and take note of it."""
        if self._committing is None:
            return
        self.watchdog.enter("commit")
        committing, self._committing = self._committing, None
        outcomes = committing.outcomes.result()
        messages, prepared = committing.in_hand.batch.messages, committing.in_hand.prepared
        self.aborts = 0
        self.metrics.count_batch(messages, outcomes, committing.collected, prepared.known.values())
        self.metrics.count_cached(len(prepared.known), len(prepared.digests))
        if self.tracing:
            self.tracing.committed(outcomes)
        if self.shadow:
            self.shadow.follow(prepared.read, outcomes)
        if self.samples:
            self.samples.follow(prepared.read, outcomes)

    def _rewind(self, rewind: Rewind) -> None:
        try:
            # It was read before, and may be good all the same.
            self._end_commit()
        except Rewind as given_up:
            rewind = given_up
        self.watchdog.enter("rewind")
        log.warning("going back to the committed offsets", extra={"cause": str(rewind), "outcome": rewind.outcome})
        if self.tracing:
            self.tracing.given_up(rewind)
        if rewind.outcome is not None:
            self.metrics.transactions.labels(rewind.outcome).inc()
            self.aborts += 1
        if self.aborts >= MAX_CONSECUTIVE_ABORTS:
            raise BrokerError(f"nothing could be committed {self.aborts} times in a row; the last cause: {rewind}")
        self.source.rewind()

    def _timed(self, stage: Stage) -> AbstractContextManager[None]:
        timed = self.metrics.timed(stage)
        return self.tracing.timed(stage, timed) if self.tracing else timed
