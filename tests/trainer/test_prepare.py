"""From two CSVs to a folder of TFRecords."""

import json
from pathlib import Path

import pytest

from toy import Program, toy_rows, write_csv
from trainer.data import LabelledReview
from trainer.info import read_info, records_file
from trainer.prepare import Sampling, draw, split, training_digest
from trainer.records import read_records


def test_rows_are_drawn_as_pandas_draws_them() -> None:
    # pandas 3: DataFrame({"i": range(20)}).sample(frac=0.5, random_state=0).i
    assert draw(20, 0.5, 0) == [18, 1, 19, 8, 10, 17, 6, 13, 4, 2]
    # pandas rounds half to even: 2 of 5 and 4 of 7
    assert [len(draw(count, 0.5, 0)) for count in (5, 7)] == [2, 4]


def test_the_notebooks_split_of_25000_reviews_is_the_notebooks() -> None:
    reviews = [LabelledReview(row, "", 0) for row in range(25_000)]
    train, validation = split(reviews, Sampling(0.2, 0.8, 0))
    # sample = df.sample(frac=0.2, random_state=0); train = sample.sample(frac=0.8, random_state=0);
    # validation = sample.drop(train.index), with pandas 3
    assert [review.row for review in train[:5]] == [8383, 4623, 19466, 6313, 6060]
    assert [review.row for review in validation[:5]] == [14149, 308, 24653, 14517, 10057]
    assert (len(train), len(validation)) == (4000, 1000)
    assert (sum(r.row for r in train), sum(r.row for r in validation)) == (50134167, 12586927)


def test_train_and_validation_share_no_row() -> None:
    reviews = [LabelledReview(row, "", 0) for row in range(101)]
    train, validation = split(reviews, Sampling(1.0, 0.7, 3))
    assert sorted(review.row for review in (*train, *validation)) == list(range(101))


def test_the_folder_holds_the_raw_texts_and_says_what_it_holds(program: Program, tmp_path: Path) -> None:
    rows = [*toy_rows(20, 1), ("<br />raw... \\' text", "pos"), ("?", "unknown"), ("", "neg")]
    train, test = write_csv(tmp_path / "train.csv", rows), write_csv(tmp_path / "test.csv", toy_rows(6, 2))
    out = tmp_path / "data"
    ended = program("prepare", "--train", train, "--test", test, "--out", out)
    assert ended.code == 0, ended.err
    assert ended.out == f"{out}\n"
    assert f"refused: {train}: row 21 (line 23): unknown label '?'".replace("'?'", "'unknown'") in ended.err
    assert f"refused: {train}: row 22 (line 24): text is empty" in ended.err
    assert "21 reviews, 2 rows refused" in ended.err

    info = read_info(out)
    assert info.labels == ("negative", "positive")
    assert (info.sources["train"].name, info.sources["train"].reviews, info.refused) == ("train.csv", 21, 2)
    assert info.data_digest == training_digest(out)
    assert str(tmp_path) not in (out / "info.json").read_text(encoding="utf-8")
    read = {name: read_records(records_file(out, name)) for name in ("train", "validation", "test")}
    assert {name: len(reviews) for name, reviews in read.items()} == {"train": 17, "validation": 4, "test": 6}
    texts = {review.row: review.text for review in (*read["train"], *read["validation"])}
    assert texts == {row: text for row, (text, _) in enumerate(rows[:21])}
    assert [review.row for review in read["test"]] == list(range(6))


def test_the_same_call_gives_the_same_bytes_and_another_seed_others(
    program: Program, toy_csvs: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = toy_csvs
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        program("prepare", "--train", train, "--test", test, "--out", tmp_path / name, "--seed", seed)
    names = ("info.json", "train.tfrecord", "validation.tfrecord", "test.tfrecord")
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "train.tfrecord").read_bytes() != (tmp_path / "c" / "train.tfrecord").read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)


