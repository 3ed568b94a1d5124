"""Artefacts: what `export` and `import` write, and who can read it."""

import csv
import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from safetensors.numpy import load_file

from toy import Program, drop_tensors, edit_json
from trainer import export
from trainer.export import export_run
from trainer.info import read_info
from trainer.progress import Reporter
from trainer.run import read_history
from worker.artifact import open_artifact, versions
from worker.errors import ArtifactError

FILES = {
    "README.md",
    "config.json",
    "fingerprint.pb",
    "model.safetensors",
    "saved_model.pb",
    "tokenizer.json",
    "tokenizer_config.json",
    "variables/variables.data-00000-of-00001",
    "variables/variables.index",
}
REPORT = {"curves.svg", "report.html", "report.md", "run.json"}
SCORED = {"confusion.svg", "length.svg", "reliability.svg", "roc-pr.svg", "scores.svg"}
"""Of the report, where the data of the run was at hand."""

BARE = ("--no-calibrate", "--no-report")


@pytest.fixture(scope="module")
def imported(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.import_folder(
        str(tiny_folder),
        tmp_path_factory.mktemp("imported") / "tiny",
        cut="head+tail",
        max_tokens=None,
        cleaning=["line-breaks"],
        labels=None,
    )


def test_an_exported_run_is_an_artefact_that_the_worker_opens(exported: Path, trained: Path) -> None:
    artifact = open_artifact(exported.parent)
    manifest = artifact.manifest
    assert artifact.folder == exported
    assert (manifest.name, manifest.version) == ("toy", 1)
    assert manifest.labels == ("negative", "positive")
    assert (manifest.cut.head, manifest.cut.tail) == (11, 29)
    assert manifest.cleaning == ("ellipses", "escaped-quotes", "newlines", "line-breaks")
    assert manifest.base == "tiny-base"
    assert manifest.data_digest == read_info(trained).data_digest
    best = read_history(trained).best
    assert best is not None
    assert manifest.metrics["validation_accuracy"] == best.validation_accuracy
    assert {"keras", "python", "tensorflow"} <= manifest.libraries.keys()
    assert {path for path in manifest.files if not path.startswith("report/")} == FILES
    report = {path.removeprefix("report/") for path in manifest.files if path.startswith("report/")}
    assert report in (REPORT, REPORT | SCORED)


def test_the_weights_of_the_artefact_are_the_runs(exported: Path, trained: Path) -> None:
    wanted, found = (load_file(folder / "model.safetensors") for folder in (trained, exported))
    assert wanted.keys() == found.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor, err_msg=name)


