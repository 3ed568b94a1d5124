"""Prepared data, read back."""

import json
import shutil
from pathlib import Path

import pytest

from toy import Program, edit_json
from trainer.data import LabelledReview
from trainer.errors import DataError
from trainer.prepared import read_prepared
from trainer.records import read_records, write_records


@pytest.fixture
def copy(toy_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_data, tmp_path / "copy"))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    reviews = [
        LabelledReview(7, "café \U0001f600\n<br />", 1),
        LabelledReview(2**40, "x", 0),
        LabelledReview(8, "y", 0, 3.7),
    ]
    write_records(tmp_path / "a.tfrecord", reviews)
    assert read_records(tmp_path / "a.tfrecord") == reviews


def test_records_have_the_notebooks_features(toy_data: Path) -> None:
    import tensorflow as tf

    first = next(iter(tf.data.TFRecordDataset(str(toy_data / "train.tfrecord"))))
    example = tf.train.Example.FromString(first.numpy())
    kinds = {name: feature.WhichOneof("kind") for name, feature in example.features.feature.items()}
    assert kinds == {"idx": "int64_list", "sentence": "bytes_list", "label": "int64_list"}


def test_a_whole_folder_agrees_with_its_info(toy_data: Path) -> None:
    prepared = read_prepared(toy_data)
    assert {name: len(reviews) for name, reviews in prepared.splits.items()} == {
        "train": 192,
        "validation": 48,
        "test": 60,
    }
    assert [review.label for review in prepared.examples(2)] == [0, 0, 1, 1]


def test_inspect_shows_balance_and_examples(program: Program, toy_data: Path) -> None:
    ended = program("inspect", toy_data, "--examples", 3)
    assert ended.code == 0, ended.err
    assert "validation" in ended.out
    assert "(50.0%)" in ended.out
    assert ended.out.count(" negative ") + ended.out.count(" positive ") >= 6
    assert "every file agrees with info.json" in ended.out
    assert json.loads(program("inspect", toy_data, "--json").out)["splits"]["test"]["reviews"] == 60


def test_inspect_exits_1_where_a_count_is_off(program: Program, copy: Path) -> None:
    splits = json.loads((copy / "info.json").read_text(encoding="utf-8"))["splits"]
    splits["train"]["reviews"] += 1
    edit_json(copy / "info.json", splits=splits)
    ended = program("inspect", copy)
    assert ended.code == 1
    assert "train.tfrecord: holds 192 reviews, info.json says 193" in ended.err


def test_a_label_count_that_is_off_is_found(copy: Path) -> None:
    splits = json.loads((copy / "info.json").read_text(encoding="utf-8"))["splits"]
    splits["test"]["labels"] = {"negative": 29, "positive": 31}
    edit_json(copy / "info.json", splits=splits)
    with pytest.raises(DataError, match=r"test\.tfrecord: holds 30 reviews labelled 'negative', info\.json says 29"):
        read_prepared(copy)


def test_a_changed_text_is_found_by_its_digest(copy: Path) -> None:
    reviews = read_records(copy / "train.tfrecord")
    write_records(copy / "train.tfrecord", [LabelledReview(reviews[0].row, "other", reviews[0].label), *reviews[1:]])
    with pytest.raises(DataError, match="SHA-256 is not the one"):
        read_prepared(copy)


def test_a_label_beyond_the_names_is_found(copy: Path) -> None:
    reviews = read_records(copy / "train.tfrecord")
    write_records(copy / "train.tfrecord", [LabelledReview(0, "x", 2), *reviews[1:]])
    with pytest.raises(DataError, match="holds the label 2, info"):
        read_prepared(copy)


def test_a_file_cut_short_a_strange_one_and_a_missing_one_are_told_apart(copy: Path) -> None:
    path = copy / "validation.tfrecord"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="was cut short"):
        read_prepared(copy)
    path.write_bytes(b"text,sentiment\n" * 9)
    with pytest.raises(DataError, match="is no TFRecord file"):
        read_prepared(copy)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        read_prepared(copy)


def test_records_without_the_features_are_named(copy: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(copy / "test.tfrecord")) as writer:
        writer.write(tf.train.Example().SerializeToString())
    with pytest.raises(DataError, match="lacks idx, sentence or label"):
        read_prepared(copy)


def test_a_folder_without_info_says_what_makes_one(program: Program, tmp_path: Path) -> None:
    ended = program("inspect", tmp_path)
    assert ended.code == 1
    assert "review-trainer prepare" in ended.err
    (tmp_path / "info.json").write_text("{}")
    assert "info.json: labels: Field required" in program("inspect", tmp_path).err


def test_inspect_shows_a_text_safely_and_short(program: Program, tmp_path: Path) -> None:
    from trainer.show import shortened

    assert shortened("a\x1b[31m b\n\nc‮d") == "a [31m b c d"
    assert len(shortened("word " * 99)) <= 161
