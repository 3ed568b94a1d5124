"""Reviews from a file: JSON lines or CSV, plain or gzip, as messages like those from Kafka."""

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from worker.errors import UsageError
from worker.message import Message

STANDARD_STREAM = "-"
TEXT_COLUMN = "text"
ID_COLUMN = "review_id"

CSV_FIELD_LIMIT = 1 << 24
"""Characters. The csv module refuses fields above 131,072 unless told otherwise; the intake has the real limit."""


def read_messages(path: str) -> Iterator[Message]:
    """Every record of a file, as it came: valid or not is for the intake to say.

    A line of JSON is taken as it is. A CSV needs a column `text`; `review_id` is optional, the row's number stands in
    for it; other columns are ignored. Offsets count the records from 0.

    Args:
        path: ends in `.csv` or `.csv.gz` for CSV; anything else, and `-` for standard input, holds JSON lines.

    Raises:
        UsageError: the file cannot be read, or has no column `text`.
    """
    name = Path(path).name
    is_csv = name.removesuffix(".gz").endswith(".csv")
    try:
        with _open(path) as stream:
            values = _csv_values(stream, path) if is_csv else _lines(stream)
            for offset, value in enumerate(values):
                yield Message(topic=name, partition=0, offset=offset, key=None, value=value)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


@contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    if path == STANDARD_STREAM:
        yield sys.stdin.buffer
    elif path.endswith(".gz"):
        with gzip.open(path) as stream:
            yield stream  # type: ignore[misc]
    else:
        with Path(path).open("rb") as stream:
            yield stream


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends; blank ones are no records."""
    return (line.rstrip(b"\r\n") for line in stream if line.strip())


def _csv_values(stream: BinaryIO, path: str) -> Iterator[bytes]:
    """Each row as the JSON that it would be on the topic."""
    csv.field_size_limit(CSV_FIELD_LIMIT)
    rows = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
    try:
        columns = rows.fieldnames or []
        if TEXT_COLUMN not in columns:
            found = ", ".join(columns) or "nothing"
            raise UsageError(f"{path}: a CSV of reviews needs a column {TEXT_COLUMN!r}; its first line has: {found}")
        for number, row in enumerate(rows):
            review_id = row.get(ID_COLUMN) or f"row-{number}"
            yield json.dumps({ID_COLUMN: review_id, TEXT_COLUMN: row[TEXT_COLUMN]}, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (near byte {error.start} of a block); save it as UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{path}: line {rows.line_num}: not a readable CSV: {error}") from None
