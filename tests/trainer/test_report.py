"""Reports of evaluations and of exports, and the temperature that comes with an export."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from schemas import Cut
from toy import Program, toy_rows, write_csv
from trainer import report
from trainer.evaluate import Scores
from trainer.export import export_run
from trainer.progress import Reporter
from trainer.report import lengths, read_run, train_options
from trainer.run import read_history
from trainer.serving import run_saved_model
from trainer.settings import read_settings, settings_from
from worker.artifact import open_artifact
from worker.errors import ArtifactError
from worker.verdict import probabilities

PICTURES = {"confusion.svg", "roc-pr.svg", "reliability.svg", "scores.svg", "length.svg"}
WRONG = 25


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 120 reviews, of which the first 25 carry the other label."""
    turned = {"pos": "neg", "neg": "pos"}
    rows = [(text, turned[label] if at < WRONG else label) for at, (text, label) in enumerate(toy_rows(120, 11))]
    return write_csv(tmp_path_factory.mktemp("noisy") / "noisy.csv", rows)


@pytest.fixture(scope="module")
def calibrated(exported: Path, noisy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy model as version 2, its temperature fitted on the noisy reviews."""
    from trainer.evaluate import read_csv
    from trainer.export import recalibrate
    from trainer.held import Held
    from trainer.labels import labels_of

    models = tmp_path_factory.mktemp("calibrated") / "toy"
    shutil.copytree(exported, models / "1")
    names = ("negative", "positive")
    held = Held(read_csv(noisy, labels_of(names), names, Reporter()), noisy.name, None)
    return recalibrate(models, None, lambda _: held, Reporter())


def text_of(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


# --- of an evaluation ---


def test_an_evaluation_is_written_as_markdown_pictures_and_a_page(
    program: Program, exported: Path, noisy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reports" / "noisy"
    ended = program("evaluate", exported, "--data", noisy, "--out", out)

    assert ended.code == 0, ended.err
    assert str(out / "report.html") in ended.err
    assert {path.name for path in out.iterdir()} == {"report.md", "report.html", "evaluation.json", *PICTURES}
    figures = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    written = text_of(out)
    for section in (
        "Result",
        "Labels",
        "Confidence",
        "Length",
        "Most confident mistakes",
        "Network",
        "Data",
        "Commands",
    ):
        assert f"\n## {section}\n" in written
    assert f"| accuracy | {figures['accuracy']:.4f} |" in written
    assert figures["data_digest"] in written
    assert open_artifact(exported).digest in written
    assert "review-trainer evaluate MODELS/toy/1 --data noisy.csv" in written
    for name in PICTURES:
        assert f"]({name})" in written
    assert str(tmp_path) not in written


def test_mistakes_are_named_by_row_and_their_texts_only_when_asked_for(
    program: Program, exported: Path, noisy: Path, tmp_path: Path
) -> None:
    program("evaluate", exported, "--data", noisy, "--out", tmp_path / "bare")
    program("evaluate", exported, "--data", noisy, "--out", tmp_path / "texts", "--with-texts")

    bare, texts = text_of(tmp_path / "bare"), text_of(tmp_path / "texts")
    assert f"20 of {WRONG}, by their row in noisy.csv" in bare
    table = bare.split("## Most confident mistakes")[1].split("##")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][2:]
    numbers, sure = [int(row[1]) for row in rows], [float(row[4]) for row in rows]
    assert len(set(numbers)) == 20
    assert set(numbers) <= set(range(WRONG))
    assert sure == sorted(sure, reverse=True)
    reviews = [text for text, _ in toy_rows(120, 11)]
    worst = " ".join(reviews[numbers[0]].split()[:2])
    assert worst not in table
    assert worst in texts.split("## Most confident mistakes")[1]


def test_an_earlier_report_is_replaced_only_by_force_and_nothing_else_ever(
    program: Program, exported: Path, toy_data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    call = ("evaluate", exported, "--data", toy_data, "--split", "validation", "--out")
    assert program(*call, out).code == 0
    refused = program(*call, out)
    assert (refused.code, "exists already; --force replaces it" in refused.err) == (2, True)
    assert program(*call, out, "--force").code == 0
    assert program(*call, toy_data, "--force").code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report"]


def test_without_the_extra_a_report_is_refused_before_the_work_and_an_export_goes_on(
    monkeypatch: pytest.MonkeyPatch, program: Program, trained: Path, exported: Path, toy_data: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "seaborn" else object())

    ended = program("evaluate", exported, "--data", toy_data, "--out", tmp_path / "report")
    assert ended.code == 1
    assert ended.err == "error: a report needs seaborn: pip install 'review-scorer[report]'\n"
    ended = program("export", trained, "--out", tmp_path / "toy", "--no-calibrate")
    assert ended.code == 0
    assert "no report is written: a report needs seaborn" in ended.err
    assert not any(name.startswith("report/") for name in open_artifact(tmp_path / "toy").manifest.files)


def limited(size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The program in a process that cannot write a larger file, which stands for a full disk."""
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_report(exported: Path, toy_data: Path, tmp_path: Path) -> None:
    options = ("--engine", "tensorflow", "--split", "validation")
    ended = limited(20_000, "evaluate", exported, "--data", toy_data, *options, "--out", tmp_path / "report")

    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines()[-1] == f"error: {tmp_path / 'report'}: cannot be written: file too large"
    assert list(tmp_path.iterdir()) == []


# --- of an export ---


def test_an_artefact_with_a_report_is_verified_like_any_other(calibrated: Path, tmp_path: Path) -> None:
    artifact = open_artifact(calibrated)
    assert {f"report/{name}" for name in ("report.md", "report.html", "run.json", "curves.svg", *PICTURES)} <= set(
        artifact.manifest.files
    )
    copy = Path(shutil.copytree(calibrated, tmp_path / "2"))
    with (copy / "report" / "report.md").open("a", encoding="utf-8") as file:
        file.write("better than it is\n")
    with pytest.raises(ArtifactError, match=r"report/report\.md does not match the manifest"):
        open_artifact(copy)


def test_the_report_of_an_export_tells_the_whole_way(exported: Path, trained: Path) -> None:
    written = text_of(exported / "report")
    history = read_history(trained)

    assert "| 6 (exported) |" in written or f"| {history.best_epoch} (exported)" in written.replace("\\", "")
    assert history.device.replace("_", "\\_") in written
    assert "| embeddings | 2,368 |" in written
    assert "review-trainer prepare --train train.csv --test test.csv --out DATA" in written
    assert "review-trainer train DATA --out RUN --base tiny-base --" in written
    assert "review-trainer export RUN --out MODELS/toy --data DATA" in written
    for place in (trained, exported):
        assert str(place.parent) not in written
        assert str(place.parent) not in (exported / "report" / "report.html").read_text(encoding="utf-8")
    assert open_artifact(exported).manifest.data_digest in written


def test_a_later_version_still_tells_how_it_was_trained(calibrated: Path, trained: Path) -> None:
    assert "## Training" in text_of(calibrated / "report")
    kept = read_run(calibrated / "report")
    assert kept is not None
    assert kept.settings == read_settings(trained)
    assert kept.history == read_history(trained)


def test_the_options_of_a_run_give_the_same_run(
    monkeypatch: pytest.MonkeyPatch, program: Program, trained: Path, tmp_path: Path
) -> None:
    told: list[object] = []

    class Stop(Exception):  # noqa: N818 - no fault
        pass

    def settings_of(**values: object) -> object:
        told.append(settings_from(**values))
        raise Stop

    monkeypatch.setattr("trainer.settings.settings_from", settings_of)
    settings = read_settings(trained)
    with pytest.raises(Stop):
        program("train", tmp_path, "--out", tmp_path / "run", *train_options(settings))

    assert told == [settings]


# --- the temperature ---


def test_a_temperature_is_fitted_and_the_saved_model_and_the_manifest_agree_on_it(
    calibrated: Path, exported: Path
) -> None:
    import tensorflow as tf

    before, after = open_artifact(exported).manifest, open_artifact(calibrated).manifest
    assert (before.temperature, before.version) == (1.0, 1)
    assert after.version == 2
    assert after.temperature > 2, "a model that is sure of what a fifth of the labels denies"
    assert after.metrics["validation_ece"] < after.metrics["validation_ece_uncalibrated"]
    assert after.metrics["validation_loss"] < after.metrics["validation_loss_uncalibrated"]
    assert after.metrics["validation_reviews"] == 120
    rows = [row.ids for row in open_artifact(calibrated).tokenizer().encode(["good film"])]
    logits = run_saved_model(calibrated, rows)
    np.testing.assert_allclose(logits, run_saved_model(exported, rows), atol=1e-5)
    ids = tf.constant([rows[0]])
    served = tf.saved_model.load(str(calibrated)).signatures["serving_default"](
        input_ids=ids, attention_mask=tf.ones_like(ids), token_type_ids=tf.zeros_like(ids)
    )
    np.testing.assert_allclose(served["probabilities"].numpy(), probabilities(logits, after.temperature), atol=1e-5)


def test_the_command_writes_the_next_version_and_labels_stay(
    program: Program, exported: Path, noisy: Path, tmp_path: Path
) -> None:
    shutil.copytree(exported, tmp_path / "toy" / "1")
    call = ("--data", noisy, "--no-report", "--license", "mit", "--language", "en")
    ended = program("calibrate", tmp_path / "toy", *call)

    assert ended.code == 0, ended.err
    assert ended.out == f"{tmp_path / 'toy' / '2'}\n"
    assert "expected calibration error" in ended.err
    card = (tmp_path / "toy" / "2" / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert "validation reviews | 120 |" in card
    assert "temperature fitted on 120 reviews of `noisy.csv`" in card
    assert program("calibrate", tmp_path / "toy", "--data", noisy, "--no-report").code == 0
    assert "license: mit" in (tmp_path / "toy" / "3" / "README.md").read_text(encoding="utf-8")
    texts = [text for text, _ in toy_rows(40, 5)]
    one, two = (
        [json.loads(line) for line in program("predict", tmp_path / "toy" / version, *texts).out.splitlines()]
        for version in "12"
    )
    assert [line["label"] for line in one] == [line["label"] for line in two]
    assert all(later["confidence"] < sooner["confidence"] for sooner, later in zip(one, two, strict=True))


def test_reviews_that_do_not_tell_leave_the_temperature_as_it_is(
    program: Program, trained: Path, toy_data: Path, tmp_path: Path
) -> None:
    ended = program("export", trained, "--out", tmp_path / "toy", "--data", toy_data, "--no-report")

    assert ended.code == 0, ended.err
    assert "the temperature stays 1: 48 reviews with 0 mistakes do not tell a better one" in ended.err
    manifest = open_artifact(tmp_path / "toy").manifest
    assert manifest.temperature == 1
    assert manifest.metrics["validation_accuracy"] == 1


def test_a_run_whose_data_is_gone_is_exported_with_a_word(program: Program, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "data.txt").write_text(f"{tmp_path / 'gone'}\n", encoding="utf-8")
    ended = program("export", run, "--out", tmp_path / "toy", "--no-report")
    assert ended.code == 0, ended.err
    assert "no temperature is fitted: the run's data is not at hand; --data DIR names it" in ended.err


def test_other_data_than_the_runs_is_refused(
    program: Program, trained: Path, toy_csvs: tuple[Path, Path], tmp_path: Path
) -> None:
    train, test = toy_csvs
    program("prepare", "--train", train, "--test", test, "--out", tmp_path / "other", "--seed", 5)
    ended = program("export", trained, "--out", tmp_path / "toy", "--data", tmp_path / "other")

    assert ended.code == 2
    assert "is not the data that" in ended.err
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (("nothere", "--data", "{noisy}"), 1, "no such model folder"),
        (("{model}", "--data", "nothere"), 2, "nothere: no such folder or file"),
        (("{model}", "--data", "{noisy}", "--labels", "bad=neg,good=pos"), 2, "the model's labels are"),
        (("{model}", "--data", "{noisy}", "--out", "{noisy}"), 2, "is a file; give MODELS/NAME"),
    ],
)
def test_a_users_mistake_in_calibrating_is_one_line(
    program: Program, exported: Path, noisy: Path, arguments: Sequence[str], code: int, fault: str
) -> None:
    ended = program("calibrate", *(argument.format(model=exported, noisy=noisy) for argument in arguments))

    assert ended.code == code
    assert fault in ended.err
    assert "Traceback" not in ended.err
    assert len(list(exported.parent.iterdir())) == 1


