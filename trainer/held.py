"""Reviews held back from training: what a temperature is fitted on, and where a run's own lie on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainer.baseline import find_score
from trainer.evaluate import Labelled, read_folder
from trainer.evaluation import Score
from trainer.folders import replace_file
from trainer.info import INFO, DataInfo, Split, read_info
from worker.errors import UsageError

PLACE = "data.txt"
"""In a run folder: where its data lay. Never part of an artefact."""


@dataclass(frozen=True)
class Held:
    """Labelled reviews.

    Attributes:
        data: the reviews.
        source: the CSV that their row numbers belong to.
        baseline: what `baseline` reached on them, where it was run.
    """

    data: Labelled
    source: str
    baseline: Score | None


@contextmanager
def data_noted(run: Path, data: Path) -> Iterator[None]:
    """Note in a run folder, when the block ends in whatever way, where the run's data lies."""
    try:
        yield
    finally:
        if run.is_dir():
            replace_file(run / PLACE, f"{data.resolve()}\n")


def held_of_run(run: Path, given: Path | None, info: DataInfo) -> Held | None:
    """The validation split that a run was validated on; see `folder_of_run`."""
    folder = folder_of_run(run, given, info)
    return None if folder is None else held_of_folder(folder, "validation", info.labels)


def folder_of_run(run: Path, given: Path | None, info: DataInfo) -> Path | None:
    """The data that a run was trained on.

    Args:
        run: the run's folder.
        given: where its data lies, as the user says; where the run noted it, if absent.
        info: the run's own `info.json`.

    Returns:
        None where the data is not there any more, or was prepared anew.

    Raises:
        UsageError: the folder given is not the run's data.
        DataError: it does not agree with its own `info.json`.
    """
    folder = given or _remembered(run)
    if folder is None or read_info(folder).data_digest == info.data_digest:
        return folder
    if given is None:
        return None
    raise UsageError(f"--data {given}: is not the data that {run} was trained on; `review-trainer calibrate` takes any")


def _remembered(run: Path) -> Path | None:
    try:
        folder = Path((run / PLACE).read_text(encoding="utf-8").rstrip("\n"))
    except (OSError, UnicodeDecodeError):
        return None
    return folder if (folder / INFO).is_file() else None


def held_of_folder(folder: Path, split: Split, labels: tuple[str, ...]) -> Held:
    """A split of prepared data for a model with these labels; see `read_folder` for errors."""
    data, info = read_folder(folder, split, labels), read_info(folder)
    source = info.sources["test" if split == "test" else "train"].name
    return Held(data, source, find_score(folder, split, data.digest))
