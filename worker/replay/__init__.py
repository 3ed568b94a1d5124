"""Replay: dead letters back on the input topic, each at most once.

    dead letter -> ours, and not put back yet? -> chosen? -> hops left? -> the same key and value, one hop more

What is put back and how far that is are committed in one transaction a batch, so that a process that dies leaves both
or neither. Filters choose out of order, which a single offset cannot tell. For each partition of the dead letters, the
group `<group>-replay` has

    the committed offset    of the first dead letter that was not put back
    its metadata            which of those behind it were, as `Progress` writes them

The transactional id is `<group>-replay` too: a second replay shuts the first one out. To put everything back once more,
set the group back: `kafka-consumer-groups --group <group>-replay --reset-offsets --to-earliest`.

A broker forgets the offsets of a group that has not committed for some time. Every replay commits, and without any
progress dead letters older than that time are put back only on request.
"""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kafka.errors import KafkaError, OffsetMetadataTooLargeError, ProducerFencedError
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from schemas import Reason
from worker.connection import Positions, begin, caused_by
from worker.errors import BrokerError, Rewind
from worker.letters import Outgoing
from worker.message import Message
from worker.outbox import FENCED, FORBIDDEN, TOO_LARGE, Outbox
from worker.replay.choice import Choice, Fate
from worker.replay.dead_letters import DeadLetters, group_of
from worker.replay.marks import Marks, put_back, read_marks
from worker.replay.progress import Progress
from worker.settings import KafkaSettings, Settings
from worker.topics import require_topics

T = TypeVar("T")

MAX_METADATA = 4096
"""Characters: the broker's default for `offset.metadata.max.bytes`."""

TRANSACTION_BYTES = 16 << 20
"""Of keys and values in hand: a dead letter may have a megabyte, and a batch counts records."""

SECONDS_A_DAY = 86_400
FORGOTTEN_DAYS = 7
"""Kafka's default for `offsets.retention.minutes`. What was put back is older than the commit that says so: where that
is forgotten, anything younger was not put back."""


@dataclass
class Replayed:
    """What became of the dead letters that were read."""

    counts: Counter[tuple[Reason | None, Fate]] = field(default_factory=Counter)
    limited: bool = False
    """There was more to put back than the limit allowed."""
    seconds: float = 0.0

    def total(self, fate: Fate) -> int:
        """Over all reasons."""
        return sum(count for (_, its), count in self.counts.items() if its is fate)

    @property
    def reasons(self) -> list[Reason]:
        """Those that occur, in the order of the closed list."""
        return [reason for reason in Reason if any(reason is its for its, _ in self.counts)]

    def document(self) -> dict[str, Any]:
        """For JSON: totals, and those of each reason."""
        totals: dict[str, Any] = {fate.value: self.total(fate) for fate in Fate}
        reasons = {
            reason.value: {fate.value: self.counts[reason, fate] for fate in Fate if fate is not Fate.NOT_OURS}
            for reason in self.reasons
        }
        return totals | {"limited": self.limited, "seconds": round(self.seconds, 3), "reasons": reasons}


def replay(
    settings: Settings, choice: Choice, *, dry_run: bool = False, advanced: Callable[[], object] = lambda: None
) -> Replayed:
    """Put dead letters back, from the first that was not put back up to the end of the topic as it is at the start.

    Args:
        settings: where; a transaction has at most `batch.max_reviews` records.
        choice: which.
        dry_run: change nothing, and count what would be put back.
        advanced: called for each record that is put back, once that is committed.

    Raises:
        BrokerError: it could not go on. What was committed stays, and the next replay goes on from there.
    """
    kafka = settings.kafka
    require_topics(kafka, [kafka.input_topic, kafka.dead_letter_topic])
    run = _Run(settings, choice, advanced)
    began = time.monotonic()
    with ExitStack() as stack:
        try:
            if not dry_run:
                # Before the progress is read: until then, a replay that is under way or has died may change it.
                run.outbox = stack.enter_context(closing(open_outbox(settings)))
            letters = stack.enter_context(closing(DeadLetters(kafka)))
            for partition in letters.ends:
                run.go_through(letters, partition)
                if run.done.limited:
                    break
            run.done.counts[None, Fate.NOT_OURS] += letters.unreadable
        except (BrokerError, Rewind, KafkaError, TimeoutError) as error:
            raise BrokerError(run.explain(error)) from None
    run.done.seconds = time.monotonic() - began
    return run.done