def test_each_export_is_the_next_version_and_leaves_nothing_else(
    program: Program, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "models" / "toy"
    for number in (1, 2):
        ended = program("export", trained, "--out", out, *BARE)
        assert ended.code == 0, ended.err
        assert ended.out == f"{out / str(number)}\n"
    (out / "9").mkdir()
    (out / "9" / "note").write_text("kept")
    assert program("export", trained, "--out", out, *BARE).out == f"{out / '10'}\n"
    assert sorted(path.name for path in out.iterdir()) == ["1", "10", "2", "9"]
    assert open_artifact(out).manifest.version == 10


def test_two_exports_at_once_get_a_version_each(imported: Path, tmp_path: Path, trained: Path) -> None:
    out = tmp_path / "toy"
    threads = [Thread(target=export_run, args=(trained, out, Reporter())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in versions(out)] == ["1", "2"]
    assert [open_artifact(path).manifest.version for path in versions(out)] == [1, 2]


def test_a_version_that_appears_meanwhile_is_stepped_over(
    monkeypatch: pytest.MonkeyPatch, trained: Path, tmp_path: Path
) -> None:
    out = tmp_path / "toy"
    verify = export._verify

    def slow(folder: Path, network: object) -> None:
        (out / "1").mkdir()
        (out / "1" / "taken").touch()
        verify(folder, network)  # type: ignore[arg-type]

    monkeypatch.setattr(export, "_verify", slow)
    assert export_run(trained, out, Reporter(), calibrate=False, report=False) == out / "2"
    assert open_artifact(out).manifest.version == 2


def test_a_broken_export_is_never_published(
    monkeypatch: pytest.MonkeyPatch, program: Program, trained: Path, tmp_path: Path
) -> None:
    written = export.write_saved_model

    def faulty(folder: Path, network: object, temperature: float) -> None:
        network.classifier.bias.assign_add([0.1, 0.0])  # type: ignore[attr-defined]
        written(folder, network, temperature)  # type: ignore[arg-type]
        network.classifier.bias.assign_add([-0.1, 0.0])  # type: ignore[attr-defined]

    monkeypatch.setattr(export, "write_saved_model", faulty)
    ended = program("export", trained, "--out", tmp_path / "toy", *BARE)
    assert ended.code == 1
    assert "logits differ from the network's by 0.1" in ended.err
    assert list((tmp_path / "toy").iterdir()) == []


def test_a_run_without_a_finished_epoch_cannot_be_exported(program: Program, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "history.json").unlink()
    ended = program("export", run, "--out", tmp_path / "m")
    assert ended.code == 1
    assert "stopped before the end of its first epoch" in ended.err
    assert not (tmp_path / "m").exists()


def test_an_interrupted_run_is_exported_with_a_word(program: Program, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    edit_json(run / "settings.json", epochs=9)
    ended = program("export", run, "--out", tmp_path / "m", *BARE)
    assert ended.code == 0
    assert "this run stopped after epoch 6 of 9; its best is exported" in ended.err


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("models/two words", "is no model name"),
        ("models/-x", "is no model name"),
        ("file", "is a file; give MODELS/NAME"),
        ("models/toy/1", "is a version itself"),
    ],
)
def test_a_place_that_cannot_hold_versions_exits_2(
    program: Program, exported: Path, trained: Path, tmp_path: Path, place: str, fault: str
) -> None:
    (tmp_path / "file").touch()
    shutil.copytree(exported.parent, tmp_path / "models" / "toy")
    ended = program("export", trained, "--out", tmp_path / place)
    assert ended.code == 2
    assert fault in ended.err


def test_an_imported_folder_keeps_weights_and_labels(imported: Path, tiny_folder: Path) -> None:
    manifest = open_artifact(imported).manifest
    assert manifest.labels == ("negative", "neutral", "positive")
    assert (manifest.cut.head, manifest.cut.tail) == (17, 47)
    assert manifest.cleaning == ("line-breaks",)
    assert (manifest.base, manifest.data_digest, manifest.metrics) == ("tiny-bert-3-labels", None, {})
    wanted, found = (load_file(folder / "model.safetensors") for folder in (tiny_folder, imported))
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, wanted[name].astype(np.float32), err_msg=name)


def test_import_takes_other_labels_cut_and_cleaning(program: Program, tiny_folder: Path, tmp_path: Path) -> None:
    options = ("--labels", "bad,fair,good", "--cut", "head", "--max-tokens", 20, "--cleaning", "newlines,line-breaks")
    ended = program("import", tiny_folder, "--out", tmp_path / "tiny", *options)
    assert ended.code == 0, ended.err
    manifest = open_artifact(tmp_path / "tiny").manifest
    assert manifest.labels == ("bad", "fair", "good")
    assert (manifest.cut.head, manifest.cut.tail) == (19, 1)
    assert manifest.cleaning == ("newlines", "line-breaks")


@pytest.mark.parametrize(
    ("options", "code", "fault"),
    [
        (("--labels", "bad,good"), 2, "--labels names 2, "),
        (("--max-tokens", "65"), 2, "the network reads at most 64"),
        (("--cleaning", "emoji"), 2, "unknown cleaning rule 'emoji'"),
    ],
)
def test_an_import_that_does_not_fit_is_one_line(
    program: Program, tiny_folder: Path, tmp_path: Path, options: tuple[str, str], code: int, fault: str
) -> None:
    ended = program("import", tiny_folder, "--out", tmp_path / "tiny", *options)
    assert ended.code == code
    assert fault in ended.err
    assert not (tmp_path / "tiny").exists()


def test_a_checkpoint_without_a_head_cannot_be_imported(program: Program, base: Path, tmp_path: Path) -> None:
    ended = program("import", base, "--out", tmp_path / "m")
    assert ended.code == 1
    assert "has no tensor classifier.weight" in ended.err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "is a BertForMaskedLM; BertForSequenceClassification is what can be"),
        ({"architectures": ["BertForTokenClassification"]}, "is a BertForTokenClassification; "),
        ({"problem_type": "multi_label_classification"}, r"not choose one of several labels \(multi label class"),
        ({"id2label": {"0": "score"}}, r"does not choose one of several labels \(1 output\)"),
    ],
)
def test_a_head_for_something_else_is_not_taken_for_a_classifier(
    tiny_folder: Path, tmp_path: Path, fields: dict[str, object], fault: str
) -> None:
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    (source / "config.json").chmod(0o644)
    edit_json(source / "config.json", **fields)
    with pytest.raises(ArtifactError, match=fault):
        export.import_folder(str(source), tmp_path / "m", cut="head", max_tokens=None, cleaning=[], labels=None)
    assert not (tmp_path / "m").exists()


