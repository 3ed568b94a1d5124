"""Training on a toy set: it learns, it repeats, it keeps the best, and it says what is wrong."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from toy import Program, edit_json
from trainer.dataset import batches, fine_buckets, reading_plan, tokenize
from trainer.info import read_info
from trainer.job import build_network, plan_job
from trainer.prepared import read_split
from trainer.progress import Reporter
from trainer.run import read_history
from trainer.settings import read_settings, settings_from
from worker.bert_config import parse_config
from worker.network import Bert
from worker.weights import load_weights

QUICK = ("--epochs", 1, "--batch-size", 16, "--learning-rate", 3e-3, "--precision", "float32")


def test_a_tiny_model_learns_a_separable_toy_set(trained: Path) -> None:
    history = read_history(trained)
    assert len(history.epochs) == 6
    best = history.best
    assert best is not None
    assert best.validation_accuracy >= 0.95
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert all(record.seconds > 0 and record.reviews_per_second > 0 for record in history.epochs)


def test_the_run_folder_says_all_that_was_chosen(trained: Path, toy_data: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {
        "config.json",
        "data.txt",
        "history.json",
        "info.json",
        "model.safetensors",
        "settings.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    settings = read_settings(trained)
    assert settings.base == "tiny-base"
    assert (settings.precision, settings.max_tokens, settings.learning_rate) == ("float32", 40, 3e-3)
    assert read_info(trained) == read_info(toy_data)
    config = json.loads((trained / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "negative", "1": "positive"}


def test_the_weights_kept_are_those_of_the_best_epoch(trained: Path, toy_data: Path, base: Path) -> None:
    settings = read_settings(trained)
    job = plan_job(settings.model_copy(update={"base": str(base)}), toy_data, Reporter())
    network = Bert(parse_config((trained / "config.json").read_bytes(), "config.json"))
    load_weights(network, trained / "model.safetensors")
    reviews = read_split(toy_data, "validation", job.info)
    tokenizer = job.checkpoint.review_tokenizer(job.cut, settings.cleaning)
    examples = tokenize(reviews, tokenizer)
    plan = reading_plan(examples.lengths, 16)
    right = sum(
        int((np.asarray(network(inputs, training=False)).argmax(-1) == labels).sum())
        for inputs, labels in batches(examples, plan, fine_buckets(40)).as_numpy_iterator()
    )
    best = read_history(trained).best
    assert best is not None
    assert right / len(reviews) == pytest.approx(best.validation_accuracy, abs=1e-6)


def test_one_step_changes_every_variable(toy_data: Path, base: Path) -> None:
    settings = settings_from(base=str(base), epochs=1, warmup=0.0, precision="float32")
    job = plan_job(settings, toy_data, Reporter())
    network, fresh = build_network(job)
    assert fresh == ("classifier",)
    before = {variable.path: np.array(variable.numpy()) for variable in network.trainable_variables}
    network.make_train_function()
    network.train_function(iter(batches(job.training[-1], job.plans[0][:1], job.buckets)))
    for variable in network.trainable_variables:
        assert (variable.numpy() != before[variable.path]).any(), variable.path


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    program: Program, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        ended = program("train", toy_data, "--base", base, "--out", tmp_path / name, *QUICK, "--seed", seed)
        assert ended.code == 0, ended.err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_run_says_first_what_it_will_do_and_at_the_end_how_it_went(
    program: Program, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = program("train", toy_data, "--base", base, "--out", out, *QUICK)
    assert ended.out == f"{out}\n"
    lines = {line.split()[0]: line for line in ended.err.splitlines()}
    assert "CPU" in lines["device"] or "GPU" in lines["device"]
    assert "parameters; starts fresh: classifier" in lines["network"]
    assert "192 reviews to train on, 48 to validate; none is longer than 40 tokens" in lines["data"]
    assert "1 x 12 of 16" in lines["batches"]
    assert "% padding" in lines["batches"]
    assert "AdamW at 0.003" in lines["optimizer"]
    assert lines["time"].split()[1] == "about"
    assert "validation loss" in lines["epoch"]
    assert "than estimated" in lines["took"]
    assert "review-trainer export" in lines["next"]
    assert "Warning" not in ended.err


def test_a_finished_run_is_a_base_and_its_classifier_is_trained_further(
    program: Program, toy_data: Path, trained: Path, tmp_path: Path
) -> None:
    ended = program("train", toy_data, "--base", trained, "--out", tmp_path / "more", *QUICK, "--learning-rate", 1e-9)
    assert "parameters; its classifier is trained further" in ended.err
    before, after = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "more"))
    np.testing.assert_allclose(after["classifier.weight"], before["classifier.weight"], atol=1e-6)


def test_a_classifier_for_other_labels_starts_fresh_and_it_is_said(
    program: Program, toy_data: Path, trained: Path, tmp_path: Path
) -> None:
    """As many labels, in another order: it would begin with every answer wrong."""
    swapped = Path(shutil.copytree(trained, tmp_path / "swapped"))
    edit_json(swapped / "config.json", id2label={"0": "positive", "1": "negative"})
    ended = program("train", toy_data, "--base", swapped, "--out", tmp_path / "run", *QUICK, "--learning-rate", 1e-9)
    assert "starts fresh: classifier, since the checkpoint's is for positive, negative" in ended.err
    before, after = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "run"))
    assert not np.allclose(after["classifier.weight"], before["classifier.weight"], atol=1e-3)
    np.testing.assert_allclose(after["bert.pooler.dense.weight"], before["bert.pooler.dense.weight"], atol=1e-6)


def test_of_a_checkpoint_without_a_classifier_it_is_not_said_what_that_is_for(
    program: Program, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    """Its config.json may name labels all the same."""
    named = Path(shutil.copytree(base, tmp_path / "named"))
    edit_json(named / "config.json", architectures=["BertModel"], id2label={"0": "bad", "1": "good"})
    ended = program("train", toy_data, "--base", named, "--out", tmp_path / "run", *QUICK)
    assert "parameters; starts fresh: classifier\n" in ended.err


@pytest.mark.parametrize(
    "options",
    [
        ("--precision", "mixed_bfloat16"),
        ("--precision", "mixed_float16"),
        ("--optimizer", "adam", "--clip-norm", 0),
        ("--max-tokens", 8, "--cut", "head", "--cleaning", "newlines,line-breaks"),
        pytest.param(("--xla",), marks=pytest.mark.slow),
    ],
)
def test_every_way_of_computing_trains(
    program: Program, toy_data: Path, base: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    ended = program("train", toy_data, "--base", base, "--out", tmp_path / "run", *QUICK, *options)
    assert ended.code == 0, ended.err
    assert read_history(tmp_path / "run").epochs[0].loss < 0.8
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"float32"}


def test_an_existing_run_is_kept_unless_forced(
    program: Program, trained: Path, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = (run / "model.safetensors").read_bytes()
    ended = program("train", toy_data, "--base", base, "--out", run, *QUICK)
    assert ended.code == 2
    assert ended.err.strip() == f"error: {run}: exists already; --force replaces it"
    assert (run / "model.safetensors").read_bytes() == before
    assert program("train", toy_data, "--base", base, "--out", run, *QUICK, "--force").code == 0
    assert len(read_history(run).epochs) == 1


def test_a_mistake_found_before_training_leaves_the_earlier_run_alone(
    program: Program, trained: Path, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    ended = program("train", toy_data, "--base", base, "--out", run, "--max-tokens", 41, "--force")
    assert ended.code == 2
    assert "--max-tokens 41: the network reads at most 40" in ended.err
    assert len(read_history(run).epochs) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (("nothere", "--base", "{base}"), 1, "review-trainer prepare"),
        (("{data}", "--base", "./nothere"), 1, "no such folder"),
        (("{data}", "--base", "{base}", "--epochs", "0"), 2, "--epochs"),
        (("{data}", "--base", "{base}", "--precision", "int4"), 2, "--precision"),
        (("{data}", "--base", "{base}", "--cleaning", "emoji"), 2, "unknown cleaning rule 'emoji'"),
        (("{data}",), 2, "--base"),
    ],
)
def test_a_users_mistake_is_one_line_and_its_exit_code(
    program: Program, toy_data: Path, base: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, fault: str
) -> None:
    filled = [argument.format(data=toy_data, base=base) for argument in arguments]
    ended = program("train", *filled, "--out", tmp_path / "run")
    assert ended.code == code
    assert fault in ended.err
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_a_number_ends_the_run_with_advice(
    program: Program, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["bert.pooler.dense.bias"][0] = np.nan
    save_file(tensors, broken / "model.safetensors")
    ended = program("train", toy_data, "--base", broken, "--out", tmp_path / "run", *QUICK)
    assert ended.code == 1
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("error: the loss is not a number since step ")
    assert "--learning-rate" in last
    assert not (tmp_path / "run" / "model.safetensors").exists()
