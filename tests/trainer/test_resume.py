"""A run that is ended at any point and goes on comes to the same bytes as one that never was."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from forked import Forked
from toy import Program, StopAfter, edit_json, toy_rows, write_csv
from trainer import fit, interrupt, train
from trainer.errors import TrainingError
from trainer.interrupt import InterruptedRun
from trainer.progress import Reporter
from trainer.run import History, read_history
from trainer.settings import TrainSettings, settings_from
from trainer.train import Conduct

CHECKPOINT = "checkpoint.safetensors"
ALL = {"accumulate": 2, "average": 0.9, "layer_decay": 0.8, "class_weights": "balanced", "first_tokens": (8,)}
"""Everything that keeps a state of its own between two steps."""


@pytest.fixture(scope="module")
def base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one layer only: what a run here costs is the making of its graph."""
    folder = Path(shutil.copytree(base, tmp_path_factory.mktemp("shallow") / base.name))
    edit_json(folder / "config.json", num_hidden_layers=1)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 reviews to train on, 6 to validate."""
    from trainer.labels import DEFAULT_SPEC, parse_labels
    from trainer.prepare import Sampling, read_splits, write_folder

    folder = tmp_path_factory.mktemp("few")
    train_csv, test_csv = (write_csv(folder / f"{seed}.csv", toy_rows(30, seed)) for seed in (1, 2))
    labels, sampling = parse_labels(DEFAULT_SPEC), Sampling(1.0, 0.8, 0)
    splits, sources = read_splits(train_csv, test_csv, labels, sampling, lambda *_: None)
    write_folder(folder / "data", splits, sources, labels, sampling, force=False)
    return folder / "data"


def quick(base: Path, **more: Any) -> TrainSettings:
    asked = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32", "max_tokens": 12} | more
    return settings_from(base=str(base), **asked)


def go(settings: TrainSettings, data: Path, out: Path, **conduct: Any) -> History:
    return train.train(settings, data, out, force=False, reporter=Reporter(), conduct=Conduct(**conduct))


def timeless(history: History) -> list[dict[str, Any]]:
    return [record.model_dump(exclude={"seconds", "reviews_per_second"}) for record in history.epochs]


@pytest.mark.timeout(600)
def test_a_run_that_stops_wherever_it_can_comes_to_the_same_bytes(
    few: Path, base: Path, tmp_path: Path, stop_after: Callable[[int], None]
) -> None:
    settings = quick(base, **ALL)
    whole = go(settings, few, tmp_path / "whole")
    stops, history = 0, None
    while history is None:
        stop_after(1)
        try:
            history = go(settings, few, tmp_path / "parts", resume=True)
        except InterruptedRun:
            stops += 1
    assert stops == 5, "behind steps 2 and 3 of both epochs, and between the epochs"
    assert timeless(history) == timeless(whole)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_that_are_ended_at_random_come_to_the_same_bytes(
    program: Program, few: Path, base: Path, tmp_path: Path
) -> None:
    asked = ("train", few, "--base", base, "--epochs", 12, "--batch-size", 8, "--learning-rate", 3e-3)
    asked = (*asked, "--precision", "float32", "--max-tokens", 12, "--average", 0.9)
    assert program(*asked, "--out", tmp_path / "whole").code == 0
    parts = tmp_path / "parts"
    asked = (*asked, "--out", parts, "--resume", "--checkpoint-minutes", 0)
    rng = random.Random(5)  # noqa: S311 - moments, not secrets
    ended = []
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        before = _stamp(parts / CHECKPOINT)
        with Forked(tmp_path, *asked) as forked:
            forked.until(lambda before=before: _stamp(parts / CHECKPOINT) != before)  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.03))
            code = forked.end(number)
        if code == 0:  # on a busy machine it may be done before the signal comes
            break
        ended.append(code)
        assert "Traceback" not in forked.err
        assert ("the same command with --resume goes on from there" in forked.err) is (number != signal.SIGKILL)
        if number == signal.SIGINT:
            assert forked.err.strip().splitlines()[-1] == "interrupted"
    assert ended == [-9, 143, 130, -9][: len(ended)]
    assert len(ended) > 1
    last = program(*asked)
    assert last.code == 0, last.err
    assert len(ended) < 4 or "resumed" in last.err
    assert len(ended) < 4 or "epoch 1/12" in last.err, "what was done before is shown"
    assert {path.name for path in parts.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert timeless(read_history(parts)) == timeless(read_history(tmp_path / "whole"))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


def _stamp(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


@pytest.fixture(scope="module")
def stopped_once(few: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patched:
        # Behind each of three steps, before the validation and behind it, behind a step: at the sixth time it stops.
        patched.setattr(train, "Interrupt", lambda: StopAfter(5))
        with pytest.raises(InterruptedRun):
            go(quick(base), few, out)
    return out


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A run that stands behind the first step of its second epoch."""
    return Path(shutil.copytree(stopped_once, tmp_path / "run"))


