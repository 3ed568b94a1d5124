"""The int8 form: what `export --int8` writes, what it measures, and when it refuses."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toy import Ended, Program
from trainer.quantize import LARGEST_LOSS, Sizes, require_accuracy, take_samples
from worker.artifact import INT8, Artifact, open_artifact
from worker.errors import ArtifactError

QUANTIZES = pytest.mark.skipif(
    any(importlib.util.find_spec(library) is None for library in ("nncf", "openvino")),
    reason="the extra `int8` is not installed",
)
BARE = ("--no-calibrate", "--no-report")
LABELS = ("negative", "positive")


@pytest.fixture(scope="module")
def ended(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Ended]:
    """`export --int8` as a process of its own: its home folder, empty before; the folder of versions; how it ended."""
    home, out = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("int8") / "toy"
    sizes = ("--calibration-reviews", "20", "--validation-reviews", "30")
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "export", str(trained), "--out", str(out), "--int8", *sizes, "--no-report"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HOME": str(home)},
    )
    return home, out, Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def quantized(ended: tuple[Path, Path, Ended]) -> Artifact:
    _, out, how = ended
    assert how.code == 0, how.err
    return open_artifact(out)


@QUANTIZES
def test_it_is_a_part_of_the_artefact_like_every_other_file(quantized: Artifact) -> None:
    assert set(INT8) <= quantized.manifest.files.keys()
    assert quantized.int8 == quantized.folder / "int8" / "model.xml"


@QUANTIZES
def test_the_manifest_says_what_it_was_made_with_and_what_it_costs(quantized: Artifact) -> None:
    found = quantized.manifest.int8
    assert found is not None
    assert (found.calibration_reviews, found.validation_reviews) == (20, 30)
    assert found.float_precision in ("bfloat16", "float32")
    assert found.float_accuracy >= 0.9
    assert found.int8_accuracy >= found.float_accuracy - LARGEST_LOSS


@QUANTIZES
def test_nothing_but_the_path_comes_out_and_both_figures_are_said(
    ended: tuple[Path, Path, Ended], quantized: Artifact
) -> None:
    _, out, how = ended
    found = quantized.manifest.int8
    assert found is not None
    assert how.out == f"{out / '1'}\n"
    assert f"accuracy on 30 validation reviews {found.float_accuracy:.4f} (" in how.err
    assert f") -> {found.int8_accuracy:.4f} (int8)" in how.err


@QUANTIZES
def test_its_makers_are_told_nothing(ended: tuple[Path, Path, Ended]) -> None:
    """Before OpenVINO and NNCF report their use over the network, they leave a number in the home folder."""
    home, _, _ = ended
    assert list(home.rglob("*openvino*")) == []


@QUANTIZES
def test_the_worker_labels_in_int8_as_in_floating_point(quantized: Artifact, toy_data: Path) -> None:
    from trainer.evaluate import read_folder
    from trainer.scoring import open_model

    texts = [review.text for review in read_folder(toy_data, "test", LABELS).reviews]
    logits = {}
    for precision in ("float32", "int8"):
        with open_model(quantized.folder, "openvino", precision) as model:
            logits[precision] = np.concatenate([answer.logits for answer in model.score(texts)])
    agreed = (logits["float32"].argmax(axis=1) == logits["int8"].argmax(axis=1)).mean()
    assert agreed >= 0.95
    assert not np.array_equal(logits["float32"], logits["int8"])


@QUANTIZES
def test_the_card_shows_both_figures(quantized: Artifact) -> None:
    card = (quantized.folder / "README.md").read_text(encoding="utf-8")
    assert "| float accuracy on validation | " in card
    assert "| int8 accuracy on validation | " in card


@QUANTIZES
def test_another_temperature_keeps_it(program: Program, quantized: Artifact, toy_data: Path) -> None:
    ended = program("calibrate", quantized.folder, "--data", toy_data, "--no-report")
    assert ended.code == 0, ended.err
    again = open_artifact(quantized.folder.parent)
    assert again.manifest.version == 2
    assert again.manifest.int8 == quantized.manifest.int8
    assert {name: again.manifest.files[name] for name in INT8} == {
        name: quantized.manifest.files[name] for name in INT8
    }


@pytest.fixture
def harmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quantization that makes a network of another mind: its logits are those of the true one, turned."""
    openvino = pytest.importorskip("openvino", reason="the extra `int8` is not installed")

    def write(artifact: Artifact, *_: object) -> None:
        from worker.engine.openvino_graph import build_graph

        graph = build_graph(artifact)
        turned = openvino.opset15.negative(graph.output("logits").get_node().input_value(0))
        turned.output(0).set_names({"logits"})
        (artifact.folder / INT8[0]).parent.mkdir()
        openvino.save_model(openvino.Model([turned], graph.get_parameters()), artifact.folder / INT8[0])

    monkeypatch.setattr("trainer.export.write_int8", write)


