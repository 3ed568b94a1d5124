"""Labelled reviews from a CSV: good rows and refused ones, each with its number and reason; and texts without labels.

In: a CSV in UTF-8 with the columns `text` and `sentiment`, plain or gzip. Out: a `LabelledFile`. Or a CSV with `text`
alone, or a text a line: a `TextFile`.
"""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from schemas.review import MAX_TEXT_CHARACTERS
from trainer.labels import Labels
from worker.artifact import digest_file
from worker.errors import UsageError

TEXT, LABEL = "text", "sentiment"
LINES = (".txt", ".txt.gz")
"""How the name of a file with a text a line ends."""
UNKNOWN_LABEL = "unknown label"
GZIP_MAGIC = b"\x1f\x8b"
FIELD_LIMIT = 1 << 30
"""Characters. The csv module stops at 131,072 of its own accord; a longer field is ours to refuse, row by row."""


@dataclass(frozen=True, slots=True)
class LabelledReview:
    """One review.

    Attributes:
        row: its number in the CSV; the first row below the header is 0.
        text: as it was written; cleaning comes with tokenization, as in serving.
        label: index of its label.
        rating: the number that was given, where labels are numbers and it is none of theirs.
    """

    row: int
    text: str
    label: int
    rating: float | None = None


def given_ratings(reviews: Sequence[LabelledReview], numbers: Sequence[float]) -> NDArray[np.float64]:
    """The number that was given to each review, (reviews,), where labels stand for `numbers`."""
    return np.array([numbers[review.label] if review.rating is None else review.rating for review in reviews])


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row that cannot be used.

    Attributes:
        row: its number; the first row below the header is 0.
        lines: first and last line of the file that it stands on, from 1; quoted text may hold newlines.
        reason: never holds the text.
    """

    row: int
    lines: tuple[int, int]
    reason: str

    def __str__(self) -> str:
        first, last = self.lines
        at = f"line {first:,}" if first == last else f"lines {first:,} to {last:,}"
        return f"row {self.row:,} ({at}): {self.reason}"


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One CSV, read.

    Attributes:
        name: file name without its folder.
        sha256: of the file as it lies on the disk.
        reviews: the good rows, in their order.
        refused: number of rows that were left out.
    """

    name: str
    sha256: str
    reviews: list[LabelledReview]
    refused: int


def read_labelled(path: Path, labels: Labels, refuse: Callable[[Refusal], None]) -> LabelledFile:
    """Read a CSV of labelled reviews.

    Args:
        path: plain or gzip, told apart by content.
        labels: the accepted labels.
        refuse: called once for every row that is left out.

    Raises:
        UsageError: the file cannot be read, is not a CSV in UTF-8, lacks a column, or has no row that can be used.
    """
    good: list[LabelledReview] = []
    refusals: list[Refusal] = []
    with _reading(path):
        digest = digest_file(path).sha256
        with _open(path) as file:
            for found in _rows(path, file, labels):
                if isinstance(found, LabelledReview):
                    good.append(found)
                else:
                    refusals.append(found)
                    refuse(found)
    if not good:
        raise UsageError(f"{path}: {_why_nothing(refusals, labels)}")
    return LabelledFile(path.name, digest, good, len(refusals))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can be wrong with a file as such into one line."""
    csv.field_size_limit(FIELD_LIMIT)
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: broken gzip file: {error}; a whole .csv or .csv.gz is accepted") from None
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from None


def _open(path: Path) -> IO[str]:
    """The file as text. Bytes that are not UTF-8 become lone surrogates, so that only their own row is refused."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UsageError(f"{path}: is UTF-16; save it as UTF-8")
    zipped = start[:2] == GZIP_MAGIC
    if path.suffix == ".gz" and not zipped:
        raise UsageError(f"{path}: named .gz, but its content is not gzip")
    if zipped:
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _rows(path: Path, file: IO[str], labels: Labels) -> Iterator[LabelledReview | Refusal]:
    reader = csv.reader(file)
    header = next(reader, None)
    if header is None:
        raise UsageError(f"{path}: is empty; a header with the columns {TEXT} and {LABEL} and rows are expected")
    text_at, label_at = _columns(path, header)
    row, last_line = 0, reader.line_num
    for fields in reader:
        lines, last_line = (last_line + 1, reader.line_num), reader.line_num
        if not fields:  # a blank line is no row, as in pandas
            continue
        if len(fields) != len(header):
            yield Refusal(row, lines, f"has {len(fields)} columns, the header has {len(header)}")
        else:
            text, value = fields[text_at], fields[label_at]
            found = labels.read(value)
            fault = _text_fault(text)
            if fault is not None:
                yield Refusal(row, lines, fault)
            elif found is None:
                yield Refusal(row, lines, f"{UNKNOWN_LABEL} {_shown(value)}; accepted: {labels.accepted}")
            else:
                yield LabelledReview(row, text, *found)
        row += 1


