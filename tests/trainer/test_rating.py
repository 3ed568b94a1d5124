"""Regression: what one output learns, and what is written of it."""

from pathlib import Path

import numpy as np
import pytest

from toy import BAD, GOOD, OTHER, Program, write_csv
from trainer.checkpoint import with_labels
from trainer.rating import Ratings, as_classifier, ratings_of
from trainer.run import read_history
from worker.bert_config import BertConfig
from worker.errors import UsageError
from worker.network import Bert

CONFIG = BertConfig(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    initializer_range=0.5,
)


def test_ratings_are_the_labels_numbers_with_the_moments_of_the_training_reviews() -> None:
    ratings = ratings_of({"1": 10, "2.5": 0, "4": 30})
    assert ratings.values == (1.0, 2.5, 4.0)
    assert ratings.mean == pytest.approx(3.25)
    assert ratings.spread == pytest.approx(1.299, abs=1e-3)
    np.testing.assert_allclose(ratings.standard[:, 0] * ratings.spread + ratings.mean, ratings.values, rtol=1e-6)


@pytest.mark.parametrize("counts", [{"bad": 1, "good": 1}, {"1": 1, "1.0": 1}, {"1": 1, "nan": 1}])
def test_labels_that_are_no_numbers_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="--task regression: the labels must be different numbers"):
        ratings_of(counts)


def test_the_figures_are_in_the_unit_of_the_ratings() -> None:
    ratings = ratings_of({"1": 1, "2": 1, "3": 1, "4": 1, "5": 1})
    error = ratings.error(0.25, 0.4, {"1": 2, "2": 0, "3": 0, "4": 0, "5": 2})
    assert error.mae == pytest.approx(0.4 * 2**0.5)
    assert error.rmse == pytest.approx(0.5 * 2**0.5)
    assert error.r2 == pytest.approx(1 - 0.5 / 4)
    assert ratings.error(0.25, 0.4, {"1": 5, "2": 0, "3": 0, "4": 0, "5": 0}).r2 == 0


def test_the_classifier_gives_each_label_its_share_under_a_normal_error() -> None:
    network = Bert(with_labels(CONFIG, ("rating",)))
    ids = np.random.default_rng(0).integers(0, 20, (16, 7)).astype(np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    raw = np.asarray(network(inputs))
    network.classifier.kernel.assign(network.classifier.kernel.numpy() / raw.std())
    network.classifier.bias.assign([-raw.mean() / raw.std()])
    ratings = Ratings((1.0, 2.0, 3.0, 4.0, 5.0), mean=3.2, spread=1.1)
    variance = 0.4
    shown = as_classifier(network, with_labels(CONFIG, ("1", "2", "3", "4", "5")), ratings, variance)
    rating = 3.2 + 1.1 * np.asarray(network(inputs)).astype(np.float64)
    logits = np.asarray(shown(inputs)).astype(np.float64)
    found = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    density = np.exp(-((rating - np.array(ratings.values)) ** 2) / (2 * variance * 1.1**2))
    np.testing.assert_allclose(found, density / density.sum(axis=1, keepdims=True), atol=1e-4)
    nearest = np.abs(rating - np.array(ratings.values)).argmin(axis=1)
    np.testing.assert_array_equal(found.argmax(axis=1), nearest)
    assert len(set(nearest.tolist())) > 1, "the inputs' ratings must differ"


def starred(count: int, seed: int) -> list[tuple[str, str]]:
    """A star for each good word among two, and one."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        good = number % 3
        words = [*rng.choice(GOOD, good), *rng.choice(BAD, 2 - good), *rng.choice(OTHER, int(rng.integers(1, 6)))]
        rng.shuffle(words)
        rows.append((" ".join(words), str(good + 1)))
    return rows


def test_a_rating_is_learned_exported_and_predicted(program: Program, base: Path, tmp_path: Path) -> None:
    train_csv, test_csv = (write_csv(tmp_path / f"{n}.csv", starred(n, n)) for n in (240, 60))
    data, run = tmp_path / "data", tmp_path / "run"
    prepared = program("prepare", "--train", train_csv, "--test", test_csv, "--out", data, "--labels", "1,2,3")
    assert prepared.code == 0, prepared.err
    options = ("--epochs", 10, "--batch-size", 16, "--learning-rate", 3e-3, "--precision", "float32")
    ended = program("train", data, "--base", base, "--out", run, "--task", "regression", *options)
    assert ended.code == 0, ended.err
    assert "regression on 1 to 3, one output" in ended.err
    assert "off by" in ended.err
    best = read_history(run).best
    assert best is not None
    assert best.rating is not None
    assert best.rating.r2 > 0.7
    assert best.rating.mae < 0.4
    assert best.validation_loss == min(record.validation_loss for record in read_history(run).epochs)
    exported = program("export", run, "--out", tmp_path / "models" / "stars")
    assert exported.code == 0, exported.err
    ended = program("predict", tmp_path / "models" / "stars", "great lovely film", "awful dull film")
    assert ended.code == 0, ended.err
    assert [line.split('"')[3] for line in ended.out.splitlines()] == ["3", "1"]


def test_regression_on_names_is_one_line(program: Program, toy_data: Path, base: Path, tmp_path: Path) -> None:
    ended = program("train", toy_data, "--base", base, "--out", tmp_path / "run", "--task", "regression")
    assert ended.code == 2
    assert "these are negative, positive" in ended.err
