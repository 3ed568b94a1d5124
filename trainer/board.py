"""TensorBoard: scalars of every step and epoch, where they are asked for."""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from worker.errors import UsageError

FOLDER = "tensorboard"
"""Of a run; `tensorboard --logdir RUN` shows it. A resumed run adds a file to those that are there."""


def require_tensorboard() -> None:
    """Check that the package is there, before anything is computed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise UsageError(
            "--tensorboard: the package tensorboard is not installed; pip install 'review-scorer[tensorboard]'"
        )


class Board:
    """Writes scalars, or nothing at all.

    Args:
        folder: to write in; None for nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is not None:
            self._writer = import_module("tensorboard.summary").Writer(str(folder))

    @property
    def open(self) -> bool:
        """Whether anything is written: a figure that nobody reads need not be fetched from the device."""
        return self._writer is not None

    def add(self, part: str, step: int, figures: Mapping[str, float]) -> None:
        """Write some scalars as `part/name`."""
        if self._writer is None:
            return
        for name, value in figures.items():
            self._writer.add_scalar(f"{part}/{name}", value, step)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._writer is not None:
            self._writer.close()
