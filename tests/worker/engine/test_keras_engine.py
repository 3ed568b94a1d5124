"""The Keras engine: the reference's logits, whatever company a review is scored in."""

import json
import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.artifact import open_artifact
from worker.engine import Engine, open_engine
from worker.engine.keras_engine import has_fast_bfloat16, plan_calls

EXACT = 1e-4

BuildArtifact = Callable[..., Path]


@pytest.fixture(scope="module")
def golden(tiny_folder: Path) -> list[dict[str, Any]]:
    """PyTorch's ids and logits for six texts."""
    examples: list[dict[str, Any]] = json.loads((tiny_folder / "golden.json").read_text(encoding="utf-8"))["examples"]
    return examples


def row(ids: Sequence[int]) -> np.ndarray:
    return np.array(ids, dtype=np.int32)


def score(engine: Engine, rows: list[np.ndarray]) -> np.ndarray:
    return engine.submit(rows).result(timeout=60).logits


# --- what it computes ---


def test_the_logits_are_those_of_the_reference(tiny_engine: Engine, golden: list[dict[str, Any]]) -> None:
    logits = score(tiny_engine, [row(example["input_ids"]) for example in golden])

    assert logits.dtype == np.float32
    assert logits == pytest.approx(np.array([example["logits"] for example in golden]), abs=EXACT)


def test_they_come_in_the_order_of_the_rows(tiny_engine: Engine, golden: list[dict[str, Any]]) -> None:
    """Although it scores the shortest first."""
    for order in (golden, golden[::-1], golden[3:] + golden[:3]):
        logits = score(tiny_engine, [row(example["input_ids"]) for example in order])

        assert logits == pytest.approx(np.array([example["logits"] for example in order]), abs=EXACT)


def test_a_review_has_the_same_logits_in_any_company(tiny_engine: Engine, golden: list[dict[str, Any]]) -> None:
    """Padding is masked: a long neighbour changes nothing."""
    rows = [row(example["input_ids"]) for example in golden]
    long = [row([2, *range(5, 66), 3])] * 40

    alone = np.concatenate([score(tiny_engine, [one]) for one in rows])
    together = score(tiny_engine, long[:20] + rows + long[20:])[20:26]

    assert together == pytest.approx(alone, abs=EXACT)


def test_a_row_as_long_as_the_network_reads_is_scored(tiny_engine: Engine) -> None:
    assert np.isfinite(score(tiny_engine, [row([2, *[5] * 62, 3])])).all()


def test_no_rows_give_no_logits(tiny_engine: Engine) -> None:
    """As for a batch of rejections alone."""
    scored = tiny_engine.submit([]).result(timeout=60)

    assert scored.logits.shape == (0, 3)
    assert scored.device_tokens == 0


def test_padding_is_counted_among_the_devices_tokens(tiny_engine: Engine) -> None:
    scored = tiny_engine.submit([row([2, 3]), row([2, 5, 5, 5, 3]), row([2, 5, 3])]).result(timeout=60)

    assert scored.device_tokens == 3 * 5
    assert scored.seconds > 0


def test_more_rows_than_one_call_holds_are_all_scored(tiny_engine: Engine, golden: list[dict[str, Any]]) -> None:
    rows = [row(example["input_ids"]) for example in golden] * 100

    scored = tiny_engine.submit(rows).result(timeout=60)

    assert scored.logits == pytest.approx(np.array([example["logits"] for example in golden] * 100), abs=EXACT)
    assert scored.device_tokens >= sum(map(len, rows))


def test_batches_are_scored_in_the_order_of_submission(tiny_engine: Engine, golden: list[dict[str, Any]]) -> None:
    finished: list[int] = []
    futures = [tiny_engine.submit([row(example["input_ids"])] * (50 - 8 * n)) for n, example in enumerate(golden)]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: finished.append(number))

    results = [future.result(timeout=60).logits[0] for future in futures]

    assert np.array(results) == pytest.approx(np.array([example["logits"] for example in golden]), abs=EXACT)
    assert finished == sorted(finished)


def test_a_row_that_cannot_be_scored_fails_its_batch_and_no_other(tiny_engine: Engine) -> None:
    bad, good = tiny_engine.submit([np.zeros((2, 2), dtype=np.int32)]), tiny_engine.submit([row([2, 5, 3])])

    with pytest.raises(ValueError, match="broadcast"):
        bad.result(timeout=60)
    assert good.result(timeout=60).logits.shape == (1, 3)