def test_json_is_the_info_file(program: Program, toy_csvs: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = toy_csvs
    ended = program("prepare", "--train", train, "--test", test, "--out", tmp_path / "a", "--json")
    assert json.loads(ended.out) == json.loads((tmp_path / "a" / "info.json").read_text(encoding="utf-8"))


def test_three_labels_come_from_the_csv(program: Program, tmp_path: Path) -> None:
    rows = [(f"text {number}", str(number % 5 + 1)) for number in range(50)]
    train, test = write_csv(tmp_path / "train.csv", rows), write_csv(tmp_path / "test.csv", rows[:10])
    ended = program(
        "prepare", "--train", train, "--test", test, "--out", tmp_path / "d", "--labels", "bad=1=2,neutral=3,good=4=5"
    )
    assert ended.code == 0, ended.err
    info = read_info(tmp_path / "d")
    assert info.labels == ("bad", "neutral", "good")
    assert info.splits["test"].labels == {"bad": 4, "neutral": 2, "good": 4}


def test_an_existing_folder_is_kept_unless_forced_and_a_foreign_one_always(
    program: Program, toy_csvs: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = toy_csvs
    call = ("prepare", "--train", train, "--test", test, "--out")
    out, foreign = tmp_path / "data", tmp_path / "home"
    assert program(*call, out).code == 0
    before = (out / "info.json").read_bytes()
    again = program(*call, out, "--seed", 5)
    assert again.code == 2
    assert again.err.strip() == f"error: {out}: exists already; --force replaces it"
    assert (out / "info.json").read_bytes() == before
    assert program(*call, out, "--seed", 5, "--force").code == 0
    assert (out / "info.json").read_bytes() != before
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    assert program(*call, foreign, "--force").code == 2
    assert (foreign / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--sample-fraction", "0"), "--sample-fraction must be above 0"),
        (("--train-fraction", "1"), "--train-fraction between 0 and 1"),
        (("--labels", "one"), "at least two are needed"),
        (("--sample-fraction", "0.004"), "leave no review"),
    ],
)
def test_options_that_cannot_be_meant_exit_2_and_leave_nothing(
    program: Program, toy_csvs: tuple[Path, Path], tmp_path: Path, options: tuple[str, str], fault: str
) -> None:
    train, test = toy_csvs
    ended = program("prepare", "--train", train, "--test", test, "--out", tmp_path / "d", *options)
    assert ended.code == 2
    assert fault in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_only_unknown_labels_exit_2_with_what_is_accepted(program: Program, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [("a", "5"), ("b", "4")])
    ended = program("prepare", "--train", train, "--test", train, "--out", tmp_path / "d")
    assert ended.code == 2
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith(f"error: {train}: has no row with a known label, of 2; accepted: negative/neg/0")
    assert not (tmp_path / "d").exists()


def test_test_reviews_that_are_trained_on_are_counted(program: Program, tmp_path: Path) -> None:
    rows = toy_rows(30, 1)
    train = write_csv(tmp_path / "train.csv", rows)
    test = write_csv(tmp_path / "test.csv", [*rows[:2], *toy_rows(4, 99)])
    ended = program("prepare", "--train", train, "--test", test, "--out", tmp_path / "d")
    assert ended.code == 0
    assert "note: 2 test reviews are also trained or validated on" in ended.err


def test_a_label_without_a_training_review_is_refused(program: Program, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", [(f"text {number}", "pos") for number in range(20)])
    ended = program("prepare", "--train", train, "--test", train, "--out", tmp_path / "d")
    assert ended.code == 2
    assert "no review labelled 'negative' to train on" in ended.err


def test_an_unwritable_place_is_one_line_and_leaves_nothing(
    program: Program, toy_csvs: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = toy_csvs
    (tmp_path / "file").write_text("not a folder")
    ended = program("prepare", "--train", train, "--test", test, "--out", tmp_path / "file" / "data")
    assert ended.code == 1
    assert "cannot be written" in ended.err
    assert "Traceback" not in ended.err
