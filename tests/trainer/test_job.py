"""What is settled before the first step."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from toy import Program, edit_json
from trainer.dataset import Buckets, Examples, Targets, batches
from trainer.errors import DataError
from trainer.job import label_weights, plan_job, reading_line
from trainer.progress import Reporter
from trainer.report import train_options
from trainer.settings import cut_of, parse_class_weights, read_settings, settings_from
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


@pytest.mark.parametrize(
    ("first_tokens", "said"),
    [
        ((128,), "epoch 1 reads at most 128 tokens of a review, later ones up to 512"),
        ((128, 128), "epochs 1 to 2 read at most 128 tokens of a review, later ones up to 512"),
        ((64, 128, 128), "epochs 1 to 3 read at most 64, 128, 128 tokens of a review, later ones up to 512"),
    ],
)
def test_what_the_epochs_read_is_said(first_tokens: tuple[int, ...], said: str) -> None:
    assert reading_line(first_tokens, 512) == said


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


def test_a_first_epoch_reads_short_rows_and_the_model_is_written_with_the_whole_cut(
    program: Program, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    settings = settings_from(base=str(base), epochs=2, batch_size=16, max_tokens=12, first_tokens=(6,))
    job = plan_job(settings, toy_data, Reporter())
    assert [int(lengths.max()) for lengths in job.lengths] == [6, 12]
    for epoch, longest in enumerate((6, 12)):
        found = list(batches(job.training[epoch], job.plans[epoch], job.buckets).as_numpy_iterator())
        assert max(inputs["input_ids"].shape[1] for inputs, _ in found) == longest
    assert int(job.validation.lengths.max()) == 12, "it is asked what the model will be asked"
    assert job.cut == cut_of("head+tail", 12, 40)

    out = tmp_path / "run"
    short = ("--epochs", 2, "--batch-size", 16, "--max-tokens", 12, "--first-tokens", 6, "--precision", "float32")
    ended = program("train", toy_data, "--base", base, "--out", out, *short)
    assert ended.code == 0, ended.err
    assert "reading     epoch 1 reads at most 6 tokens of a review, later ones up to 12\n" in ended.err
    assert read_settings(out).first_tokens == (6,)
    options = train_options(read_settings(out))
    assert options[options.index("--first-tokens") + 1] == "6", "the model card's command makes it again"


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