@QUANTIZES
@pytest.mark.usefixtures("harmed")
def test_one_that_labels_worse_is_refused_with_both_figures(program: Program, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "toy"
    ended = program("export", trained, "--out", out, "--int8", *BARE)
    assert ended.code == 1
    assert "error: --int8: not written: accuracy on 48 validation reviews would fall from " in ended.err
    assert ended.err.count("\n") == 1
    assert " (int8), by more than 0.003; export without --int8" in ended.err
    assert list(out.iterdir()) == []

    ended = program("export", trained, "--out", out, *BARE)
    assert ended.code == 0, ended.err
    assert open_artifact(out).manifest.int8 is None


@pytest.mark.parametrize(("fewer", "refused"), [(0, False), (3, False), (4, True), (-5, False)])
def test_three_reviews_in_a_thousand_are_the_limit(fewer: int, refused: bool) -> None:
    from schemas import Int8

    found = Int8(
        calibration_reviews=1,
        validation_reviews=1000,
        float_accuracy=0.934,
        float_precision="bfloat16",
        int8_accuracy=(934 - fewer) / 1000,
    )
    if refused:
        with pytest.raises(ArtifactError, match=r"from 0\.9340 \(bfloat16\) to 0\.9300 \(int8\)"):
            require_accuracy(found)
    else:
        require_accuracy(found)


@pytest.mark.parametrize("library", ["nncf", "openvino"])
def test_a_library_that_is_missing_is_one_line_before_the_work(
    program: Program, trained: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setattr("trainer.quantize.find_spec", lambda name: None if name == library else object())
    for command in (("export", trained), ("import", tiny_folder)):
        ended = program(*command, "--out", tmp_path / "m", "--int8")
        assert ended.code == 2
        assert ended.err == f"error: --int8: {library} is not installed; pip install 'review-scorer[int8]'\n"
    assert not (tmp_path / "m").exists()


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.quantize.find_spec", lambda _: object())


@pytest.mark.usefixtures("installed")
def test_a_run_whose_data_is_gone_names_the_option(program: Program, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    (run / "data.txt").unlink()
    ended = program("export", run, "--out", tmp_path / "m", "--int8", *BARE)
    assert ended.code == 2
    assert "--int8: the run's data is not at hand; --data DIR names it" in ended.err
    assert not (tmp_path / "m").exists()


@pytest.mark.usefixtures("installed")
def test_an_import_without_reviews_names_the_option(program: Program, tiny_folder: Path, tmp_path: Path) -> None:
    ended = program("import", tiny_folder, "--out", tmp_path / "m", "--int8")
    assert ended.code == 2
    assert "--int8: needs labelled reviews; --data DIR" in ended.err
    assert not (tmp_path / "m").exists()


@pytest.mark.usefixtures("installed")
def test_reviews_with_other_labels_are_refused(
    program: Program, tiny_folder: Path, toy_data: Path, tmp_path: Path
) -> None:
    ended = program("import", tiny_folder, "--out", tmp_path / "m", "--int8", "--data", toy_data)
    assert ended.code == 2
    assert "its labels are negative, positive; the model's are negative, neutral, positive" in ended.err
    assert not (tmp_path / "m").exists()


@QUANTIZES
def test_an_import_with_reviews_has_an_int8_form(
    program: Program, exported: Path, toy_data: Path, tmp_path: Path
) -> None:
    sizes = ("--calibration-reviews", 10, "--validation-reviews", 20)
    cut = ("--cleaning", "newlines,line-breaks")
    ended = program("import", exported, "--out", tmp_path / "m", "--int8", "--data", toy_data, *sizes, *cut)
    assert ended.code == 0, ended.err
    found = open_artifact(tmp_path / "m").manifest.int8
    assert found is not None
    assert (found.calibration_reviews, found.validation_reviews) == (10, 20)


def test_samples_are_the_same_each_time_and_no_more_than_there_are(toy_data: Path) -> None:
    few, again = (take_samples(toy_data, LABELS, Sizes(5, 7)) for _ in range(2))
    assert few == again
    assert (len(few.calibration), len(few.validation.reviews)) == (5, 7)
    every = take_samples(toy_data, LABELS, Sizes())
    assert (len(every.calibration), len(every.validation.reviews)) == (192, 48)
    assert set(few.calibration) < set(every.calibration)
