"""The comparison of training speeds in a small size: it runs, whatever it measures."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import training
from toy import toy_rows, write_csv


@pytest.mark.slow
def test_it_measures_what_it_is_told_to(tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peers = Path(sys.executable) if find_spec("torch") else None
    reviews = write_csv(tmp_path / "reviews.csv", toy_rows(60, 3))
    training.main(tiny_folder, reviews, peers, reviews=40, batch=8, max_tokens=16, turns=2, rounds=2, only="float32")

    printed = capsys.readouterr()
    headings, _, row = printed.out.splitlines()
    assert headings == f"| {' | '.join(training.HEADINGS)} |"
    theirs = r"[\d.]+ \| [\d.]+" if peers else r"- \| -"
    assert re.fullmatch(rf"\| float32 \| [\d.]+ \| {theirs} \| \d+ \| [\d.]+% \|", row)
    assert re.search(r"^float32, round 2 of 2: [\d.]+", printed.err, re.MULTILINE)
    assert ("PyTorch is left out" in printed.err) is (peers is None)


def test_a_side_that_ends_before_it_is_done_is_told() -> None:
    with pytest.raises(SystemExit, match="ended before it was done"), training.started(sys.executable, "-c", ""):
        pass


def test_the_speed_is_of_all_turns_together() -> None:
    assert training.speed([training.Turn(30, 1.0), training.Turn(10, 3.0)]) == 10