# --- how it is opened ---


def test_it_says_what_computes(tiny_engine: Engine) -> None:
    description = tiny_engine.description

    assert (description.name, description.precision, description.reason) == ("tensorflow", "float32", "asked for")
    assert description.device


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("bfloat16", 0.1 if has_fast_bfloat16() else 0.15), ("float16", 0.05)]
)
def test_a_shorter_type_keeps_the_labels(
    tiny_artifact: BuildArtifact, tmp_path: Path, golden: list[dict[str, Any]], precision: Any, tolerance: float
) -> None:
    engine = open_engine(open_artifact(tiny_artifact(tmp_path)), "tensorflow", precision)
    expected = np.array([example["logits"] for example in golden])

    logits = score(engine, [row(example["input_ids"]) for example in golden])
    engine.close()

    assert engine.description.precision == precision
    assert logits.dtype == np.float32
    assert logits == pytest.approx(expected, abs=tolerance)
    assert not np.array_equal(logits, expected.astype(np.float32))
    assert (logits.argmax(axis=-1) == expected.argmax(axis=-1)).all()


def test_the_precision_is_chosen_with_a_reason(tiny_artifact: BuildArtifact, tmp_path: Path) -> None:
    engine = open_engine(open_artifact(tiny_artifact(tmp_path)), "tensorflow")
    engine.close()

    assert engine.description.reason not in ("", "asked for")
    if engine.description.device == "cpu":
        assert engine.description.precision == ("bfloat16" if has_fast_bfloat16() else "float32")


def test_closing_finishes_what_was_submitted(tiny_artifact: BuildArtifact, tmp_path: Path) -> None:
    engine = open_engine(open_artifact(tiny_artifact(tmp_path)), "tensorflow", "float32")
    futures = [engine.submit([row([2, 5, 3])] * 20) for _ in range(3)]

    engine.close()

    assert all(future.done() and future.result().logits.shape == (20, 3) for future in futures)
    with pytest.raises(RuntimeError):
        engine.submit([row([2, 3])])


# --- the plan ---


@pytest.mark.parametrize(
    ("lengths", "budget", "calls"),
    [
        ([], 10, []),
        ([5], 10, [[0]]),
        ([5, 5], 10, [[0, 1]]),
        ([5, 5, 5], 10, [[0, 1], [2]]),
        ([9, 2, 3], 10, [[1, 2], [0]]),
        ([4, 4, 2, 2], 8, [[2, 3], [0, 1]]),
        ([100, 2], 10, [[1], [0]]),
        ([100, 100], 10, [[0], [1]]),
    ],
)
def test_rows_are_cut_into_calls_shortest_first(lengths: list[int], budget: int, calls: list[list[int]]) -> None:
    assert list(plan_calls(lengths, budget)) == calls


@given(st.lists(st.integers(2, 512), max_size=200), st.integers(1, 4096))
def test_every_row_comes_once_and_no_call_is_over_the_budget(lengths: list[int], budget: int) -> None:
    calls = list(plan_calls(lengths, budget))

    assert sorted(index for call in calls for index in call) == list(range(len(lengths)))
    for call in calls:
        assert len(call) == 1 or len(call) * max(lengths[index] for index in call) <= budget


@given(st.lists(st.integers(2, 512), min_size=2, max_size=200), st.integers(512, 4096))
def test_no_call_is_ended_early(lengths: list[int], budget: int) -> None:
    """The first row of a call would not have fitted into the one before."""
    calls = list(plan_calls(lengths, budget))

    for call, following in pairwise(calls):
        assert (len(call) + 1) * lengths[following[0]] > budget


def test_padding_is_a_few_percent_in_a_batch_of_all_lengths() -> None:
    lengths = random.Random(0).choices(range(2, 513), k=1_000)  # noqa: S311 - no secret

    padded = sum(len(call) * max(lengths[index] for index in call) for call in plan_calls(lengths, 2_048))

    assert padded < 1.03 * sum(lengths)


def test_its_memory_is_that_of_the_process(tiny_engine: Engine) -> None:
    held = tiny_engine.memory()
    assert 10_000_000 < held.used < held.limit
