"""Evaluation of an exported artefact."""

import json
from pathlib import Path

import pytest
from sklearn.metrics import accuracy_score, log_loss

from toy import Program, toy_rows, write_csv
from trainer.calibrate import wilson
from trainer.data import LabelledReview
from trainer.evaluate import evaluate, read_folder
from trainer.labels import labels_of
from trainer.progress import Reporter
from trainer.scoring import open_model
from worker.errors import UsageError


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    # Of R's binom::binom.wilson, and of Newcombe 1998, table I.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_the_interval_is_wilsons(right: int, count: int, low: float, high: float) -> None:
    interval = wilson(right, count)
    assert interval.low == pytest.approx(low, abs=1e-4)
    assert interval.high == pytest.approx(high, abs=1e-4)


def test_the_figures_are_those_of_the_predictions(program: Program, exported: Path, toy_data: Path) -> None:
    ended = program(
        "evaluate", exported.parent, "--data", toy_data, "--engine", "tensorflow", "--precision", "float32", "--json"
    )
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["accuracy"] >= 0.95
    assert found["model"]["name"] == "toy"
    assert (found["data"], found["split"], found["reviews"], found["refused"]) == ("toy", "test", 60, 0)
    assert sum(map(sum, found["confusion"])) == 60
    diagonal = sum(found["confusion"][index][index] for index in range(2))
    assert found["accuracy"] == diagonal / 60
    assert found["accuracy_interval"]["low"] < found["accuracy"] <= found["accuracy_interval"]["high"]
    assert [found["labels"][name]["reviews"] for name in ("negative", "positive")] == [30, 30]
    assert set(found["averages"]) == {"macro avg", "weighted avg"}
    assert (found["engine"], found["precision"]) == ("tensorflow", "float32")
    assert found["tokens"] > 60 * 3


def test_loss_and_accuracy_are_scikit_learns(exported: Path, toy_data: Path) -> None:
    with open_model(exported, "auto", "float32") as model:
        data = read_folder(toy_data, "validation", model.artifact.manifest.labels)
        found = evaluate(model, data, Reporter())
        texts = [review.text for review in data.reviews]
        shares = [share for answers in model.score(texts, at_once=7) for share in answers.probabilities]
    truth = [review.label for review in data.reviews]
    assert found.loss == pytest.approx(log_loss(truth, shares), abs=1e-6)
    assert found.accuracy == accuracy_score(truth, [share.argmax() for share in shares])


def test_a_person_gets_tables_and_the_report_goes_to_its_file(
    program: Program, exported: Path, toy_data: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    ended = program("evaluate", exported, "--data", toy_data, "--split", "validation", "--out", report)
    assert ended.code == 0, ended.err
    for expected in ("accuracy", "95 % interval", "precision", "weighted avg", "true \\ predicted", "reviews/s"):
        assert expected in ended.out
    assert json.loads(report.read_text(encoding="utf-8"))["split"] == "validation"


def test_a_csv_is_read_row_by_row_and_refused_rows_are_named(program: Program, exported: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "new.csv", [*toy_rows(20, 3), ("hm", "unsure")])
    ended = program("evaluate", exported, "--data", path, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["data"], found["split"], found["reviews"], found["refused"]) == ("new.csv", None, 20, 1)
    assert "row 20 (line 22): unknown label 'unsure'" in ended.err


def test_other_spellings_of_a_csv_are_given(program: Program, exported: Path, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("good film", "thumbs up"), ("bad film", "thumbs down")])
    spec = "negative=thumbs down,positive=thumbs up"
    ended = program("evaluate", exported, "--data", path, "--labels", spec, "--json")
    assert json.loads(ended.out)["confusion"] == [[1, 0], [0, 1]]
    other = program("evaluate", exported, "--data", path, "--labels", "bad=thumbs down,good=thumbs up")
    assert other.code == 2
    assert "--labels names bad, good; the model's labels are negative, positive" in other.err


def test_labels_in_another_order_or_case_are_matched_by_name(toy_data: Path) -> None:
    straight = read_folder(toy_data, "test", ["negative", "positive"])
    turned = read_folder(toy_data, "test", ["POSITIVE", "neg"])
    assert [review.label for review in turned.reviews] == [1 - review.label for review in straight.reviews]


@pytest.mark.parametrize("names", [["negative", "neutral", "positive"], ["LABEL_0", "LABEL_1"], ["negative", "meh"]])
def test_other_labels_than_the_models_are_refused(toy_data: Path, names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"its labels are negative, positive; the model's are "):
        read_folder(toy_data, "test", names)


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (("nothere", "--data", "{data}"), 1, "no such model folder"),
        (("{model}", "--data", "nothere"), 2, "nothere: no such folder or file"),
        (("{model}", "--data", "{data}", "--split", "dev"), 2, "--split"),
        (("{model}", "--data", "{data}", "--engine", "abacus"), 2, "--engine"),
        (("{model}", "--data", "{model}"), 1, "info.json"),
        (("{model}", "--data", "{data}", "--out", "/proc/nothing/report.json"), 1, "cannot be written"),
    ],
)
def test_a_users_mistake_is_one_line_and_its_exit_code(
    program: Program, exported: Path, toy_data: Path, arguments: tuple[str, ...], code: int, fault: str
) -> None:
    ended = program("evaluate", *(argument.format(model=exported, data=toy_data) for argument in arguments))
    assert ended.code == code
    assert fault in ended.err
    assert "Traceback" not in ended.err


def test_an_altered_artefact_is_not_evaluated(program: Program, exported: Path, toy_data: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(exported, tmp_path / "1"))
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    ended = program("evaluate", copy, "--data", toy_data)
    assert ended.code == 1
    assert "model.safetensors does not match the manifest" in ended.err


def test_answers_keep_the_order_of_the_texts_whatever_the_pieces(exported: Path) -> None:
    texts = [text for text, _ in toy_rows(23, 9)]
    with open_model(exported, "auto", "float32") as model:
        told: list[int] = []
        pieces = [share for answers in model.score(texts, told.append, at_once=5) for share in answers.probabilities]
        whole = [share for answers in model.score(texts) for share in answers.probabilities]
        assert list(model.score([])) == []
    assert told[-1] == 23
    for piece, one in zip(pieces, whole, strict=True):
        assert piece == pytest.approx(one, abs=1e-5)


def test_the_usual_spellings_come_with_the_models_own_names() -> None:
    assert LabelledReview(0, "x", 1).label == labels_of(["negative", "positive"]).index("pos")
