"""The baseline, and where it is shown."""

import json
import shutil
from pathlib import Path

import pytest

from toy import Program, edit_json, toy_rows, write_csv
from trainer.baseline import BASELINE, find_score
from trainer.info import read_info


@pytest.fixture
def data(toy_data: Path, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(toy_data, tmp_path / "data"))


def test_it_is_scored_on_both_splits_and_kept_beside_the_data(program: Program, data: Path) -> None:
    ended = program("baseline", data)

    assert ended.code == 0, ended.err
    for expected in ("validation: accuracy", "test: accuracy", "95 % interval", "precision", "weighted avg"):
        assert expected in ended.out
    assert "n-grams" in ended.err
    kept = json.loads((data / BASELINE).read_text(encoding="utf-8"))
    assert kept["data_digest"] == read_info(data).data_digest
    assert kept["converged"] is True
    assert kept["splits"]["test"]["reviews"] == 60
    assert kept["splits"]["test"]["accuracy"] > 0.9
    assert set(kept["splits"]["test"]["labels"]) == {"negative", "positive", "macro avg", "weighted avg"}
    assert kept["features"] > 100
    assert json.loads(program("baseline", data, "--json").out)["splits"] == kept["splits"]


def test_an_evaluation_stands_it_beside_the_model(program: Program, data: Path, exported: Path) -> None:
    assert json.loads(program("evaluate", exported, "--data", data, "--json").out)["baseline"] is None
    program("baseline", data)

    found = json.loads(program("evaluate", exported, "--data", data, "--json").out)

    kept = json.loads((data / BASELINE).read_text(encoding="utf-8"))
    assert found["baseline"]["accuracy"] == kept["splits"]["test"]["accuracy"]
    assert "baseline" in program("evaluate", exported, "--data", data).out


def test_a_baseline_of_other_reviews_is_not_shown(program: Program, data: Path) -> None:
    program("baseline", data)
    digest = read_info(data).splits["test"].sha256

    assert find_score(data, "test", digest) is not None
    assert find_score(data, "test", f"sha256:{0:064}") is None
    assert find_score(data, "train", digest) is None
    edit_json(data / BASELINE, format=2)
    assert find_score(data, "test", digest) is None


def test_prepared_data_with_a_baseline_is_still_whole(program: Program, data: Path) -> None:
    program("baseline", data)

    assert program("inspect", data).code == 0


@pytest.mark.parametrize(("place", "fault"), [("nothere", "no such file"), ("data/info.json", "not a directory")])
def test_what_is_no_prepared_data_is_one_line(
    program: Program, data: Path, tmp_path: Path, place: str, fault: str
) -> None:
    ended = program("baseline", tmp_path / place)

    assert ended.code == 1
    assert fault in ended.err
    assert "Traceback" not in ended.err


def test_reviews_without_a_word_are_one_line(program: Program, tmp_path: Path) -> None:
    csv = write_csv(
        tmp_path / "signs.csv", [(sign, "pos" if at % 2 else "neg") for at, sign in enumerate("!?.,;:+-" * 4)]
    )
    program("prepare", "--train", csv, "--test", csv, "--out", tmp_path / "signs")

    ended = program("baseline", tmp_path / "signs")

    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("error: the training reviews hold no word")
    assert not (tmp_path / "signs" / BASELINE).exists()


def test_three_labels_have_a_baseline_too(program: Program, tmp_path: Path) -> None:
    rows = [*toy_rows(60, 1), *((f"{text} so so", "fair") for text, _ in toy_rows(30, 2))]
    csv = write_csv(tmp_path / "three.csv", rows)
    spec = "negative=neg,fair,positive=pos"
    program("prepare", "--train", csv, "--test", csv, "--out", tmp_path / "three", "--labels", spec)

    found = json.loads(program("baseline", tmp_path / "three", "--json").out)

    assert set(found["splits"]["test"]["labels"]) == {"negative", "fair", "positive", "macro avg", "weighted avg"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_on_the_notebooks_sample_it_reaches_what_was_measured_by_hand(
    program: Program, shared: Path, tmp_path: Path
) -> None:
    csvs = ("--train", shared / "data" / "imdb" / "train.csv.gz", "--test", shared / "data" / "imdb" / "test.csv.gz")
    sample = ("--sample-fraction", 0.2, "--train-fraction", 0.8, "--seed", 0)
    assert program("prepare", *csvs, "--out", tmp_path / "imdb", *sample).code == 0

    found = json.loads(program("baseline", tmp_path / "imdb", "--json").out)

    assert found["splits"]["test"]["reviews"] == 5000
    assert found["splits"]["test"]["accuracy"] == pytest.approx(0.846, abs=0.005)
