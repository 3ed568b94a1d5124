"""`adapt`: from texts without labels to a checkpoint that has read them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from toy import BAD, GOOD, OTHER, Program, write_csv
from trainer.adapt import adapt
from trainer.adapt_job import AdaptJob, build_masked, plan_adaptation
from trainer.adapt_settings import AdaptSettings, adapt_settings_from, read_adaptation
from trainer.estimate import Speed
from trainer.interrupt import InterruptedRun
from trainer.progress import Reporter
from trainer.run import History, read_history
from trainer.train import Conduct
from worker import weights
from worker.errors import ArtifactError, ReviewScorerError

WORDS = [*GOOD, *OTHER[:10], *BAD]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of one word, said again and again: what is masked stands all around. One comes twice, one is empty."""
    rows = [(" ".join([word] * length),) for word in WORDS for length in range(8, 23)]
    return write_csv(tmp_path_factory.mktemp("texts") / "texts.csv", [*rows, rows[0], ("",)], ("text",))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """17 short texts, a line each; one is held out."""
    path = tmp_path_factory.mktemp("few") / "few.txt"
    path.write_text("\n".join(" ".join(WORDS[at % 9 : at % 9 + 3 + at // 2]) for at in range(17)))
    return path


def asked(base: Path, **more: Any) -> AdaptSettings:
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32", "length": 16} | more
    return adapt_settings_from(base=str(base), **options)


def go(settings: AdaptSettings, data: Path, out: Path, **conduct: Any) -> History:
    return adapt(settings, [data], out, force=False, reporter=Reporter(), conduct=Conduct(**conduct))


@pytest.fixture(scope="module")
def adapted(texts: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoints") / "adapted"
    go(asked(base, epochs=4, length=32), texts, out)
    return out


def test_masked_words_are_guessed_better_than_before(adapted: Path) -> None:
    history = read_history(adapted)
    assert history.before is not None
    assert history.best is not None
    assert history.before.accuracy < 0.2
    assert history.best.validation_accuracy > 0.6
    assert history.best.validation_loss < history.before.loss - 1.5


def test_what_was_read_and_how_is_kept_beside_the_weights(adapted: Path, texts: Path) -> None:
    kept = read_adaptation(adapted)

    assert kept.settings.length == 32
    assert kept.settings.base == "tiny-base"
    (source,) = kept.sources
    assert (source.name, source.refused) == (texts.name, 1)
    assert str(texts.parent) not in (adapted / "adapt.json").read_text()
    assert {path.name for path in adapted.iterdir()} == {
        "adapt.json",
        "config.json",
        "history.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_training_starts_from_it(adapted: Path, base: Path, toy_data: Path, tmp_path: Path, program: Program) -> None:
    ended = program("train", toy_data, "--base", adapted, "--out", tmp_path / "run", "--epochs", 1, "--max-tokens", 16)

    assert ended.code == 0, ended.err
    assert "adapted: 2 layers of 32" in ended.err
    assert "starts fresh: classifier" in ended.err, "and nothing else"
    table = "bert.embeddings.word_embeddings.weight"
    before, after = (load_file(folder / "model.safetensors")[table] for folder in (base, adapted))
    assert np.abs(before - after).max() > 1e-2


def test_transformers_knows_what_it_is(adapted: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(adapted)
    assert config.architectures == ["BertForMaskedLM"]
    assert config.vocab_size == len(AutoTokenizer.from_pretrained(adapted))
    assert "id2label" not in json.loads((adapted / "config.json").read_text())


def test_a_second_adaptation_goes_on_with_the_head_of_the_first(adapted: Path, texts: Path) -> None:
    job = plan_adaptation(asked(adapted, length=32), [texts], Reporter())
    network, fresh = build_masked(job)
    assert fresh == ()

    network.make_test_function()
    batches = job.validation_batches(network)
    for _ in job.validation_plan:
        network.test_function(batches)

    best = read_history(adapted).best
    assert best is not None
    found = network.get_metrics_result()
    assert float(found["loss"]) == pytest.approx(best.validation_loss, rel=1e-4), "the same words, the same network"
    wanted = sum(len(guessed) for _, guessed in job.validation_batches(network))
    assert float(found["accuracy"]) * wanted == pytest.approx(round(float(found["accuracy"]) * wanted), abs=1e-3)


def timeless(history: History) -> dict[str, Any]:
    content = history.model_dump(exclude={"seconds", "estimated_seconds"})
    for record in content["epochs"]:
        del record["seconds"], record["reviews_per_second"]
    return content


def test_an_adaptation_that_stops_wherever_it_can_comes_to_the_same_bytes(
    few: Path, base: Path, tmp_path: Path, stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = asked(base, epochs=1, minutes=7, whole_words=True)
    with monkeypatch.context() as patched:
        patched.setattr(AdaptJob, "within", lambda job, *_: job.of_steps(3))
        whole = go(settings, few, tmp_path / "whole")
        stop_after(0)
        with pytest.raises(InterruptedRun):
            go(settings, few, tmp_path / "parts", resume=True)
    # From here on this machine's pace would give other steps: those of the first call hold.
    monkeypatch.setattr(AdaptJob, "within", lambda job, *_: job.of_steps(1))
    stop_after(3)
    with pytest.raises(InterruptedRun):
        go(settings, few, tmp_path / "parts", resume=True)
    stop_after(100)
    history = go(settings, few, tmp_path / "parts", resume=True)
    assert timeless(history) == timeless(whole)
    assert read_adaptation(tmp_path / "parts").settings.steps == 3
    assert [record.epoch for record in history.epochs] == [1, 2]
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert {path.name for path in (tmp_path / "parts").iterdir()} == names
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert written[0] == written[1]


def test_minutes_become_as_many_steps_as_fit(few: Path, base: Path) -> None:
    job = plan_adaptation(asked(base, epochs=1, minutes=1), [few], Reporter())
    speed = Speed([16], [2.0], 8, 20.0)
    epoch = speed.training(job.plans[0], job.training.lengths, job.buckets)
    held = 2 * speed.validation(job.validation_plan, job.validation.lengths, job.buckets)
    assert len(epoch) == 2

    for steps in (1, 2, 3, 4, 7):
        whole, rest = divmod(steps, 2)
        found = job.within(held + whole * sum(epoch) + sum(epoch[:rest]) + 1e-6, speed)
        assert found.steps == steps
        assert found.settings.epochs == len(found.plans) == -(-steps // 2)
        assert found.settings.steps == steps
    assert job.within(0, speed).steps == 1
    twice = job.of_steps(4)
    assert sorted(np.concatenate(twice.plans[0]).tolist()) == sorted(np.concatenate(twice.plans[1]).tolist())
    assert [part.tolist() for part in twice.plans[0]] != [part.tolist() for part in twice.plans[1]]


def test_other_settings_and_other_texts_are_named_and_refused(
    program: Program, few: Path, base: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    out, other = tmp_path / "out", tmp_path / "other.txt"
    other.write_text("good film\n" + few.read_text())
    repeated = tmp_path / "repeated.csv"
    write_csv(repeated, [("good film",), ("good film",), (" ",)], ("text",))
    options = ("--batch", 8, "--rate", 3e-3, "--precision", "float32", "--length", 16)

    def call(data: Path, *more: object) -> tuple[int, str]:
        ended = program("adapt", "--base", base, "--data", data, "--data", repeated, "--out", out, *options, *more)
        return ended.code, ended.err

    stop_after(1)
    code, err = call(few, "--minutes", 0.01)
    assert code == 130
    for said in (
        ": text is empty",
        ", 1 that stood there twice left out; ",
        "its head for masked words starts fresh",
        "before      masked loss",
        "time        about",
        "the same command with --resume goes on from there",
    ):
        assert said in err
    code, err = call(few, "--minutes", 0.02, "--resume", "--whole-words")
    assert code == 2
    assert "cannot go on: --minutes is 0.02 here and 0.01 there; --whole-words is True here and False there" in err
    assert "--steps" not in err
    code, err = call(other, "--minutes", 0.01, "--resume")
    assert code == 2
    assert "the data is not that which it was begun on" in err
    code, err = call(few, "--minutes", 0.01)
    assert code == 2
    assert "exists already; --force replaces it" in err
    assert call(few, "--minutes", 1, "--epochs", 1)[0] == 2
    assert call(few, "--force", "--resume")[0] == 2


def test_a_finished_one_says_so(adapted: Path, texts: Path, base: Path, program: Program) -> None:
    before = {path.name: path.read_bytes() for path in adapted.iterdir()}
    ended = program(
        *("adapt", "--base", base, "--data", texts, "--out", adapted, "--epochs", 4, "--batch-size", 8),
        *("--learning-rate", 3e-3, "--precision", "float32", "--length", 32, "--resume"),
    )

    assert ended.code == 0, ended.err
    assert "this adaptation is finished; there is nothing to go on with" in ended.err
    assert {path.name: path.read_bytes() for path in adapted.iterdir()} == before


def test_a_mistake_is_one_line(program: Program, few: Path, base: Path, adapted: Path, tmp_path: Path) -> None:
    ratings = write_csv(tmp_path / "ratings.csv", [(1, 5.0)], ("movieId", "rating"))
    single = tmp_path / "single.txt"
    single.write_text("good film\n")
    for arguments, code, fault in (
        (("--data", ratings, "--length", 16), 2, "a CSV with one column 'text' is needed"),
        (("--data", single, "--length", 16), 1, "too few texts"),
        (("--data", few, "--length", 41), 2, "--length 41: the network reads at most 40"),
        (("--data", few, "--length", 2), 2, "--length"),
        (("--data", few, "--minutes", 0), 2, "--minutes"),
    ):
        ended = program("adapt", "--base", base, "--out", tmp_path / "out", *arguments)
        assert ended.code == code, ended.err
        assert fault in ended.err
        assert "Traceback" not in ended.err
        assert not (tmp_path / "out").exists()
    ended = program("export", adapted, "--out", tmp_path / "models")
    assert ended.code == 1
    assert "settings.json: no such file or directory; `review-trainer train` makes a run folder" in ended.err


def test_weights_that_are_not_numbers_are_told_before_anything_is_computed(
    few: Path, base: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.bias"][0] = np.nan
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(ArtifactError, match=f"{broken}: what it says of held-out texts is not a number"):
        go(asked(broken), few, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_leaves_no_half_checkpoint(
    few: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(ReviewScorerError, match="cannot be written: no space left on device"):
        go(asked(base), few, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
