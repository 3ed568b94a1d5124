"""Side by side with the peers: the same reviews, the same model, the same number of threads, in alternating rounds.

Each runs in a process of its own, ours with this interpreter, a peer with one that has its packages; what is missing is
skipped, and said so. Nobody is fast by being wrong: every row has its accuracy, and the share of its labels that are
ours.

    PYTHONPATH=.:tests .venv/bin/python tests/bench/peers.py --model models/imdb --data test.csv --peers /path/to/python
"""

import argparse
import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Protocol

from worker.artifact import Artifact, open_artifact
from worker.bench.place import own_place
from worker.bench.process import worker_process
from worker.bench.route import Route
from worker.bench.stream import Stream
from worker.errors import ReviewScorerError
from worker.text import cleaner

HERE = Path(__file__).parent
START_SECONDS = 900
ROUND_SECONDS = 1_800
PARTITIONS = 4

OURS = {
    "openvino int8": ("openvino", "int8"),
    "openvino bfloat16": ("openvino", "bfloat16"),
    "openvino float32": ("openvino", "float32"),
    "jax": ("jax", "auto"),
    "tensorflow": ("tensorflow", "auto"),
}
"""What the tables call our engines, in the order in which a first one is what the others are compared with."""

PEERS = {
    "openvino": "OpenVINO bfloat16, ONNX export, sorted, batches of 16",
    "torch-sorted": "PyTorch bfloat16, sorted, batches of 16",
    "torch-compiled": "the same with torch.compile",
    "torch-varlen": "PyTorch float16, variable-length flash attention",
    "onnxruntime": "ONNX Runtime float32, ONNX export, sorted, batches of 16",
    "pipeline": "transformers pipeline, as documented",
    "pipeline-batches": "transformers pipeline, batch_size=8, as documented",
}

ROUTE = "whole route, review-worker run"
PLAIN = "plain script: kafka-python, transformers pipeline, one record at a time"


@dataclass(frozen=True)
class Labelled:
    """A review, and whether it is positive: 1, or 0."""

    text: str
    label: int


@dataclass
class Row:
    """What one of them did."""

    name: str
    skipped: str | None = None
    """Why it did nothing."""
    rates: list[float] = field(default_factory=list)
    """Reviews a second, a round each."""
    labels: list[int] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The median of the rounds; 0 for one that was skipped."""
        return median(self.rates) if self.rates else 0.0


class NotHereError(Exception):
    """What is missing, or how it failed."""


class Runner(Protocol):
    """One of them, ready."""

    def round(self) -> tuple[float, list[int]]:
        """Score everything once: reviews a second, and the labels."""
        ...


Opening = Callable[[ExitStack, Row], Runner]
"""Starts one of them, to be ended with the stack, and lets it score everything once; notes on its row what is to be
told.

Raises:
    NotHereError: with the line for the table.
"""


# === Engines ===


class Child:
    """A process that answers every line with one, ours or a peer's."""

    def __init__(self, command: Sequence[str], log: Path, threads: int, reviews: int) -> None:
        self._log = log
        self._reviews = reviews
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stream, text=True
            )
        pin(self.process.pid, threads)

    def read(self) -> dict[str, Any]:
        """Its next line."""
        line = self.process.stdout.readline()
        if not line:
            said = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
            raise NotHereError(f"failed: {next((it for it in reversed(said) if it.strip()), 'it said nothing')}")
        found: dict[str, Any] = json.loads(line)
        if "skipped" in found:
            raise NotHereError(found["skipped"])
        return found

    def round(self) -> tuple[float, list[int]]:
        """See `Runner`."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        found = self.read()
        return self._reviews / found["seconds"], found["labels"]

    def end(self) -> None:
        """Its standard input ends, and it with that."""
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def pin(process: int, threads: int) -> None:
    """Everybody has so many processors, whatever their libraries think of it."""
    os.sched_setaffinity(process, sorted(os.sched_getaffinity(0))[:threads])


def open_child(command: Sequence[str], log: Path, threads: int, reviews: int) -> Opening:
    """A process that talks as `peer.py` does."""

    def opened(stack: ExitStack, row: Row) -> Runner:
        try:
            child = Child(command, log, threads, reviews)
        except OSError as error:
            raise NotHereError(f"{command[0]}: {error.strerror}") from None
        stack.callback(child.end)
        ready = child.read()
        row.versions = ready["versions"]
        row.facts = {name: value for name, value in ready.items() if name == "precision"}
        return child

    return opened


def engines(
    artifact: Artifact, reviews: Path, count: int, threads: int, peers: str | None, folder: Path
) -> dict[str, Opening]:
    """Ours and the peers', by name.

    Args:
        artifact: the model, in Hugging Face's layout too.
        reviews: a JSON list of texts.
        count: of them.
        threads: for each.
        peers: an interpreter with the peers' packages; None for none.
        folder: for their logs.
    """
    found: dict[str, Opening] = {}
    model = str(artifact.folder)
    for name, (engine, precision) in OURS.items():
        command = [sys.executable, str(HERE / "ours.py"), "--model", model, "--reviews", str(reviews)]
        command += ["--engine", engine, "--precision", precision]
        found[name] = open_child(command, folder / f"{name}.log", threads, count)
    cut = artifact.manifest.cut
    for peer, name in PEERS.items():
        if peers is None:
            found[name] = absent
            continue
        command = [peers, str(HERE / "peer.py"), peer, "--model", model, "--reviews", str(reviews)]
        command += ["--head", str(cut.head), "--tail", str(cut.tail), "--threads", str(threads)]
        found[name] = open_child(command, folder / f"{peer}.log", threads, count)
    return found


def absent(_: ExitStack, __: Row) -> Runner:
    """Of a peer without an interpreter."""
    raise NotHereError("no interpreter was given for it (PEERS=/path/to/python)")


# === Routes ===


class OurRoute:
    """A worker's process on a broker."""

    def __init__(self, route: Route, values: Sequence[bytes], labels: Sequence[str]) -> None:
        self._route = route
        self._values = values
        self._labels = labels

    def round(self) -> tuple[float, list[int]]:
        """See `Runner`."""
        backlog = self._route.backlog(self._values)
        return backlog.reviews_per_second, labels_of(backlog.records, self._labels)