# --- by length ---


def test_every_review_is_counted_in_one_range_of_lengths() -> None:
    tokens = np.array([3, 64, 65, 128, 129, 256, 512, 512])
    scores = Scores(
        rows=np.arange(8),
        truth=np.zeros(8, dtype=np.int64),
        logits=np.array([[1.0, 0.0]] * 7 + [[0.0, 1.0]], dtype=np.float32),
        tokens=tokens,
        truncated=np.array([False] * 7 + [True]),
        computed=0,
        temperature=1.0,
        seconds=1.0,
    )

    found = lengths(scores, Cut(head=129, tail=383))

    assert [(name, reviews, accuracy) for name, reviews, accuracy, *_ in found] == [
        ("1 to 64", 2, 1.0),
        ("65 to 128", 2, 1.0),
        ("129 to 256", 2, 1.0),
        ("257 to 512", 1, 1.0),
        ("more than 512, cut", 1, 0.0),
    ]


def test_an_export_can_do_without_both(trained: Path, toy_data: Path, tmp_path: Path) -> None:
    folder = export_run(trained, tmp_path / "toy", Reporter(), data=toy_data, calibrate=False, report=False)

    manifest = open_artifact(folder).manifest
    best = read_history(trained).best
    assert best is not None
    assert manifest.metrics == {
        "validation_accuracy": best.validation_accuracy,
        "validation_loss": best.validation_loss,
    }
    assert not (folder / "report").exists()