KILLED_WHILE_IT_SAVES = """
import resource, signal, sys
import numpy as np
from safetensors.numpy import save_file
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
save_file({"a": np.zeros(1000)}, sys.argv[1])
"""
QUICK = ("--epochs", 2, "--batch-size", 8, "--learning-rate", 3e-3, "--precision", "float32", "--max-tokens", 12)


def test_other_settings_are_named_and_refused(
    program: Program, stopped: Path, few: Path, toy_data: Path, base: Path, tmp_path: Path
) -> None:
    before = (stopped / CHECKPOINT).read_bytes()
    ended = program("train", few, "--base", base, "--out", stopped, *QUICK, "--resume", "--warmup", 0.5, "--seed", 3)
    assert ended.code == 2
    assert "cannot go on: --warmup is 0.5 here and 0.1 there; --seed is 3 here and 0 there" in ended.err
    ended = program("train", toy_data, "--base", base, "--out", stopped, *QUICK, "--resume")
    assert ended.code == 2
    assert "the data is not that which it was begun on" in ended.err
    other = Path(shutil.copytree(base, tmp_path / "other" / base.name))
    tensors = load_file(other / "model.safetensors")
    tensors["bert.pooler.dense.bias"] = tensors["bert.pooler.dense.bias"] + np.float32(1)
    save_file(tensors, other / "model.safetensors")
    ended = program("train", few, "--base", other, "--out", stopped, *QUICK, "--resume")
    assert ended.code == 2
    assert f"the base checkpoint {other} is not that which it was begun from" in ended.err
    assert (stopped / CHECKPOINT).read_bytes() == before


def test_what_a_killed_process_left_half_written_is_cleared_away(
    program: Program, stopped: Path, few: Path, base: Path, tmp_path: Path
) -> None:
    whole = {path.name for path in stopped.iterdir()} - {CHECKPOINT}
    for name in (".model.safetensors.part", ".checkpoint.safetensors.part", ".history.json.4711"):
        (stopped / name).write_bytes(b"half")
    # Killed by the operating system in the middle of a write, as by `kill -9`, but at the same place each time.
    killed = subprocess.run([sys.executable, "-c", KILLED_WHILE_IT_SAVES, stopped / CHECKPOINT], check=False)
    assert killed.returncode == -signal.SIGXFSZ
    left = {path.name for path in stopped.iterdir()} - whole - {CHECKPOINT}
    assert len(left) == 4, "the library writes under a name of its own first"
    ended = program("train", few, "--base", base, "--out", stopped, *QUICK, "--resume")
    assert ended.code == 0, ended.err
    assert {path.name for path in stopped.iterdir()} - {CHECKPOINT} == whole


def test_a_checkpoint_that_was_altered_is_refused(program: Program, stopped: Path, few: Path, base: Path) -> None:
    path = stopped / CHECKPOINT
    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    tensors = load_file(path)
    for value in tensors.values():
        if value.size > 4:
            value.flat[3] += 1
            break
    save_file(tensors, path, metadata=header)
    ended = program("train", few, "--base", base, "--out", stopped, *QUICK, "--resume")
    assert ended.code == 1
    assert f"{path}: was altered or damaged" in ended.err
    path.write_bytes(path.read_bytes()[:500])
    ended = program("train", few, "--base", base, "--out", stopped, *QUICK, "--resume")
    assert ended.code == 1
    assert "no checkpoint that can be read" in ended.err
    path.unlink()
    ended = program("train", few, "--base", base, "--out", stopped, *QUICK, "--resume")
    assert ended.code == 1
    assert "has no checkpoint.safetensors to go on from; --force starts anew" in ended.err


