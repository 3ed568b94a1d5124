"""TensorBoard: nothing unless asked for, and every step and epoch where it is."""

import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from toy import Program
from trainer import board
from trainer.run import read_history

QUICK = ("--epochs", 2, "--batch-size", 16, "--learning-rate", 3e-3, "--precision", "float32")


def test_without_the_package_one_line_says_how_to_get_it(
    program: Program, toy_data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "find_spec", lambda _: None)
    ended = program("train", toy_data, "--base", base, "--out", tmp_path / "run", *QUICK, "--tensorboard")
    assert ended.code == 2
    assert ended.err.strip() == (
        "error: --tensorboard: the package tensorboard is not installed; pip install 'review-scorer[tensorboard]'"
    )
    assert not (tmp_path / "run").exists()


def test_each_step_and_epoch_is_written_where_it_is_asked_for(
    program: Program, toy_data: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "run" / "tensorboard")

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            written.append((tag, value, step))

        def close(self) -> None:
            written.append(("closed", 0, 0))

    def load(name: str) -> Any:
        assert name == "tensorboard.summary"
        return SimpleNamespace(Writer=Writer)

    monkeypatch.setattr(board, "find_spec", lambda _: ModuleType("tensorboard"))
    monkeypatch.setattr(board, "import_module", load)
    ended = program("train", toy_data, "--base", base, "--out", tmp_path / "run", *QUICK, "--tensorboard")
    assert ended.code == 0, ended.err
    assert [step for tag, _, step in written if tag == "step/loss"] == list(range(1, 25))
    records = read_history(tmp_path / "run").epochs
    assert [(value, step) for tag, value, step in written if tag == "epoch/validation_loss"] == [
        (record.validation_loss, record.epoch) for record in records
    ]
    rates = [value for tag, value, _ in written if tag == "step/rate"]
    assert max(rates) == pytest.approx(3e-3, rel=0.2)
    assert rates[-1] < rates[12]
    assert written[-1][0] == "closed"


@pytest.mark.skipif(util.find_spec("tensorboard") is None, reason="the extra `tensorboard` is not installed")
def test_the_real_package_reads_what_was_written(tmp_path: Path) -> None:
    """In a process of its own: what the package warns of when it is imported is not ours."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom trainer.board import Board\n"
        "with Board(Path(sys.argv[1])) as board:\n"
        "    board.add('step', 7, {'loss': 0.25})\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "events = EventAccumulator(sys.argv[1], size_guidance={'tensors': 0})\nevents.Reload()\n"
        "[event] = events.Tensors('step/loss')\n"
        "print(event.step, event.tensor_proto.float_val[0] if event.tensor_proto.float_val else "
        "__import__('numpy').frombuffer(event.tensor_proto.tensor_content, 'float32')[0])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "events")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.stdout == "7 0.25\n", ended.stderr
