"""Other readings of a long review."""

from pathlib import Path

import numpy as np
import pytest

from schemas import Cut
from toy import Program, toy_rows
from trainer.cuts import Views, parse_cuts
from trainer.scoring import open_model
from worker.errors import UsageError

LONG = np.arange(100, dtype=np.int32)
CUT = Cut(head=3, tail=7)


def test_a_review_that_fits_is_read_once_whatever_is_asked() -> None:
    views = parse_cuts("head,head+tail,windows", CUT)

    assert [row.tolist() for row in views.read(LONG[:10])] == [list(range(10))]


def test_head_and_tail_are_those_of_the_trainer() -> None:
    head, both = parse_cuts("head, head+tail", CUT).read(LONG)

    assert head.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 99]
    assert both.tolist() == [0, 1, 2, 93, 94, 95, 96, 97, 98, 99]


@pytest.mark.parametrize("length", [11, 12, 15, 27, 100])
@pytest.mark.parametrize("longest", [3, 10])
def test_windows_read_every_token_and_are_never_too_long(length: int, longest: int) -> None:
    ids = LONG[:length]

    rows = Views(("windows",), longest).read(ids)

    assert all(len(row) == longest for row in rows)
    assert all((row[0], row[-1]) == (ids[0], ids[-1]) for row in rows)
    assert {int(token) for row in rows for token in row} == set(range(length))
    assert len({tuple(row.tolist()) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [("head,middle", "unknown cut 'middle'; known: head, head\\+tail, windows"), ("head,head", "twice")],
)
def test_a_cut_that_is_not_known_is_one_line(spec: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        parse_cuts(spec, CUT)


def test_the_logits_of_all_readings_are_averaged(exported: Path) -> None:
    texts = [f"{text} {text} {text} {text}" for text, _ in toy_rows(9, 4)] + ["good"]
    with open_model(exported, "tensorflow", "float32") as model:
        cut = model.artifact.manifest.cut

        def logits(names: str) -> np.ndarray:
            views = parse_cuts(names, cut)
            return np.concatenate([answers.logits for answers in model.score(texts, at_once=4, views=views)])

        both, head, own = logits("head,head+tail"), logits("head"), logits("head+tail")
        plain = np.concatenate([answers.logits for answers in model.score(texts)])
    np.testing.assert_allclose(both, (head + own) / 2, atol=1e-4)
    np.testing.assert_allclose(own, plain, atol=1e-4)
    assert np.abs(head - own).max() > 1e-3


def test_an_evaluation_says_what_was_averaged(program: Program, exported: Path, toy_data: Path) -> None:
    ended = program("evaluate", exported, "--data", toy_data, "--cuts", "head,windows")

    assert ended.code == 0, ended.err
    assert "mean of the logits of head, windows" in ended.out
    assert program("evaluate", exported, "--data", toy_data, "--cuts", "tail").code == 2