class _Run:
    """One replay under way."""

    def __init__(self, settings: Settings, choice: Choice, advanced: Callable[[], object]) -> None:
        self.outbox: Outbox | None = None
        """None for a dry run."""
        self.done = Replayed()
        self._kafka = settings.kafka
        self._topic = settings.kafka.input_topic
        self._most = settings.batch.max_reviews
        self._choice = choice
        self._advanced = advanced
        self._committed = 0
        self._in_doubt = False
        """A transaction was begun, and nothing is known of its outcome."""
        self._forgotten_ms = round(time.time() * 1000) - FORGOTTEN_DAYS * SECONDS_A_DAY * 1000

    def go_through(self, letters: DeadLetters, partition: TopicPartition) -> None:
        """Put back what is chosen in one partition, or find that the limit is reached.

        Raises:
            BrokerError: what was put back before is not known, or no longer fits into the progress.
        """
        known = letters.progress(partition)
        progress = known or Progress(letters.beginning(partition))
        chosen, size = list[Outgoing](), 0
        for message in letters.read(partition, progress.first):
            marks = read_marks(message.headers, self._topic)
            fate = self._fate(message, marks, progress)
            if fate is Fate.PUT_BACK and self.done.total(Fate.PUT_BACK) == self._choice.limit:
                self.done.limited = True
                break
            self.done.counts[marks.reason if marks else None, fate] += 1
            progress.step(message.offset, done=fate in (Fate.PUT_BACK, Fate.PUT_BACK_EARLIER))
            if marks and fate is Fate.PUT_BACK:
                if known is None:
                    self._require_memory(message)
                chosen.append(put_back(message, marks, self._topic))
                size += len(message.key or b"") + len(message.value or b"")
            if len(chosen) >= self._most or size >= TRANSACTION_BYTES:
                self._commit(letters, partition, progress, chosen)
                chosen, size = [], 0
        else:
            progress.finish(letters.ends[partition])
        # Even if nothing has changed: it keeps the broker from forgetting.
        self._commit(letters, partition, progress, chosen)

    def _require_memory(self, message: Message) -> None:
        """Without progress nothing was put back, or the broker has forgotten: `--since` says which."""
        if self._choice.since_ms is None and message.timestamp_ms < self._forgotten_ms:
            raise BrokerError(
                f"{message.topic} has dead letters of more than {FORGOTTEN_DAYS} days, and the broker knows of no "
                "earlier replay: there was none, or it has forgotten. Choose with --since, such as --since "
                f"{FORGOTTEN_DAYS}d for those that certainly were not put back, or --since 1970-01-01 for all"
            )

    def _fate(self, message: Message, marks: Marks | None, progress: Progress) -> Fate:
        if message.offset in progress:
            return Fate.PUT_BACK_EARLIER
        if marks is None:
            return Fate.NOT_OURS
        if not self._choice.takes(marks.reason, message.timestamp_ms):
            return Fate.LEFT_BY_FILTER
        return Fate.OVER_MAX_HOPS if marks.hops >= self._choice.max_hops else Fate.PUT_BACK

    def _commit(
        self, letters: DeadLetters, partition: TopicPartition, progress: Progress, chosen: list[Outgoing]
    ) -> None:
        metadata = progress.encode()
        if len(metadata) > MAX_METADATA:
            raise OffsetMetadataTooLargeError  # as the broker would say, but before anything is sent
        if self.outbox is None:
            return
        self._publish(self.outbox, chosen, {partition: OffsetAndMetadata(progress.first, metadata, -1)})
        self._committed += len(chosen)
        for _ in chosen:
            self._advanced()
        # The outbox takes a new producer by itself when answers were lost, and so shuts out whoever shut it out. What
        # such a replay has done before shows here, and nothing can follow.
        kept = letters.progress(partition)
        if kept is None or (kept.first, kept.encode()) != (progress.first, metadata):
            raise ProducerFencedError

    def _publish(self, outbox: Outbox, chosen: list[Outgoing], positions: Positions) -> None:
        """In one transaction. No membership goes with it: partitions are not shared here, and the transactional id
        shuts others out."""
        self._in_doubt = True
        _in_time(lambda: outbox.publish(chosen, positions, ConsumerGroupMetadata(group_of(self._kafka))), self._kafka)
        self._in_doubt = False

    def explain(self, error: Exception) -> str:
        """What went wrong, how far it went, and what to do."""
        kafka, group = self._kafka, group_of(self._kafka)
        # What the outbox raises has advice for a worker; what it raised that from is what counts here.
        origin = error.__context__
        cause = origin if isinstance(error, BrokerError | Rewind) and isinstance(origin, KafkaError) else error
        named = f"{type(cause).__name__}: {cause}"
        certain = not self._in_doubt or (isinstance(error, Rewind) and error.outcome == "aborted")
        what, remedy = f"broker {kafka.bootstrap_servers}: {named}", "start again to go on"
        if caused_by(cause, *FENCED):
            what, remedy = f"another replay of group {kafka.group_id} has begun", "it goes on where this one was"
        elif caused_by(cause, *FORBIDDEN):
            needed = f"READ {kafka.dead_letter_topic} and group {group}, and WRITE {self._topic} and transactional id"
            what, remedy, certain = f"the broker refuses: {named}", f"a replay has to {needed} {group}", True
        elif caused_by(cause, *TOO_LARGE):
            what = f"a dead letter with its count of hops is larger than {self._topic} takes"
            remedy, certain = "raise its max.message.bytes", True
        elif caused_by(cause, OffsetMetadataTooLargeError):
            what = f"what was put back out of order no longer fits into the {MAX_METADATA:,} characters kept for it"
            remedy = "put the oldest back first, with --until or --limit, not --reason, or with a higher --max-hops"
            certain = True
        elif isinstance(error, BrokerError):
            what = str(error)
        elif isinstance(error, TimeoutError):
            what = f"the broker at {kafka.bootstrap_servers} no longer answers"
        return f"{what}; put back {'' if certain else 'at least '}{self._committed:,}; {remedy}"


def open_outbox(settings: Settings) -> Outbox:
    """The worker's own outbox under the transactional id of the replays of its group. Opening it ends what an earlier
    one has left open, and shuts that one out.

    Raises:
        BrokerError: no broker answers, or it refuses this client.
        TimeoutError: it answers, and then no longer does.
    """
    named = settings.kafka.model_copy(update={"transactional_id": group_of(settings.kafka)})
    return _in_time(lambda: Outbox(settings.model_copy(update={"kafka": named})), settings.kafka)


def _in_time(call: Callable[[], T], kafka: KafkaSettings) -> T:
    """What the call returns, or TimeoutError: kafka-python's transactional calls wait for a broker without end, and
    here is no watchdog."""
    seconds = kafka.transaction_timeout_seconds + kafka.bootstrap_timeout_seconds
    outcome: Future[T] = Future()
    try:
        return begin(call, "transaction", outcome).result(seconds)
    except KeyboardInterrupt:
        # A transaction that is left open keeps the workers from reading on until the broker ends it.
        wait([outcome], seconds)
        raise
