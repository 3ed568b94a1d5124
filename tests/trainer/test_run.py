"""The folder of a run and its history."""

from pathlib import Path

import pytest

from trainer.errors import DataError
from trainer.run import EpochRecord, History, read_history, write_history


def record(epoch: int, accuracy: float, loss: float) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        loss=0.5,
        accuracy=0.8,
        validation_loss=loss,
        validation_accuracy=accuracy,
        seconds=2.0,
        reviews_per_second=30.0,
    )


def history_of(*epochs: tuple[float, float]) -> History:
    history = History(device="CPU", parameters=1, padding=0.02, estimated_seconds=5.0)
    for number, (accuracy, loss) in enumerate(epochs):
        history = history.with_epoch(record(number + 1, accuracy, loss))
    return history


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(0.7, 0.6)], 1),
        ([(0.7, 0.6), (0.8, 0.7)], 2),
        ([(0.8, 0.6), (0.7, 0.1), (0.8, 0.7)], 1),
        ([(0.8, 0.6), (0.8, 0.5)], 2),
        ([(0.8, 0.5), (0.8, 0.5)], 1),
    ],
)
def test_the_best_epoch_has_the_highest_accuracy_then_the_lowest_loss(
    epochs: list[tuple[float, float]], best: int
) -> None:
    history = history_of(*epochs)
    assert history.best_epoch == best
    assert history.best == history.epochs[best - 1]
    assert history.seconds == pytest.approx(2.0 * len(epochs))


def test_a_history_without_an_epoch_has_no_best() -> None:
    assert history_of().best is None


def test_a_history_is_read_back(tmp_path: Path) -> None:
    history = history_of((0.7, 0.6), (0.8, 0.5))
    write_history(tmp_path, history)
    assert read_history(tmp_path) == history
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]


def test_a_missing_history_says_that_no_epoch_was_finished(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="stopped before the end of its first epoch"):
        read_history(tmp_path)
    (tmp_path / "history.json").write_text('{"device": 5}')
    with pytest.raises(DataError, match=r"history\.json: device"):
        read_history(tmp_path)