def _columns(path: Path, header: list[str]) -> tuple[int, int]:
    """Where text and label stand."""
    names = [name.strip() for name in header]
    if not all(name.isprintable() for name in names):
        raise UsageError(f"{path}: is not text in UTF-8; a CSV with the columns {TEXT} and {LABEL} is accepted")
    for wanted in (TEXT, LABEL):
        if names.count(wanted) != 1:
            found = ", ".join(_shown(name) for name in names)
            fault = "has no column" if wanted not in names else "has more than one column"
            raise UsageError(f"{path}: {fault} {wanted!r}; found {found}; needed are {TEXT} and {LABEL}")
    return names.index(TEXT), names.index(LABEL)


def _text_fault(text: str) -> str | None:
    """Why the worker would not score this text either; None where it would."""
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate: see _open
        return "text is not UTF-8"
    if "\0" in text:
        return "text holds a NUL character"
    if not text.strip():
        return "text is empty"
    if len(text) > MAX_TEXT_CHARACTERS:
        return f"text has {len(text):,} characters, at most {MAX_TEXT_CHARACTERS:,} are accepted; an open quote?"
    return None


def _shown(value: str, limit: int = 40) -> str:
    """A value in quotes, escaped and cut, so that a terminal shows it safely."""
    return ascii(value if len(value) <= limit else f"{value[:limit]}...")


def _why_nothing(refusals: list[Refusal], labels: Labels) -> str:
    if not refusals:
        return f"has a header and no rows; rows with {TEXT} and {LABEL} are expected"
    if all(refusal.reason.startswith(UNKNOWN_LABEL) for refusal in refusals):
        return f"has no row with a known label, of {len(refusals):,}; accepted: {labels.accepted} (see --labels)"
    return f"has no row that can be used, of {len(refusals):,}; the first: {refusals[0]}"


@dataclass(frozen=True, slots=True)
class TextFile:
    """One file of texts, read.

    Attributes:
        name: file name without its folder.
        sha256: of the file as it lies on the disk.
        texts: the good ones, in their order.
        refused: number of rows that were left out.
    """

    name: str
    sha256: str
    texts: list[str]
    refused: int


def read_texts(path: Path, refuse: Callable[[Refusal], None]) -> TextFile:
    """Read texts without labels: the column `text` of a CSV, whatever others it has, or every line of a `.txt`.

    Args:
        path: plain or gzip, told apart by content.
        refuse: called once for every row that is left out; a blank line is none.

    Raises:
        UsageError: the file cannot be read, is not in UTF-8, lacks the column, or has no text that can be used.
    """
    texts: list[str] = []
    refused = 0
    with _reading(path):
        digest = digest_file(path).sha256
        with _open(path) as file:
            found = _lines(file) if path.name.lower().endswith(LINES) else _texts(path, file)
            for row, (lines, text, misfit) in enumerate(found):
                fault = misfit or _text_fault(text)
                if fault is None:
                    texts.append(text)
                else:
                    refused += 1
                    refuse(Refusal(row, lines, fault))
    if not texts:
        raise UsageError(f"{path}: has no text that can be used, of {refused:,}")
    return TextFile(path.name, digest, texts, refused)


def _lines(file: IO[str]) -> Iterator[tuple[tuple[int, int], str, str | None]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield (number, number), line.rstrip("\r\n"), None


def _texts(path: Path, file: IO[str]) -> Iterator[tuple[tuple[int, int], str, str | None]]:
    """Of each row the lines that it stands on, its text, and why it does not fit the header, where it does not."""
    reader = csv.reader(file)
    header = [name.strip() for name in next(reader, [])]
    if header.count(TEXT) != 1:
        found = ", ".join(_shown(name) for name in header[:10]) or "nothing"
        raise UsageError(
            f"{path}: a CSV with one column {TEXT!r} is needed, others are passed over; found {found}; a file with a "
            "text a line ends in .txt"
        )
    at, last_line = header.index(TEXT), reader.line_num
    for fields in reader:
        lines, last_line = (last_line + 1, reader.line_num), reader.line_num
        if len(fields) == len(header):
            yield lines, fields[at], None
        elif fields:
            yield lines, "", f"has {len(fields)} columns, the header has {len(header)}"
