"""Stored: what the trainer keeps as JSON beside data and weights, read back."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from trainer.errors import DataError

Content = TypeVar("Content", bound=BaseModel)


def read_stored(path: Path, kind: type[Content], otherwise: str) -> Content:
    """Read one.

    Args:
        path: of the file.
        kind: what it holds.
        otherwise: what a missing file means, or what makes one; for the user.

    Raises:
        DataError: there is none, or it cannot be read; says which field.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise DataError(f"{path}: {reason.lower()}; {otherwise}") from None
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "file"
        raise DataError(f"{path}: {field}: {first['msg']}") from None
