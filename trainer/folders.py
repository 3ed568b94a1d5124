"""Output folders that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.errors import ReviewScorerError, UsageError
from worker.permissions import give_usual_rights


def refuse_existing(out: Path, *, marker: str, force: bool) -> None:
    """Check that `out` may be written.

    Args:
        out: absent, or an empty folder, or with `force` a folder made by the same command.
        marker: the file that tells such a folder from any other: `--force` never removes a foreign one.
        force: replace an earlier result.

    Raises:
        UsageError: it may not; says why.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise UsageError(f"{out}: is not a folder")
    if not (out / marker).is_file():
        raise UsageError(f"{out}: holds other files; give a folder that does not exist yet")
    if not force:
        raise UsageError(f"{out}: exists already; --force replaces it")


@contextmanager
def new_folder(out: Path, *, marker: str, force: bool) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and goes when it does not.

    Raises:
        UsageError: see `refuse_existing`.
        ReviewScorerError: the disk is full or the place cannot be written.
    """
    refuse_existing(out, marker=marker, force=force)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        # A name that starts with a dot is passed over by everything that lists versions or data.
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            give_usual_rights(temporary)
            yield temporary
            if out.exists():
                shutil.rmtree(out)
            temporary.rename(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write below `out` into one line."""
    try:
        yield
    except OSError as error:
        raise ReviewScorerError(f"{out}: cannot be written: {(error.strerror or str(error)).lower()}") from None


def system_words(message: str) -> str:
    """What the operating system said, out of TensorFlow's `{{node ...}} path; No space left on device [Op:SaveV2]`."""
    return message.rpartition(";")[2].partition("[Op:")[0].strip()


def replace_file(path: Path, content: str) -> None:
    """Write a text file so that a reader finds the old content or the new, never a part.

    Raises:
        OSError: the disk is full or the place cannot be written; the old content is still there, and nothing else.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
