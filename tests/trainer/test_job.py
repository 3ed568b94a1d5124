"""What is settled before the first step."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from toy import Program, edit_json
from trainer.dataset import Buckets, Examples, Targets, batches
from trainer.errors import DataError
from trainer.job import label_weights, plan_job
from trainer.progress import Reporter
from trainer.settings import parse_class_weights, settings_from
from worker.errors import SettingsError


def test_balanced_weights_give_every_label_the_same_say_and_keep_the_scale() -> None:
    counts = {"bad": 30, "fair": 10, "good": 60}
    weights = label_weights("balanced", counts)
    assert weights is not None
    says = [weight * count for weight, count in zip(weights, counts.values(), strict=True)]
    assert says == pytest.approx([100 / 3] * 3)
    assert sum(says) == pytest.approx(100), "the mean weight of a review is 1"


def test_given_weights_are_taken_and_the_rest_count_one() -> None:
    counts = {"bad": 30, "good": 60}
    assert label_weights(parse_class_weights("good=0.5"), counts) == (1.0, 0.5)
    assert label_weights(parse_class_weights(None), counts) is None
    with pytest.raises(SettingsError, match=r"no label .fair. in the data; they are bad, good"):
        label_weights({"fair": 2.0}, counts)


@pytest.mark.parametrize("spec", ["heavy", "good=", "=2", "good=much", "", "good=1,,bad=2"])
def test_weights_that_cannot_be_read_are_one_line(spec: str) -> None:
    with pytest.raises(SettingsError, match="give `balanced`, or label=weight,label=weight"):
        parse_class_weights(spec)


@pytest.mark.parametrize("spec", ["good=0", "good=-1", "good=nan"])
def test_weights_out_of_range_are_named(spec: str) -> None:
    with pytest.raises(SettingsError, match=r"^--class-weights: "):
        settings_from(base="b", class_weights=parse_class_weights(spec))


def test_a_batch_carries_the_targets_of_its_rows_and_the_weights_of_their_labels() -> None:
    examples = Examples(np.arange(6, dtype=np.int32), np.array([2, 1, 3]), np.array([1, 0, 1], dtype=np.int32), 0)
    targets = Targets(np.array([[9.0], [-1.5], [0.5]], dtype=np.float32), np.array([3.0, 1.0], dtype=np.float32))
    [(inputs, wanted, weights)] = batches(examples, [np.array([1, 2])], Buckets((4,)), targets).as_numpy_iterator()
    assert inputs["input_ids"].tolist() == [[2, 0, 0, 0], [3, 4, 5, 0]]
    assert wanted.tolist() == [[-1.5], [0.5]]
    assert weights.tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    ("split", "labels", "fault"),
    [
        ("train", {"negative": 192, "positive": 0}, "no review to train on is labelled 'positive'"),
        ("validation", {"negative": 0, "positive": 0}, "has no review in validation"),
    ],
)
def test_data_that_nothing_can_be_learned_from_is_refused(
    toy_data: Path, base: Path, tmp_path: Path, split: str, labels: dict[str, int], fault: str
) -> None:
    from trainer.info import read_info

    data = Path(shutil.copytree(toy_data, tmp_path / "data"))
    splits = read_info(data).model_dump(mode="json")["splits"]
    splits[split] |= {"labels": labels, "reviews": sum(labels.values())}
    edit_json(data / "info.json", splits=splits)
    with pytest.raises(DataError, match=fault):
        plan_job(settings_from(base=str(base)), data, Reporter())


def test_more_batches_an_update_than_the_run_has_is_one_line(
    program: Program, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    ended = program("train", toy_data, "--base", base, "--out", tmp_path / "run", "--accumulate", 4000)
    assert ended.code == 2
    assert "--accumulate 4000: the run has only 36 batches" in ended.err


def test_class_weights_move_the_decision_to_the_rare_side(
    program: Program, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    """With one label counting a thousandfold, a step learns to say that one."""
    from trainer.run import read_history

    options = ("--epochs", 1, "--batch-size", 16, "--learning-rate", 1e-3, "--precision", "float32", "--warmup", 0)
    shares = {}
    for name in ("negative", "positive"):
        out = tmp_path / name
        ended = program("train", toy_data, "--base", base, "--out", out, *options, "--class-weights", f"{name}=1000")
        assert ended.code == 0, ended.err
        assert f"{name} 1e+03" in ended.err
        from safetensors.numpy import load_file

        shares[name] = load_file(out / "model.safetensors")["classifier.bias"]
        assert read_history(out).epochs[0].validation_loss < 100, "the validation counts all alike"
    assert shares["negative"][0] > shares["negative"][1]
    assert shares["positive"][1] > shares["positive"][0]
