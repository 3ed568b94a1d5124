"""The disk under a run: whether it can be written and has the room, asked before anything is computed, and what is
written brought down to it."""

import os
import shutil
import tempfile
from pathlib import Path

from trainer.folders import writing
from trainer.progress import size
from worker.errors import ReviewScorerError


def check_writable(out: Path) -> None:
    """Check that a folder can be made or changed.

    Raises:
        ReviewScorerError: it cannot; says why.
    """
    with writing(out), tempfile.TemporaryFile(dir=_standing(out)) as file:
        file.write(b"\0")
        file.flush()


def check_room(out: Path, needed: int) -> None:
    """Check that `needed` bytes are free where `out` will be.

    Raises:
        ReviewScorerError: they are not.
    """
    free = shutil.disk_usage(_standing(out)).free
    if free < needed:
        raise ReviewScorerError(
            f"{out}: the run needs about {size(needed)} for weights and checkpoints, {size(free)} are free there"
        )


def sync(path: Path) -> None:
    """Bring a file's content, or a folder's names, down to the disk: what is renamed before that may be empty after a
    loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _standing(out: Path) -> Path:
    """`out`, or the nearest above it that is there."""
    return next(path for path in (out, *out.absolute().parents) if path.exists())
