"""Permissions: of files and folders that libraries make for their owner alone, and that a worker which runs as another
user has to read."""

import os
from pathlib import Path

FILE, FOLDER = 0o666, 0o777


def give_usual_rights(path: Path) -> None:
    """Those that any other new file or folder has here."""
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    path.chmod((FOLDER if path.is_dir() else FILE) & ~mask)
