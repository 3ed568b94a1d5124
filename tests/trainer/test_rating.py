"""Regression: what one output learns, and what is written of it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toy import BAD, GOOD, OTHER, Program, write_csv
from trainer.checkpoint import with_labels
from trainer.rating import Ratings, as_classifier, rating_metrics, rating_numbers, ratings_of
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


def test_a_scale_has_the_moments_of_the_ratings_that_were_given() -> None:
    ratings = ratings_of(rating_numbers(["1", "2.5", "4"]), np.array([1.0, 3.5, 4.0, 4.0]))
    assert ratings.values == (1.0, 2.5, 4.0)
    assert ratings.mean == pytest.approx(3.125)
    assert ratings.spread == pytest.approx(1.244, abs=1e-3)
    given = np.array([1.0, 3.5])
    found = ratings.standardized(given)
    assert found.shape == (2, 1)
    np.testing.assert_allclose(found[:, 0] * ratings.spread + ratings.mean, given, rtol=1e-6)


@pytest.mark.parametrize("names", [["bad", "good"], ["1", "1.0"], ["1", "nan"], ["1", "inf"]])
def test_labels_that_are_no_numbers_are_refused(names: list[str]) -> None:
    with pytest.raises(UsageError, match="--task regression: the labels must be different numbers"):
        rating_numbers(names)


def test_the_figures_are_in_the_unit_of_the_ratings() -> None:
    ratings = ratings_of((1, 2, 3, 4, 5), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    error = ratings.error(0.25, 0.4, np.array([1.0, 1.0, 5.0, 5.0]))
    assert error.mae == pytest.approx(0.4 * 2**0.5)
    assert error.rmse == pytest.approx(0.5 * 2**0.5)
    assert error.r2 == pytest.approx(1 - 0.5 / 4)
    assert ratings.error(0.25, 0.4, np.array([3.5, 3.5])).r2 == 0


def test_the_accuracy_of_a_run_counts_a_rating_between_two_labels_as_prepare_does() -> None:
    ratings = ratings_of((1, 2, 3, 4, 5), np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    accuracy = rating_metrics(ratings)[0]
    given = ratings.standardized([3.5, 1.5, 2.4, 5.0])
    accuracy.update_state(given, ratings.standardized([4.2, 1.2, 2.0, 9.0]))
    assert float(accuracy.result()) == 0.75, "1.5 is a 2"


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


def halved(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Every third review of each star is given a half towards the others, as `2.5`, and the rest stays, as `2.0`."""
    towards = {"1": 0.5, "2": 0.5, "3": -0.5}
    return [(text, str(int(star) + towards[star] * (at // 3 % 3 == 1))) for at, (text, star) in enumerate(rows)]


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`train.csv` and `test.csv`, rated in halves from 1 to 3."""
    folder = tmp_path_factory.mktemp("stars")
    for name, count in (("train", 240), ("test", 60)):
        write_csv(folder / f"{name}.csv", halved(starred(count, count)))
    return folder


def test_a_rating_is_learned_exported_evaluated_and_served(
    program: Program, base: Path, stars: Path, tmp_path: Path
) -> None:
    data, run, models = tmp_path / "data", tmp_path / "run", tmp_path / "models" / "stars"
    csvs = ("--train", stars / "train.csv", "--test", stars / "test.csv")
    prepared = program("prepare", *csvs, "--out", data, "--labels", "1,2,3")
    assert prepared.code == 0, prepared.err
    assert "note: 102 ratings lie between two labels" in prepared.err
    options = ("--epochs", 10, "--batch-size", 16, "--learning-rate", 3e-3, "--precision", "float32")
    ended = program("train", data, "--base", base, "--out", run, "--task", "regression", *options)
    assert ended.code == 0, ended.err
    assert "regression on 1 to 3, one output" in ended.err
    assert "off by" in ended.err
    best = read_history(run).best
    assert best is not None
    assert best.rating is not None
    assert best.rating.r2 > 0.6
    assert best.rating.mae < 0.4
    assert best.validation_loss == min(record.validation_loss for record in read_history(run).epochs)

    exported = program("export", run, "--out", models)
    assert exported.code == 0, exported.err
    manifest = json.loads((models / "1" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["metrics"]["validation_mae"] < 0.4

    found = {}
    for name, source in (("folder", data), ("csv", stars / "test.csv")):
        ended = program("evaluate", models, "--data", source, "--json", "--out", tmp_path / name)
        assert ended.code == 0, ended.err
        found[name] = json.loads(ended.out)["rating"]
        written = (tmp_path / name / "report.md").read_text(encoding="utf-8")
        assert f"| mean absolute error of the rating | {found[name]['mae']:.4f} |" in written
    assert found["csv"] == found["folder"]
    assert found["csv"]["mae"] < 0.4
    assert found["csv"]["r2"] > 0.6
    assert "ratings    mean absolute error" in program("evaluate", models, "--data", data).out

    (tmp_path / "reviews.csv").write_text("text\ngreat lovely film\nawful dull film\n", encoding="utf-8")
    scored = [sys.executable, "-m", "worker", "score", tmp_path / "reviews.csv", tmp_path / "out.jsonl", "--model"]
    subprocess.run([*map(str, scored), str(models)], check=True, capture_output=True)
    served = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [
        json.loads(line)
        for line in program("predict", models, "great lovely film", "awful dull film").out.split("\n")[:2]
    ]
    for good, bad in (served, told):
        assert [good["label"], bad["label"]] == ["3", "1"]
        assert good["rating"] > 2.5 > 1.5 > bad["rating"]
        shares = good["probabilities"]
        assert good["rating"] == pytest.approx(sum(float(label) * share for label, share in shares.items()))


def test_regression_on_names_is_one_line(program: Program, toy_data: Path, base: Path, tmp_path: Path) -> None:
    ended = program("train", toy_data, "--base", base, "--out", tmp_path / "run", "--task", "regression")
    assert ended.code == 2
    assert "these are negative, positive" in ended.err