def test_a_read_only_source_is_enough(tiny_folder: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    for path in (*source.iterdir(), source):
        path.chmod(path.stat().st_mode & ~0o222)
    folder = export.import_folder(str(source), tmp_path / "m", cut="head", max_tokens=None, cleaning=[], labels=None)
    assert open_artifact(folder).manifest.version == 1
    assert folder.stat().st_mode & 0o700 == 0o700


def test_the_card_says_what_the_model_is(exported: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: transformers\nlicense: unknown\n")
    assert "\npipeline_tag: text-classification\n" in card
    assert "| 1 | positive |" in card
    assert "Fine-tuned from `tiny-base` on 192 labelled reviews" in card
    assert "| validation accuracy | " in card
    assert "the first 11 and the last 29" in card


def test_transformers_reads_config_and_tokenizer(exported: Path, imported: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(exported)
    assert config.model_type == "bert"
    assert config.id2label == {0: "negative", 1: "positive"}
    assert config.num_labels == 2
    for folder, texts in (
        (exported, ["The film was GOOD!", "[SEP] bad [MASK]", ""]),
        (imported, ["the movie was great", "[CLS] boring", "zz Qq the film"]),
    ):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ours = open_artifact(folder).tokenizer().encode(texts)
        for text, row in zip(texts, ours, strict=True):
            found = tokenizer(text)
            assert found["input_ids"] == row.ids.tolist(), text
            assert set(found) == {"input_ids", "token_type_ids", "attention_mask"}
        assert (tokenizer.pad_token, tokenizer.model_max_length) == (
            "[PAD]",
            json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"],
        )


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_transformers_computes_the_golden_logits_from_the_artefact(imported: Path, tiny_folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(imported).eval()
    tokenizer = AutoTokenizer.from_pretrained(imported)
    for example in json.loads((tiny_folder / "golden.json").read_text(encoding="utf-8"))["examples"]:
        with torch.no_grad():
            logits = model(**tokenizer(example["text"], return_tensors="pt")).logits[0].numpy()
        np.testing.assert_allclose(logits, example["logits"], atol=1e-4)


@pytest.mark.slow
def test_saved_model_cli_shows_the_contracts_signature(exported: Path) -> None:
    cli = Path(sys.executable).with_name("saved_model_cli")
    command = [cli, "show", "--dir", exported, "--tag_set", "serve", "--signature_def", "serving_default"]
    shown = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    ).stdout
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert f"inputs['{name}'] tensor_info:\n      dtype: DT_INT32\n      shape: (-1, -1)" in shown
    assert "outputs['logits'] tensor_info:\n      dtype: DT_FLOAT\n      shape: (-1, 2)" in shown
    assert "outputs['probabilities'] tensor_info:\n      dtype: DT_FLOAT\n      shape: (-1, 2)" in shown
    assert "Method name is: tensorflow/serving/predict" in shown


@pytest.mark.slow
def test_the_reference_model_keeps_pytorchs_logits_through_import(shared: Path, tmp_path: Path) -> None:
    from trainer.serving import run_saved_model

    source = shared / "models" / "minilm-l6-imdb"
    folder = export.import_folder(
        str(source), tmp_path / "imdb", cut="head+tail", max_tokens=None, cleaning=["line-breaks"], labels=None
    )
    artifact = open_artifact(folder)
    assert (artifact.manifest.cut.head, artifact.manifest.cut.tail) == (129, 383)
    examples = json.loads((source / "golden.json").read_text(encoding="utf-8"))["examples"][:8]
    with gzip.open(shared / "data" / "imdb" / "test.csv.gz", "rt", encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in islice(csv.DictReader(file), len(examples))]
    rows = [row.ids for row in artifact.tokenizer().encode(texts)]
    found = run_saved_model(folder, rows)
    np.testing.assert_allclose(found, [example["logits"] for example in examples], atol=1e-4)


def test_a_checkpoint_without_a_pooler_cannot_be_imported(tiny_folder: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_folder, tmp_path / "source"))
    (source / "model.safetensors").chmod(0o644)
    drop_tensors(source, "bert.pooler")
    with pytest.raises(ArtifactError, match=r"has no tensor bert\.pooler"):
        export.import_folder(str(source), tmp_path / "m", cut="head", max_tokens=None, cleaning=[], labels=None)