class PlainRoute:
    """The plain script on a broker. It reads what is not committed too, so that it begins a little earlier."""

    def __init__(self, stream: Stream, script: subprocess.Popen[str], values: Sequence[bytes], labels: Sequence[str]):
        self._stream = stream
        self._script = script
        self._values = values
        self._labels = labels

    def round(self) -> tuple[float, list[int]]:
        """See `Runner`. From the first prediction to the last."""
        starts = self._stream.ends()
        with self._stream.hidden(self._values) as show:
            show()
        deadline = time.monotonic() + ROUND_SECONDS
        while sum(self._stream.ends().values()) - sum(starts.values()) < len(self._values):
            if self._script.poll() is not None or time.monotonic() > deadline:
                raise NotHereError("failed: it ended, or stands still")
            time.sleep(0.5)
        records = self._stream.predictions(starts)
        times = [record.timestamp / 1000 for record in records]
        return (len(times) - 1) / (max(times) - min(times)), labels_of(records, self._labels)


def warm(runner: Runner) -> Runner:
    """Behind a round that does not count."""
    runner.round()
    return runner


def labels_of(records: Sequence[Any], labels: Sequence[str]) -> list[int]:
    """Of predictions, in the order in which their reviews were published."""
    by_key = {record.key: labels.index(json.loads(record.value)["label"]) for record in records}
    return [by_key[f"k{number}".encode()] for number in range(len(by_key))]


