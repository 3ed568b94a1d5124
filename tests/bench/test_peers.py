"""The comparison with peers, without any: what is missing is skipped and said so, and what is measured is put right."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.peers import (
    PEERS,
    PLAIN,
    ROUTE,
    Labelled,
    NotHereError,
    Row,
    alternate,
    engines,
    labels_of,
    read_labelled,
    routes,
    table,
    texts_of,
)
from bench.side_by_side import Target, targets
from running import ROOT
from toy import toy_rows, write_csv
from worker.artifact import open_artifact

PEERS_SCRIPT = ROOT / "tests" / "bench" / "peers.py"

REVIEWS = [Labelled(text, int(label == "pos")) for text, label in toy_rows(4, 0)]


def rows_of(peers: str | None, model: Path, tmp_path: Path) -> dict[str, Row]:
    """The peers' alone: ours are measured by `review-worker bench`."""
    with texts_of(REVIEWS) as texts:
        openings = engines(open_artifact(model), texts, len(REVIEWS), 2, peers, tmp_path)
        openings = {name: opening for name, opening in openings.items() if name in PEERS.values()}
        return {row.name: row for row in alternate(openings, 1, lambda _: None)}


# === What is missing ===


def test_without_an_interpreter_every_peer_is_skipped(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(None, tiny_model, tmp_path)

    assert {row.skipped for row in rows.values()} == {"no interpreter was given for it (PEERS=/path/to/python)"}
    assert len(rows) == len(PEERS)


def test_an_interpreter_that_is_not_there_is_named(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of("/nowhere/python", tiny_model, tmp_path)

    assert {row.skipped for row in rows.values()} == {"/nowhere/python: No such file or directory"}


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed here")
def test_an_interpreter_without_the_packages_says_which(tiny_model: Path, tmp_path: Path) -> None:
    rows = rows_of(sys.executable, tiny_model, tmp_path)

    skipped = {peer: rows[name].skipped for peer, name in PEERS.items()}
    assert skipped["pipeline"] == skipped["torch-sorted"] == skipped["torch-varlen"] == "torch is not installed"
    assert skipped["onnxruntime"] == "onnxruntime is not installed"
    assert all(str(it).endswith("is not installed") for it in skipped.values())


def test_a_peer_that_ends_is_told_with_its_last_line(tiny_model: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no space left' >&2\nexit 1\n")
    python.chmod(0o755)

    rows = rows_of(str(python), tiny_model, tmp_path)

    assert {row.skipped for row in rows.values()} == {"failed: no space left"}


def test_the_plain_script_is_skipped_without_an_interpreter(tiny_model: Path) -> None:
    openings = routes(open_artifact(tiny_model), [], 2, None, "127.0.0.1:1")

    assert list(openings) == [ROUTE, PLAIN]
    with ExitStack() as stack, pytest.raises(NotHereError, match="no interpreter"):
        openings[PLAIN](stack, Row(PLAIN))


def test_ours_and_a_missing_peer_side_by_side(tiny_model: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "reviews.csv", toy_rows(6, 0))
    options = ["--model", tiny_model, "--data", data, "--reviews", 5, "--rounds", 2, "--peers", "/nowhere/python"]

    done = subprocess.run(
        [sys.executable, PEERS_SCRIPT, *map(str, options), "--only", "tensorflow", "--only", "ONNX Runtime"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        timeout=250,
    )

    assert done.returncode == 0, done.stderr
    _, _, ours, peer = done.stdout.splitlines()
    assert ours.startswith("| tensorflow, ")
    assert ours.split(" | ")[3:] == ["1.00 x", ours.split(" | ")[4], "100.0% |"]
    assert "| skipped: /nowhere/python: No such file or directory |" in peer
    assert done.stderr.count("round ") == 2


# === Rounds ===


class Fixed:
    """Answers from a list, and fails behind its end."""

    def __init__(self, *rates: float) -> None:
        self._rates = list(rates)

    def round(self) -> tuple[float, list[int]]:
        if not self._rates:
            raise NotHereError("failed: no more")
        return self._rates.pop(0), [1, 0]


def test_rounds_alternate_and_what_fails_is_left_out() -> None:
    said: list[str] = []
    openings: dict[str, Any] = {"a": lambda *_: Fixed(2, 3), "b": lambda *_: Fixed(8)}

    a, b = alternate(openings, 2, said.append)

    assert (a.rates, a.skipped) == ([2, 3], None)
    assert (b.rates, b.skipped) == ([8], "failed: no more")
    assert [line.split(": ")[1] for line in said if line.startswith("round")] == ["a", "b", "a"]


def test_the_table_holds_all_to_our_fastest_and_to_the_truth() -> None:
    rows = [
        Row("openvino bfloat16", rates=[40.0, 50.0, 45.0], labels=[1, 0, 1, 1]),
        Row("tensorflow", rates=[20.0, 20.0, 30.0], labels=[1, 0, 1, 1], facts={"precision": "bfloat16"}),
        Row("peer", rates=[30.0, 25.0, 30.0], labels=[0, 0, 1, 1]),
        Row("other", skipped="torch is not installed"),
    ]
    truth = [Labelled("", label) for label in (0, 0, 1, 1)]

    lines = table(rows, truth)[2:]

    # The ratios are medians of the rounds' own: 45 and 20 would be 2.25.
    assert lines == [
        "| openvino bfloat16 | 45.0 | 40.0 to 50.0 | 1.00 x | 75.0% | 100.0% |",
        "| tensorflow, bfloat16 | 20.0 | 20.0 to 30.0 | 2.00 x | 75.0% | 100.0% |",
        "| peer | 30.0 | 25.0 to 30.0 | 1.50 x | 100.0% | 75.0% |",
        "| other | - | skipped: torch is not installed | - | - | - |",
    ]


def test_labels_are_in_the_order_of_publication() -> None:
    found = [
        SimpleNamespace(key=f"k{n}".encode(), value=json.dumps({"label": "pos" if n % 2 else "neg"})) for n in (2, 0, 1)
    ]

    assert labels_of(found, ("neg", "pos")) == [0, 1, 0]


def test_reviews_are_cleaned_as_the_model_was_trained_and_labelled_by_the_file(
    tiny_model: Path, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "r.csv", [("good<br /><br />fun", "pos"), ("dull", "neg"), ("unread", "neg")])

    assert read_labelled(path, 2, open_artifact(tiny_model)) == [Labelled("good  fun", 2), Labelled("dull", 0)]


# === Targets ===

STUB = {
    "stub": [
        {"bytes_per_review": 300, "reviews_per_second": {"median": 16_500.0}},
        {"bytes_per_review": 1_300, "reviews_per_second": {"median": 6_000.0}},
    ],
    "backlogs": [
        {"reviews": 1_000, "milliseconds_per_review": {"median": 0.1}, "memory_bytes": 100},
        {"reviews": 100_000, "milliseconds_per_review": {"median": 0.102}, "memory_bytes": 100},
    ],
}
LIGHT = {"latency": {"p50": 0.075, "p99": 1.0}}


def test_every_target_has_its_ratio_and_one_that_is_missed_is_shown_as_missed() -> None:
    rows = [
        Row("openvino bfloat16", rates=[50.0]),
        Row("OpenVINO bfloat16, ONNX export, sorted, batches of 16", rates=[40.0]),
        Row("transformers pipeline, as documented", rates=[10.0]),
        Row("transformers pipeline, batch_size=8, as documented", rates=[20.0]),
        Row("PyTorch bfloat16, sorted, batches of 16", skipped="torch is not installed"),
        Row(ROUTE, rates=[47.5], facts={"precision": "bfloat16", "ready_seconds": 7.5}),
    ]

    lines = [target.line() for target in targets(rows, STUB, LIGHT)]

    assert lines == [
        "| engine, int8, against OpenVINO bfloat16 | at least 1.6 x | - | - | not measured |",
        "| engine, bfloat16, against OpenVINO bfloat16 | at least 1.25 x | 1.25 x | 1.00 | met |",
        "| engine, bfloat16, against PyTorch bfloat16 sorted | at least 1.4 x | - | - | not measured |",
        "| engine, int8, against the faster documented pipeline | at least 3 x | - | - | not measured |",
        "| engine, bfloat16, against the faster documented pipeline | at least 3 x | 2.5 x | 0.83 | **missed** |",
        "| whole route against its engine alone | at least 0.9 x | 0.95 x | 1.06 | met |",
        "| route without a model, 300 bytes | at least 15,000 reviews/s | 16,500 reviews/s | 1.10 | met |",
        "| route without a model, 1,300 bytes | at least 12,000 reviews/s | 6,000 reviews/s | 0.50 | **missed** |",
        "| 5 reviews/s, median | at most 150 ms | 75 ms | 2.00 | met |",
        "| 5 reviews/s, 99 % | at most 500 ms | 1,000 ms | 0.50 | **missed** |",
        "| cost of a review, backlogs of 1,000 to 100,000, most to least | at most 1.05 x | 1.02 x | 1.03 | met |",
        "| memory, behind the largest backlog against the smallest | at most 1.05 x | 1 x | 1.05 | met |",
        "| start to ready | at most 15 s | 7.5 s | 2.00 | met |",
    ]


def test_a_bound_from_above_is_met_from_below() -> None:
    assert Target("t", 2, 1, at_most=True).ratio == Target("t", 1, 2).ratio == 2
