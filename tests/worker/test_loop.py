"""Loop: what happens at the same time, what never does, and what an error leaves behind. Its stations are stand-ins
that keep a diary; the real ones meet in `contract/`."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Event
from typing import Any, cast

import numpy as np
import pytest
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from schemas import ModelName, Prediction, Rejection, Review
from worker.connection import Positions
from worker.errors import BrokerError, EngineError, Rewind
from worker.letters import Letters, Outgoing
from worker.loop import IDLE_SECONDS, Loop
from worker.message import Message
from worker.metrics import Metrics
from worker.models import Models
from worker.outbox import Outbox
from worker.pace import Pace
from worker.rescue import Collected, Work
from worker.scorer import Prepared
from worker.settings import BatchSettings, LimitSettings
from worker.source import Batch, ReviewSource
from worker.tokens import TokenRow
from worker.verdict import Verdict
from worker.watchdog import Watchdog

MODEL = ModelName(name="m", version=1, digest="sha256:" + "0" * 64)
PARTITION = TopicPartition("reviews", 0)
PATIENCE = 20.0

Step = Callable[[], object]


class Diary(list[str]):
    """What happened, in its order; several threads write."""

    def wait_for(self, entry: str) -> None:
        """Until it stands there."""
        deadline = time.monotonic() + PATIENCE
        while entry not in self:
            assert time.monotonic() < deadline, f"{entry} not in {self}"
            time.sleep(0.001)


def member(generation: int) -> ConsumerGroupMetadata:
    return ConsumerGroupMetadata("group", generation, "member", None)


def batch(number: int) -> Batch:
    """One review, at the offset of that number, read under the membership of that generation."""
    value = f'{{"review_id": "r{number}", "text": "good"}}'.encode()
    message = Message("reviews", 0, number, b"key", value, (), 1_795_000_000_000)
    return Batch([message], {PARTITION: OffsetAndMetadata(number + 1, "", -1)}, member(number))


class Source:
    """Brings what it was told to, and then nothing."""

    patience_seconds = PATIENCE

    def __init__(self, diary: Diary, brings: Sequence[Batch | Exception | None], stopping: Event) -> None:
        self._diary, self._brings, self._stopping = diary, list(brings), stopping
        self.waited: list[float] = []

    def measure_lag(self) -> None:
        """There is none."""

    def has_left(self, membership: ConsumerGroupMetadata) -> bool:
        self._diary.append(f"left {membership.generation_id}?")
        return False

    def poll(self, seconds: float, _: int) -> Batch | None:
        self.waited.append(seconds)
        if not self._brings:
            self._stopping.set()
            return None
        brought = self._brings.pop(0)
        if isinstance(brought, Exception):
            self._diary.append("poll raises")
            raise brought
        self._diary.append(f"poll {brought.messages[0].offset}" if brought else "poll nothing")
        return brought

    def rewind(self) -> None:
        self._diary.append("rewind")


class Scorer:
    """At once, the first of two labels."""

    def __init__(self, diary: Diary, broken_at: int) -> None:
        self._diary, self._broken_at = diary, broken_at
        self._verdict = Verdict(MODEL, ("bad", "good"), 1.0)

    def prepare(self, read: Sequence[Review | Rejection]) -> Prepared:
        return Prepared(read, [TokenRow(np.zeros(4, dtype=np.int32), False)] * len(read))

    def submit(self, prepared: Prepared) -> Work:
        done: Future[Any] = Future()
        done.set_result(None)
        (review,) = prepared.read
        assert isinstance(review, Review)
        self._diary.append(f"score {review.review_id[1:]}")
        return Work([review.review_id], [([0], done)])  # type: ignore[list-item]

    def collect(self, work: Work) -> Collected:
        if work.rows == [f"r{self._broken_at}"]:
            raise EngineError("broken")
        return Collected(np.zeros((1, 2), dtype=np.float32), 0.1, 4, {})

    def conclude(self, prepared: Prepared, sources: Any, collected: Collected) -> Sequence[Prediction | Rejection]:
        return self._verdict.predict(prepared.read, sources, prepared.rows, collected.logits)  # type: ignore[arg-type]


class Taking:
    """One model; what is taken while a newer one waits is the same again."""

    def __init__(self, diary: Diary, scorer: Scorer) -> None:
        self._diary = diary
        self.current = scorer
        self.waiting = False

    def take(self) -> None:
        if self.waiting:
            self._diary.append("take")
            self.waiting = False


class Publishing:
    """Commits, unless the step for that batch raises."""

    def __init__(self, diary: Diary, steps: dict[int, Step]) -> None:
        self._diary, self._steps = diary, steps
        self._open = 0
        self.given_up: Callable[[], bool] = lambda: False

    def publish(
        self,
        records: Sequence[Outgoing],
        positions: Positions,
        membership: ConsumerGroupMetadata,
        given_up: Callable[[], bool],
    ) -> None:
        assert not self._open, "two transactions are open"
        self._open += 1
        number = positions[PARTITION].offset - 1
        assert [record.key for record in records] == [b"key"]
        assert membership == member(number), "of another batch, or of now"
        self.given_up = given_up
        self._diary.append(f"begin {number}")
        try:
            self._steps.get(number, lambda: None)()
        except Exception:
            self._diary.append(f"abort {number}")
            raise
        else:
            self._diary.append(f"commit {number}")
        finally:
            self._open -= 1


class Run:
    """A loop with stand-ins for its stations."""

    def __init__(
        self, *brings: Batch | Exception | None, steps: dict[int, Step] | None = None, broken_at: int = -1
    ) -> None:
        self.diary = Diary()
        self.stopping = Event()
        self.metrics = Metrics()
        self.source = Source(self.diary, brings, self.stopping)
        self.models = Taking(self.diary, Scorer(self.diary, broken_at))
        self.steps: dict[int, Step] = steps or {}
        self.outbox = Publishing(self.diary, self.steps)
        self.loop = Loop(
            source=cast(ReviewSource, self.source),
            models=cast(Models, self.models),
            letters=Letters("predictions", "dead-letters"),
            outbox=cast(Outbox, self.outbox),
            pace=Pace(BatchSettings(), 512),
            metrics=self.metrics,
            watchdog=Watchdog(60),
            shadow=None,
            tracing=None,
            limits=LimitSettings(),
            max_message_bytes=1_000,
            stopping=self.stopping,
        )

    def to_the_end(self) -> list[str]:
        """The diary."""
        self.loop.run()
        return list(self.diary)

    def counted(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"review_worker_{name}", labels)


def test_the_next_batch_is_read_while_the_one_before_is_committed() -> None:
    """The commit of the first waits here until the third is read: one after the other, this would not end."""
    run = Run(batch(0), batch(1), batch(2))
    run.steps[0] = lambda: run.diary.wait_for("poll 2")

    diary = run.to_the_end()

    assert diary.index("poll 2") < diary.index("commit 0")
    assert run.counted("reviews_consumed_total") == 3


def test_batches_are_committed_in_their_order_and_one_at_a_time() -> None:
    run = Run(*(batch(number) for number in range(20)))
    run.steps.update({number: lambda: time.sleep(0.002) for number in range(0, 20, 3)})

    diary = run.to_the_end()

    commits = [entry for entry in diary if entry.startswith(("begin", "commit"))]
    assert commits == [f"{what} {number}" for number in range(20) for what in ("begin", "commit")]


def test_it_waits_for_records_only_while_nothing_is_under_way() -> None:
    """Neither a batch on the device nor one that is being committed waits for another to come."""
    run = Run(batch(0), None, None, None, batch(1))

    run.to_the_end()

    assert run.source.waited[:6] == [IDLE_SECONDS, 0, 0, IDLE_SECONDS, IDLE_SECONDS, 0]


def test_the_outbox_asks_about_the_membership_of_its_own_batch() -> None:
    """While it commits the first, the second was read, and perhaps under another."""
    run = Run(batch(0), batch(1))
    run.steps[0] = lambda: (run.diary.wait_for("poll 1"), run.outbox.given_up())

    assert "left 0?" in run.to_the_end()


def test_nothing_is_counted_before_it_is_committed() -> None:
    run = Run(batch(0), batch(1))
    seen: list[float | None] = []
    run.steps[0] = lambda: seen.append(run.counted("reviews_consumed_total"))
    run.steps[1] = run.steps[0]

    run.to_the_end()

    assert seen == [0, 1]


def test_a_batch_that_was_not_committed_takes_those_behind_it_with_it() -> None:
    """They were read behind it: committed, their positions would skip it."""

    def fail() -> None:
        run.diary.wait_for("poll 2")
        raise Rewind("no coordinator", "aborted")

    run = Run(batch(0), batch(1), batch(2), batch(0), batch(1), batch(2))
    tries = [fail, lambda: None]
    run.steps[0] = lambda: tries.pop(0)()

    diary = run.to_the_end()

    assert [entry for entry in diary if entry.startswith(("begin", "abort", "rewind"))] == [
        "begin 0",
        "abort 0",
        "rewind",
        "begin 0",
        "begin 1",
        "begin 2",
    ]
    assert run.counted("transactions_total", outcome="aborted") == 1
    assert run.counted("transactions_total", outcome="committed") == 3
    assert run.counted("reviews_consumed_total") == 3


def test_a_change_of_the_group_waits_for_the_commit_under_way() -> None:
    """Its offsets could not be read before, and what it commits is not read again."""
    run = Run(batch(0), batch(1), Rewind("the group has changed"))
    run.steps[0] = lambda: run.diary.wait_for("poll raises")

    diary = run.to_the_end()

    assert [entry for entry in diary if entry in ("poll raises", "commit 0", "rewind")] == [
        "poll raises",
        "commit 0",
        "rewind",
    ]
    assert run.counted("reviews_consumed_total") == 1
    assert run.counted("transactions_total", outcome="committed") == 1


def test_a_change_of_the_group_in_which_the_commit_fails_is_one_step_back() -> None:
    def fail() -> None:
        run.diary.wait_for("poll raises")
        raise Rewind("CommitFailedError", "aborted")

    run = Run(batch(0), batch(1), Rewind("the group has changed"), steps={0: fail})

    diary = run.to_the_end()

    assert [entry for entry in diary if entry in ("poll raises", "abort 0", "rewind")] == [
        "poll raises",
        "abort 0",
        "rewind",
    ]
    assert run.counted("transactions_total", outcome="aborted") == 1


def test_a_commit_under_way_is_not_left_by_an_error_elsewhere() -> None:
    """The producer is closed next, and would be under it."""
    run = Run(batch(0), batch(1), BrokerError("refused"))

    def slow() -> None:
        run.diary.wait_for("poll raises")
        time.sleep(0.05)

    run.steps[0] = slow

    with pytest.raises(BrokerError, match="refused"):
        run.loop.run()

    assert run.diary[-1] == "commit 0"


def test_a_broken_device_ends_it_with_what_was_scored_before_committed() -> None:
    run = Run(batch(0), batch(1), broken_at=1)

    with pytest.raises(EngineError):
        run.loop.run()

    assert [entry for entry in run.diary if entry.startswith(("begin", "commit"))] == ["begin 0", "commit 0"]


def test_an_error_that_ends_the_worker_ends_it_from_a_commit_too() -> None:
    def refuse() -> None:
        raise BrokerError("refused")

    run = Run(batch(0), batch(1), batch(2), steps={0: refuse})

    with pytest.raises(BrokerError, match="refused"):
        run.loop.run()

    assert "begin 1" not in run.diary
    assert run.counted("reviews_consumed_total") == 0


def test_a_stop_commits_what_was_read() -> None:
    run = Run(batch(0), batch(1))
    run.steps[0] = run.stopping.set

    assert run.to_the_end()[-1] == "commit 1"


def test_a_newer_model_is_taken_when_nothing_is_under_way() -> None:
    """Neither a batch on the device nor one whose predictions are still to be written may change its model."""
    run = Run(*(batch(number) for number in range(4)))

    def newer() -> None:
        run.diary.wait_for("poll 2")
        run.models.waiting = True

    run.steps[0] = newer

    diary = run.to_the_end()

    assert diary[diary.index("take") - 1] == "commit 2"
    assert diary[diary.index("take") + 1] == "poll 3"