def routes(
    artifact: Artifact, values: Sequence[bytes], threads: int, peers: str | None, address: str
) -> dict[str, Opening]:
    """Ours and the plain script's, by name."""
    flags = {"model": str(artifact.folder), "kafka": {"bootstrap_servers": address}}
    labels = artifact.manifest.labels

    def ours(stack: ExitStack, row: Row) -> Runner:
        place = stack.enter_context(own_place(None, flags, PARTITIONS))
        worker = stack.enter_context(worker_process(place))
        pin(worker.process.pid, threads)
        row.facts = {"ready_seconds": worker.ready_seconds, "precision": worker.model()["precision"]}
        return warm(OurRoute(Route(place, worker), values, labels))

    def plain(stack: ExitStack, _: Row) -> Runner:
        if peers is None:
            raise NotHereError("no interpreter was given for it (PEERS=/path/to/python)")
        kafka = stack.enter_context(own_place(None, flags, PARTITIONS)).settings.kafka
        script = stack.enter_context(
            plain_script(peers, address, kafka.group_id, kafka.input_topic, kafka.output_topic, str(artifact.folder))
        )
        return warm(PlainRoute(Stream(kafka), script, values, labels))

    @contextmanager
    def plain_script(python: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        try:
            script = subprocess.Popen(
                [python, str(HERE / "plain_script.py"), *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        except OSError as error:
            raise NotHereError(f"{python}: {error.strerror}") from None
        try:
            pin(script.pid, threads)
            if script.stdout.readline() != "ready\n":
                raise NotHereError("failed: transformers or kafka-python is not installed for it")
            yield script
        finally:
            script.terminate()
            try:
                script.wait(30)
            except subprocess.TimeoutExpired:
                script.kill()
                script.wait()
            script.stdout.close()

    return {ROUTE: ours, PLAIN: plain}


# === Rounds ===


def chosen(openings: dict[str, Opening], words: Sequence[str]) -> dict[str, Opening]:
    """Those whose name holds one of the words; all without words."""
    return {name: it for name, it in openings.items() if not words or any(word in name for word in words)}


def alternate(openings: dict[str, Opening], rounds: int, say: Callable[[str], None]) -> list[Row]:
    """Start all, one after the other, and let them score in turn; what fails in between is told and left out."""
    rows = {name: Row(name) for name in openings}
    with ExitStack() as stack:
        ready: dict[str, Runner] = {}
        for name, opening in openings.items():
            try:
                ready[name] = opening(stack, rows[name])
                say(f"ready: {name}")
            except (NotHereError, ReviewScorerError) as missing:
                rows[name].skipped = str(missing)
                say(f"skipped: {name}: {missing}")
        for number in range(1, rounds + 1):
            for name, runner in list(ready.items()):
                try:
                    rate, rows[name].labels = runner.round()
                except (NotHereError, ReviewScorerError) as missing:
                    rows[name].skipped = str(missing)
                    del ready[name]
                    continue
                rows[name].rates.append(rate)
                say(f"round {number} of {rounds}: {name}: {rate:.1f} reviews/s")
    return list(rows.values())


def times_as_fast(one: Row, *others: Row) -> float | None:
    """The median over the rounds of how many times as fast it was as the fastest of the others in the same round: what
    slows the machine down for a while slows both. None where a round of both is missing."""
    ratios = [rate / max(rates) for rate, *rates in zip(one.rates, *(it.rates for it in others), strict=False) if rates]
    return median(ratios) if ratios else None


def ours_of(rows: Sequence[Row]) -> Row | None:
    """What the others are compared with: our fastest engine that was there."""
    return max((row for row in rows if row.name in OURS and row.rates), key=lambda row: row.rate, default=None)


def table(rows: Sequence[Row], reviews: Sequence[Labelled]) -> list[str]:
    """Markdown."""
    ours = ours_of(rows)
    lines = [
        "| what | reviews/s | rounds | our fastest is | accuracy | labels as ours |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if not row.rates:
            lines.append(f"| {row.name} | - | skipped: {row.skipped} | - | - | - |")
            continue
        ratio = None if ours is None else times_as_fast(ours, row)
        times = "-" if ratio is None else f"{ratio:.2f} x"
        same = "-" if ours is None else f"{share(row.labels, ours.labels):.1%}"
        right = share(row.labels, [review.label for review in reviews])
        spread = f"{min(row.rates):,.1f} to {max(row.rates):,.1f}"
        precision = row.facts.get("precision", "")
        name = row.name if precision in row.name else f"{row.name}, {precision}"
        lines.append(f"| {name} | {row.rate:,.1f} | {spread} | {times} | {right:.1%} | {same} |")
    return lines


def share(some: Sequence[int], others: Sequence[int]) -> float:
    """Of the places where both have the same."""
    return sum(one == other for one, other in zip(some, others, strict=True)) / len(others)


# === The command ===


def read_labelled(path: Path, count: int, artifact: Artifact) -> list[Labelled]:
    """The first reviews of a CSV with `text` and `sentiment`, cleaned as the model was trained."""
    clean = cleaner(artifact.manifest.cleaning)
    csv.field_size_limit(1 << 24)
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as stream:
        rows = list(islice(csv.DictReader(stream), count))
    labels = artifact.manifest.labels
    return [
        Labelled(clean(row["text"]), next(n for n, label in enumerate(labels) if label.startswith(row["sentiment"])))
        for row in rows
    ]


def arguments(description: str) -> argparse.ArgumentParser:
    """What both commands are told."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--model", type=Path, help="artefact folder, or its parent")
    options.add_argument("--data", type=Path, help="CSV with text and sentiment")
    options.add_argument("--peers", help="an interpreter with the peers' packages")
    options.add_argument("--reviews", type=int, default=200)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--only", action="append", default=[], metavar="WORD", help="those whose name holds it")
    return options


@contextmanager
def texts_of(reviews: Sequence[Labelled]) -> Iterator[Path]:
    """The reviews' texts as the children read them, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reviews.json"
        path.write_text(json.dumps([review.text for review in reviews]), encoding="utf-8")
        yield path


def note(line: str) -> None:
    """What is going on."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Engines only; `side_by_side.py` has the routes too."""
    options = arguments("Our engines and the peers', side by side.")
    asked = options.parse_args()
    if asked.model is None or asked.data is None:
        options.error("--model and --data are needed")
    artifact = open_artifact(asked.model)
    reviews = read_labelled(asked.data, asked.reviews, artifact)
    with texts_of(reviews) as path:
        openings = engines(artifact, path, len(reviews), asked.threads, asked.peers, path.parent)
        rows = alternate(chosen(openings, asked.only), asked.rounds, note)
    print("\n".join(table(rows, reviews)))


if __name__ == "__main__":
    main()
