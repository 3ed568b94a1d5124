"""Plans, buckets and batches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Cut
from trainer.checkpoint import open_checkpoint
from trainer.data import LabelledReview
from trainer.dataset import (
    Buckets,
    Examples,
    Plan,
    batches,
    fine_buckets,
    padding_share,
    reading_plan,
    shortened,
    tokenize,
    training_plan,
    wide_buckets,
)

LENGTHS = np.random.default_rng(0).integers(2, 513, 1000)


def as_lists(plan: Plan) -> list[list[int]]:
    return [rows.tolist() for rows in plan]


@given(count=st.integers(1, 300), batch=st.integers(1, 40), window=st.integers(1, 9), epoch=st.integers(0, 3))
def test_every_row_comes_once_an_epoch_and_the_steps_are_known(count: int, batch: int, window: int, epoch: int) -> None:
    plan = training_plan(LENGTHS[:count], batch, seed=1, epoch=epoch, window=window)
    assert len(plan) == -(-count // batch)
    assert sorted(np.concatenate(plan).tolist()) == list(range(count))
    assert max(len(rows) for rows in plan) <= batch


def test_a_plan_follows_from_seed_and_epoch_alone() -> None:
    assert as_lists(training_plan(LENGTHS, 16, 5, 2)) == as_lists(training_plan(LENGTHS, 16, 5, 2))
    first, second = as_lists(training_plan(LENGTHS, 16, 5, 0)), as_lists(training_plan(LENGTHS, 16, 5, 1))
    assert first != second
    assert first != as_lists(training_plan(LENGTHS, 16, 6, 0))


def test_an_epoch_mixes_batches_anew() -> None:
    lengths = np.random.default_rng(1).integers(2, 513, 4000)
    pairs = [
        {(a, b) for rows in as_lists(training_plan(lengths, 16, 0, epoch)) for a in rows for b in rows if a < b}
        for epoch in range(2)
    ]
    assert len(pairs[0] & pairs[1]) < 0.3 * len(pairs[0])


def test_batches_come_in_random_order_not_by_length() -> None:
    longest = [int(LENGTHS[rows].max()) for rows in training_plan(LENGTHS, 16, 0, 0)]
    assert longest != sorted(longest)


def test_windows_make_padding_small() -> None:
    buckets = fine_buckets(512)
    planned = padding_share([training_plan(LENGTHS, 16, 0, epoch) for epoch in range(3)], [LENGTHS] * 3, buckets)
    mixed = padding_share([training_plan(LENGTHS, 16, 0, 0, window=1)], [LENGTHS], buckets)
    assert planned < 0.04
    assert mixed > 0.4


def test_padding_is_counted_right() -> None:
    plan = [np.array([0, 1]), np.array([2])]
    whole, short = np.array([6, 2, 8]), np.array([4, 2, 4])
    assert padding_share([plan], [whole], Buckets((4, 8))) == pytest.approx(1 - 16 / 24)
    assert padding_share([plan, plan], [short, whole], Buckets((4, 8))) == pytest.approx(1 - 26 / 36)


@pytest.mark.parametrize("longest", [3, 40, 64, 100, 130, 512])
@pytest.mark.parametrize("make", [fine_buckets, wide_buckets])
def test_every_length_finds_a_bucket_in_the_closed_set(make: Any, longest: int) -> None:
    buckets = make(longest)
    assert buckets.longest == longest
    assert list(buckets.lengths) == sorted(set(buckets.lengths))
    for length in range(2, longest + 1):
        width = buckets.width(np.array([2, length]))
        assert width in buckets.lengths
        assert length <= width
        if make is fine_buckets:
            assert width - length < max(2, length / 8)


def test_fine_buckets_are_few_and_wide_ones_fewer() -> None:
    assert len(fine_buckets(512).lengths) <= 100
    assert wide_buckets(512).lengths == (64, 128, 192, 256, 320, 384, 448, 512)


def test_validation_reads_every_row_once_shortest_first() -> None:
    plan = reading_plan(LENGTHS, 32)
    read = np.concatenate(plan)
    assert sorted(read.tolist()) == list(range(1000))
    assert (np.diff(LENGTHS[read]) >= 0).all()


def make_examples(lengths: list[int]) -> Examples:
    rows = [np.full(length, index + 1, dtype=np.int32) for index, length in enumerate(lengths)]
    return Examples(np.concatenate(rows), np.array(lengths), np.arange(len(lengths), dtype=np.int32) % 2, truncated=0)


def test_batches_hold_the_planned_rows_padded_with_mask_and_label() -> None:
    plan = [np.array([2, 0]), np.array([1])]
    found = list(batches(make_examples([3, 10, 5]), plan, Buckets((4, 6, 12))).as_numpy_iterator())
    inputs, labels = found[0]
    np.testing.assert_array_equal(inputs["input_ids"], [[3, 3, 3, 3, 3, 0], [1, 1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(inputs["attention_mask"], [[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    np.testing.assert_array_equal(inputs["token_type_ids"], np.zeros((2, 6)))
    np.testing.assert_array_equal(labels, [0, 0])
    assert found[1][0]["input_ids"].shape == (1, 12)
    assert {value.dtype for value in inputs.values()} == {np.dtype(np.int32)}


def test_every_batch_of_an_epoch_is_as_wide_as_a_bucket() -> None:
    lengths = LENGTHS[:200].tolist()
    buckets = fine_buckets(512)
    examples = make_examples(lengths)
    plan = training_plan(examples.lengths, 16, 0, 0)
    widths = {inputs["input_ids"].shape[1] for inputs, _ in batches(examples, plan, buckets).as_numpy_iterator()}
    assert widths <= set(buckets.lengths)
    assert len(widths) > 3


def test_texts_are_tokenized_cleaned_and_cut_as_the_worker_does(base: Path) -> None:
    tokenizer = open_checkpoint(str(base)).review_tokenizer(Cut(head=3, tail=3), ["line-breaks"])
    reviews = [LabelledReview(0, "good<br />film", 1), LabelledReview(1, "the plot was very very bad", 0)]
    told: list[int] = []
    examples = tokenize(reviews, tokenizer, told.append)
    rows = np.split(examples.ids, np.cumsum(examples.lengths)[:-1])
    wanted = tokenizer.encode([review.text for review in reviews])
    for row, token_row in zip(rows, wanted, strict=True):
        np.testing.assert_array_equal(row, token_row.ids)
    assert examples.lengths.tolist() == [4, 6]
    assert examples.labels.tolist() == [1, 0]
    assert examples.truncated == 1
    assert sum(told) == 2


@pytest.mark.parametrize("cut", [Cut(head=2, tail=2), Cut(head=3, tail=1), Cut(head=2, tail=3), Cut(head=3, tail=3)])
def test_a_shorter_reading_is_what_the_tokenizer_makes_with_the_shorter_cut(base: Path, cut: Cut) -> None:
    checkpoint = open_checkpoint(str(base))
    texts = ["good", "the plot was very very bad", "good film", "bad", "the film was good but the plot was very bad"]
    reviews = [LabelledReview(row, text, row % 2) for row, text in enumerate(texts)]
    whole = tokenize(reviews, checkpoint.review_tokenizer(Cut(head=3, tail=3), []), numbers=[1.0, 2.0])
    wanted = tokenize(reviews, checkpoint.review_tokenizer(cut, []), numbers=[1.0, 2.0])
    found = shortened(whole, cut)
    for name in ("ids", "lengths", "labels", "ratings"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert found.ids.dtype == wanted.ids.dtype
    assert found.truncated == wanted.truncated
