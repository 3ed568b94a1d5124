"""`make bench`: everything that the README says about speed, measured in one run and held against its targets.

A broker of its own; our engines, the peers, our whole route and the plain script in alternating rounds on the same
reviews; then `review-worker bench` for the parts that have no peer. Writes Markdown, two pictures and the figures as
JSON. Peers are no part of this environment: without an interpreter that has them they are left out, and said so.

    PYTHONPATH=.:tests .venv/bin/python tests/bench/side_by_side.py --out .bench --peers /path/to/python
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.peers import (
    ROUTE,
    Labelled,
    Row,
    alternate,
    arguments,
    chosen,
    engines,
    note,
    read_labelled,
    routes,
    table,
    texts_of,
    times_as_fast,
)
from running import ROOT, broker
from schemas import Review
from worker.artifact import Artifact, open_artifact
from worker.bench.reviews import records
from worker.errors import ReviewScorerError
from worker.versions import versions

SHARED = ROOT.parent / "shared"
DATA = SHARED / "data" / "imdb" / "test.csv.gz"
CHECKPOINT = SHARED / "models" / "minilm-l6-imdb"

LIGHT_RATE = 5
LIGHT_TOKENS = 250
LIGHT_REVIEWS = 150
"""Half a minute."""


@dataclass(frozen=True)
class Target:
    """What was asked for, and what came of it."""

    what: str
    target: float
    measured: float | None
    """None where it could not be measured."""
    unit: str = ""
    at_most: bool = False

    @property
    def ratio(self) -> float | None:
        """1 and above is met."""
        if self.measured is None or not self.measured:
            return None
        return self.target / self.measured if self.at_most else self.measured / self.target

    def line(self) -> str:
        """A row of the table."""
        if self.ratio is None:
            return f"| {self.what} | {self._bound()} | - | - | not measured |"
        met = "met" if self.ratio >= 1 else "**missed**"
        return f"| {self.what} | {self._bound()} | {self._text(self.measured)} | {self.ratio:.2f} | {met} |"

    def _bound(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self._text(self.target)}"

    def _text(self, value: float | None) -> str:
        shown = value or 0.0
        return f"{shown:,.0f}{self.unit}" if shown >= 100 else f"{shown:,.3g}{self.unit}"


def targets(rows: Sequence[Row], stub: dict[str, Any], light: dict[str, Any]) -> list[Target]:
    """Held against what was measured.

    Args:
        rows: of the alternating rounds.
        stub: the document of `review-worker bench`, with its backlogs.
        light: that of the stream at an even rate.
    """
    measured = {row.name: row for row in rows if row.rates}
    facts = {row.name: row.facts for row in rows}

    def times(one: str, *others: str) -> float | None:
        """How many times as fast as the fastest of the others, of those that were measured."""
        there = [measured[other] for other in others if other in measured]
        return times_as_fast(measured[one], *there) if one in measured and there else None

    openvino, pipelines = (
        "OpenVINO bfloat16, ONNX export, sorted, batches of 16",
        [name for name in measured if name.startswith("transformers pipeline")],
    )
    int8, bf16, pytorch = "openvino int8", "openvino bfloat16", "PyTorch bfloat16, sorted, batches of 16"
    same = f"openvino {facts.get(ROUTE, {}).get('precision', '')}"
    costs = [it["milliseconds_per_review"]["median"] for it in stub["backlogs"]]
    memory = [it["memory_bytes"] for it in stub["backlogs"]]
    sizes = {it["bytes_per_review"]: it["reviews_per_second"]["median"] for it in stub["stub"]}
    latency = light["latency"] or {}
    span = f"{stub['backlogs'][0]['reviews']:,} to {stub['backlogs'][-1]['reviews']:,}" if costs else "small to large"
    return [
        Target("engine, int8, against OpenVINO bfloat16", 1.6, times(int8, openvino), " x"),
        Target("engine, bfloat16, against OpenVINO bfloat16", 1.25, times(bf16, openvino), " x"),
        Target("engine, bfloat16, against PyTorch bfloat16 sorted", 1.4, times(bf16, pytorch), " x"),
        Target("engine, int8, against the faster documented pipeline", 3, times(int8, *pipelines), " x"),
        Target("engine, bfloat16, against the faster documented pipeline", 3, times(bf16, *pipelines), " x"),
        Target("whole route against its engine alone", 0.9, times(ROUTE, same), " x"),
        Target("route without a model, 300 bytes", 15_000, sizes.get(300), " reviews/s"),
        Target("route without a model, 1,300 bytes", 12_000, sizes.get(1_300), " reviews/s"),
        Target(f"{LIGHT_RATE} reviews/s, median", 150, _milliseconds(latency.get("p50")), " ms", at_most=True),
        Target(f"{LIGHT_RATE} reviews/s, 99 %", 500, _milliseconds(latency.get("p99")), " ms", at_most=True),
        Target(
            f"cost of a review, backlogs of {span}, most to least",
            1.05,
            max(costs) / min(costs) if costs else None,
            " x",
            at_most=True,
        ),
        Target(
            "memory, behind the largest backlog against the smallest",
            1.05,
            memory[-1] / memory[0] if memory else None,
            " x",
            at_most=True,
        ),
        Target("start to ready", 15, facts.get(ROUTE, {}).get("ready_seconds"), " s", at_most=True),
    ]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


# === What is measured ===


def imported(out: Path) -> Path:
    """The reference model as a user imports it, once.

    Raises:
        ReviewScorerError: it is not there, or cannot be imported.
    """
    folder = out / "models" / "imdb"
    if not folder.is_dir():
        if not CHECKPOINT.is_dir():
            raise ReviewScorerError(f"no folder {CHECKPOINT}; give an artefact: --model DIR, or make bench MODEL=DIR")
        command = [sys.executable, "-m", "trainer", "import", str(CHECKPOINT), "--out", str(folder)]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode:
            raise ReviewScorerError(f"`review-trainer import {CHECKPOINT}` failed; its own line above says why")
    return folder


def command(*options: str) -> dict[str, Any]:
    """`review-worker bench`, and what it printed."""
    note(f"$ review-worker bench {' '.join(options)}")
    line = [sys.executable, "-m", "worker", "bench", *options, "--json"]
    done = subprocess.run(line, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ReviewScorerError("`review-worker bench` failed; its own line above says why")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def light_reviews(artifact: Artifact, reviews: Sequence[Labelled]) -> list[str]:
    """Those nearest to 250 tokens."""
    texts = [review.text for review in reviews]
    lengths = [len(row.ids) for row in artifact.tokenizer().encode(texts)]
    order = sorted(range(len(texts)), key=lambda place: abs(lengths[place] - LIGHT_TOKENS))
    return [texts[place] for place in order[:LIGHT_REVIEWS]]


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All of it; the broker is gone afterwards."""
    model = asked.model or imported(asked.out)
    artifact = open_artifact(model)
    labelled = read_labelled(asked.data, asked.reviews, artifact)
    values = records([Review(review_id="1", text=review.text) for review in labelled], len(labelled))
    begun, load = time.time(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as kafka, broker(Path(kafka) / "kafka") as running, texts_of(labelled) as path:
        openings = engines(artifact, path, len(labelled), asked.threads, asked.peers, path.parent)
        openings |= routes(artifact, values, asked.threads, asked.peers, running.address)
        rows = alternate(chosen(openings, asked.only), asked.rounds, note)
        same = ["--model", str(model), "--bootstrap-servers", running.address, "--rounds", str(asked.rounds)]
        engine = command(
            "--model",
            str(model),
            "--data",
            str(asked.data),
            "--only",
            "engine",
            "--reviews",
            str(asked.reviews),
            "--rounds",
            str(asked.rounds),
            "--plot",
            str(asked.out),
        )
        backlogs = [part for size in asked.backlog for part in ("--backlog", str(size))]
        stub = command(
            *same, "--only", "stub", "--stub-reviews", str(asked.stub_reviews), "--plot", str(asked.out), *backlogs
        )
        light = path.parent / "light.jsonl"
        texts = light_reviews(artifact, read_labelled(asked.data, 20 * LIGHT_REVIEWS, artifact))[: asked.light_reviews]
        light.write_text(
            "".join(json.dumps({"review_id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
        )
        paced = command(
            "--model",
            str(model),
            "--bootstrap-servers",
            running.address,
            "--rounds",
            "1",
            "--only",
            "route",
            "--data",
            str(light),
            "--reviews",
            str(len(texts)),
            "--rate",
            str(LIGHT_RATE),
        )
    return {
        "rows": rows,
        "labelled": labelled,
        "engine": engine,
        "stub": stub,
        "light": paced,
        "load": (load, os.getloadavg()[0]),
        "seconds": time.time() - begun,
    }


# === What is written ===


def document(asked: argparse.Namespace, found: dict[str, Any]) -> str:
    """Markdown, as the README takes it."""
    return "\n".join(_lines(asked, found)) + "\n"


def _lines(asked: argparse.Namespace, found: dict[str, Any]) -> Iterator[str]:
    rows, engine = found["rows"], found["engine"]["engine"]
    before, after = found["load"]
    yield (
        f"{engine['device']}, {asked.threads} of {os.cpu_count()} cores, {platform.system()}; load {before:.1f} at the "
        f"beginning and {after:.1f} at the end, {found['seconds'] / 60:.0f} min; {asked.reviews} reviews of "
        f"{engine['tokens_per_review']:.0f} tokens, medians of {asked.rounds} alternating rounds; "
        "how many times as fast: medians of what it was in each round."
    )
    yield ""
    yield from table(rows, found["labelled"])
    yield ""
    yield (
        f"`review-worker bench`: {engine['engine']}, {engine['precision']}: "
        f"{engine['reviews_per_second']['median']:.1f} reviews/s, "
        f"{engine['tokens_per_second']['median']:,.0f} tokens/s, "
        f"padding {engine['padding_ratio']:.1%}, tokenizer alone "
        f"{engine['tokenizer_reviews_per_second']['median']:,.0f} reviews/s{_limit(engine)}."
    )
    yield ""
    yield "| target | asked | measured | ratio | |"
    yield "| --- | --- | --- | --- | --- |"
    for target in targets(rows, found["stub"], found["light"]):
        yield target.line()
    yield ""
    ours = ", ".join(f"{name} {number}" for name, number in versions().items() if name in OWN)
    theirs = next((row.versions for row in rows if row.versions), {})
    yield f"Ours: {ours}."
    if theirs:
        yield f"Peers: {', '.join(f'{name} {number}' for name, number in theirs.items())}."


OWN = ("python", "review-scorer", "tensorflow", "openvino", "jax", "tokenizers", "kafka-python")


def _limit(engine: dict[str, Any]) -> str:
    limit = engine["limit_flop_per_second"]
    if limit is None:
        return ""
    return f"; {engine['share_of_limit']:.0%} of the {limit['median'] / 1e9:,.0f} GFLOP/s of plain matrix products"


def main() -> None:
    """Measure, write, print."""
    options = arguments("Everything that the README says about speed.")
    options.set_defaults(data=DATA)
    options.add_argument("--out", type=Path, required=True, help="folder for the tables and pictures")
    options.add_argument("--stub-reviews", type=int, default=30_000)
    options.add_argument("--light-reviews", type=int, default=LIGHT_REVIEWS)
    options.add_argument("--backlog", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    asked = options.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        found = measure(asked)
    except ReviewScorerError as error:
        sys.exit(f"error: {error}")
    text = document(asked, found)
    (asked.out / "bench.md").write_text(text, encoding="utf-8")
    figures = {"rows": [asdict(row) for row in found["rows"]]}
    figures |= {name: found[name] for name in ("engine", "stub", "light", "load", "seconds")}
    (asked.out / "bench.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