def test_weights_that_are_not_the_runs_own_are_refused(program: Program, stopped: Path, few: Path, base: Path) -> None:
    (stopped / "model.safetensors").write_bytes(b"other")
    ended = program("train", few, "--base", base, "--out", stopped, *QUICK, "--resume")
    assert ended.code == 1
    assert "is not the file that the run wrote" in ended.err


def test_a_run_killed_between_its_checkpoint_and_its_weights_makes_them_again(
    few: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(quick(base, average=0.9), few, tmp_path / "whole")
    out = tmp_path / "run"

    def killed(*_: object) -> None:
        raise TrainingError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(fit, "write_history", killed)
        with pytest.raises(TrainingError, match="killed here"):
            go(quick(base, average=0.9), few, out)
    (out / "model.safetensors").unlink()
    assert timeless(go(quick(base, average=0.9), few, out, resume=True)) == timeless(whole)
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()


def test_a_finished_run_says_so_and_stays_as_it_is(program: Program, few: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    begun = program("train", few, "--base", base, "--out", out, *QUICK, "--resume")
    assert begun.code == 0, begun.err
    assert f"{out}: nothing to go on from yet; the run begins" in begun.err
    assert not (out / CHECKPOINT).exists(), "it is as large as three models, and nobody needs it any more"
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    ended = program("train", few, "--base", base, "--out", out, *QUICK, "--resume")
    assert ended.code == 0
    assert f"{out}: this run is finished; there is nothing to go on with" in ended.err
    assert ended.out == f"{out}\n"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    longer = program("train", few, "--base", base, "--out", out, *QUICK, "--resume", "--epochs", 3)
    assert longer.code == 2
    assert "--epochs is 3 here and 2 there" in longer.err


def test_a_folder_that_is_no_run_is_left_alone(program: Program, few: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ended = program("train", few, "--base", base, "--out", tmp_path, *QUICK, "--resume")
    assert ended.code == 2
    assert "holds other files" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_disk_that_fills_later_leaves_what_was_reached(
    stopped: Path, few: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from trainer import snapshot
    from worker.errors import ReviewScorerError

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    before = (stopped / CHECKPOINT).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "save_file", full)
        patched.setattr(train, "Interrupt", interrupt.Interrupt)
        with pytest.raises(ReviewScorerError, match="cannot be written: no space left on device"):
            go(quick(base), few, stopped, resume=True, every=0)
    assert (stopped / CHECKPOINT).read_bytes() == before
    assert not list(stopped.glob(".*"))


def test_too_little_room_is_told_before_anything_is_computed(
    program: Program, few: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    ended = program("train", few, "--base", base, "--out", tmp_path / "run", *QUICK)
    assert ended.code == 1
    assert "the run needs about" in ended.err
    assert "1 kB are free there" in ended.err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_never_holds_a_loss_that_is_not_a_number(few: Path, base: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    tensors["bert.pooler.dense.bias"][0] = np.nan
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(TrainingError, match="not a number since step 1 of epoch 1"):
        go(quick(broken), few, tmp_path / "run", every=0)
    assert not (tmp_path / "run").exists()


def test_a_run_that_no_longer_gets_better_stops_early_and_is_finished(
    program: Program, few: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    still = ("--epochs", 9, "--batch-size", 8, "--learning-rate", 1e-12, "--precision", "float32", "--patience", 2)
    ended = program("train", few, "--base", base, "--out", out, *still)
    assert ended.code == 0, ended.err
    history = read_history(out)
    assert history.stopped_early
    assert len(history.epochs) == (history.best_epoch or 0) + 2 < 9
    assert f"after epoch {len(history.epochs)} of 9" in ended.err
    again = program("train", few, "--base", base, "--out", out, *still, "--resume")
    assert "this run is finished" in again.err


def test_resuming_and_replacing_exclude_each_other(program: Program, few: Path, base: Path, tmp_path: Path) -> None:
    ended = program("train", few, "--base", base, "--out", tmp_path / "run", "--resume", "--force")
    assert ended.code == 2
    assert "--resume goes on with a run, --force replaces it" in ended.err
