"""Rescue: whatever an engine fails on, the reviews that are not at fault have the logits they would have had."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fake_engine import FakeEngine, OutOfMemoryError
from schemas import Reason
from worker.engine import Engine
from worker.errors import EngineError
from worker.rescue import Collected, Rescue
from worker.tokens import Ids

POISON = 666


def row(token: int, length: int = 4) -> Ids:
    """Opening token 2, content, closing token 3."""
    return np.array([2, *[token] * (length - 2), 3], dtype=np.int32)


def score(rescue: Rescue, rows: Sequence[Ids]) -> Collected:
    return rescue.collect(rescue.submit(rows))


def on_poison(error: type[Exception] = RuntimeError) -> Callable[[Sequence[Ids], np.ndarray], None]:
    """Fails as long as one of the rows holds the poison."""

    def fail(rows: Sequence[Ids], _: np.ndarray) -> None:
        if any(POISON in row for row in rows):
            raise error("text of the review")

    return fail


def above(tokens: int) -> Callable[[Sequence[Ids], np.ndarray], None]:
    """A device with room for so many tokens."""

    def fail(rows: Sequence[Ids], _: np.ndarray) -> None:
        if sum(len(row) for row in rows) > tokens:
            raise OutOfMemoryError

    return fail


def test_a_batch_without_trouble_is_one_call() -> None:
    engine = FakeEngine()
    collected = score(Rescue(engine), [row(5), row(6, 9), row(7)])

    assert engine.calls == [[4, 9, 4]]
    assert collected.logits[:, 0].tolist() == [5, 6, 7]
    assert (collected.seconds, collected.device_tokens, collected.faults) == (0.5, 17, {})


def test_the_real_engine_gives_the_same_with_and_without_the_net(tiny_engine: Engine) -> None:
    rows = [np.array([2, 5, 3], dtype=np.int32), np.array([2, 7, 9, 3], dtype=np.int32)]
    direct = tiny_engine.submit(rows).result()
    rescue = Rescue(tiny_engine)
    rescue.ceiling = 4

    assert np.array_equal(score(Rescue(tiny_engine), rows).logits, direct.logits)
    assert score(rescue, rows).logits == pytest.approx(direct.logits, abs=1e-5)
    assert score(rescue, []).logits.shape == direct.logits[:0].shape


@pytest.mark.parametrize("culprits", [{0}, {7}, {12}, {3, 4}, {0, 12}, set(range(0, 13, 2))])
def test_only_the_reviews_at_fault_are_lost(culprits: set[int]) -> None:
    rows = [row(POISON if number in culprits else number) for number in range(13)]

    collected = score(Rescue(FakeEngine(on_poison())), rows)

    assert collected.faults.keys() == culprits
    for number in set(range(13)) - culprits:
        assert collected.logits[number].tolist() == [number, 4, 0]
    assert {fault.reason for fault in collected.faults.values()} == {Reason.SCORER_FAILED}
    assert all("text of the review" not in fault.detail for fault in collected.faults.values())


def test_a_failure_that_does_not_come_again_costs_nobody_anything() -> None:
    failures = iter([RuntimeError()])

    def once(_: Sequence[Ids], __: np.ndarray) -> None:
        for error in failures:
            raise error

    collected = score(Rescue(FakeEngine(once)), [row(number) for number in range(6)])

    assert collected.faults == {}
    assert collected.logits[:, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_finding_one_culprit_among_many_takes_few_calls() -> None:
    engine = FakeEngine(on_poison())

    score(Rescue(engine), [row(POISON if number == 300 else number) for number in range(512)])

    assert len(engine.calls) <= 2 * 9 + 2


def test_an_answer_that_is_no_number_is_a_fault_of_that_review() -> None:
    def spoil(rows: Sequence[Ids], logits: np.ndarray) -> None:
        for number, ids in enumerate(rows):
            if POISON in ids:
                logits[number] = np.nan

    collected = score(Rescue(FakeEngine(spoil)), [row(5), row(POISON), row(6)])

    assert list(collected.faults) == [1]
    assert collected.faults[1].detail == "the model's answer is not a number"
    assert collected.logits[[0, 2], 0].tolist() == [5, 6]


def test_a_neighbour_that_was_spoilt_is_scored_alone() -> None:
    """In a packed row one review's NaN can reach the next one's logits."""

    def spoil(rows: Sequence[Ids], logits: np.ndarray) -> None:
        if any(POISON in ids for ids in rows):
            logits[:] = np.inf

    collected = score(Rescue(FakeEngine(spoil)), [row(5), row(POISON), row(6)])

    assert list(collected.faults) == [1]
    assert collected.logits[[0, 2], 0].tolist() == [5, 6]


def test_out_of_memory_halves_the_batch_and_is_remembered() -> None:
    engine = FakeEngine(above(20))
    rescue = Rescue(engine)

    first = score(rescue, [row(number, 8) for number in range(8)])
    assert rescue.ceiling == 16
    engine.calls.clear()
    second = score(rescue, [row(number, 8) for number in range(8)])

    assert first.faults == second.faults == {}
    assert second.logits[:, 0].tolist() == list(range(8))
    assert engine.calls == [[8, 8]] * 4
    assert second.seconds == 4 * 0.5


def test_a_review_that_has_no_room_even_alone_is_the_only_one_lost() -> None:
    collected = score(Rescue(FakeEngine(above(20))), [row(5, 8), row(6, 30), row(7, 8)])

    assert list(collected.faults) == [1]
    assert collected.faults[1].reason == Reason.OUT_OF_MEMORY
    assert "30 tokens" in collected.faults[1].detail
    assert collected.logits[[0, 2], 0].tolist() == [5, 7]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), RuntimeError("std::bad_alloc")]
)
def test_every_way_to_say_out_of_memory_is_understood(error: Exception) -> None:
    def fail(rows: Sequence[Ids], _: np.ndarray) -> None:
        if len(rows) > 1:
            raise error

    rescue = Rescue(FakeEngine(fail))

    assert score(rescue, [row(5), row(6)]).faults == {}
    assert rescue.ceiling == 4


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_device_that_fails_on_everything_ends_the_process_instead_of_the_reviews(spoilt: bool) -> None:
    def fail(_: Sequence[Ids], logits: np.ndarray) -> None:
        logits[:] = np.nan
        if not spoilt:
            raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    with pytest.raises(EngineError, match="fake on no device no longer scores anything"):
        score(Rescue(FakeEngine(fail)), [row(5), row(6)])


def test_an_error_of_our_own_is_passed_on() -> None:
    def fail(_: Sequence[Ids], __: np.ndarray) -> None:
        raise EngineError("mine")

    with pytest.raises(EngineError, match="mine"):
        score(Rescue(FakeEngine(fail)), [row(5), row(6)])
