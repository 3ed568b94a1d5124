"""Predictions as JSON lines."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from toy import Program


def test_arguments_give_a_line_each_in_their_order(program: Program, exported: Path) -> None:
    ended = program("predict", exported.parent, "the film was good", "the film was awful", "fun " * 99)
    assert ended.code == 0, ended.err
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [prediction["label"] for prediction in found] == ["positive", "negative", "positive"]
    for prediction in found:
        assert list(prediction["probabilities"]) == ["negative", "positive"]
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
        assert prediction["confidence"] == max(prediction["probabilities"].values())
    assert [(prediction["tokens"], prediction["truncated"]) for prediction in found] == [
        (6, False),
        (6, False),
        (40, True),
    ]


def test_standard_input_gives_a_line_each_and_survives_strange_bytes(
    program: Program, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO(b"good film\n\n  \nbad caf\xe9 film\r\nlovely")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream, isatty=lambda: False))
    ended = program("predict", exported)
    assert ended.code == 0, ended.err
    assert [json.loads(line)["label"] for line in ended.out.splitlines()] == ["positive", "negative", "positive"]


def test_somebody_who_types_gets_an_answer_to_each_line(exported: Path) -> None:
    from trainer.predict import predictions
    from trainer.scoring import open_model

    typed: list[str] = []

    def lines() -> Iterator[str]:
        for line in ("good film", "bad film"):
            typed.append(line)
            yield line

    with open_model(exported, "auto", "float32") as model:
        first = next(predictions(model, lines(), at_once=1))
    assert first.label == "positive"
    assert typed == ["good film"]


def test_standard_output_holds_nothing_but_json(program: Program, exported: Path) -> None:
    ended = program("predict", exported, "[SEP] good [bold]film[/bold]")
    assert len(ended.out.splitlines()) == 1
    json.loads(ended.out)
    assert ended.err == ""


def test_a_missing_model_exits_1_with_what_makes_one(program: Program, tmp_path: Path) -> None:
    ended = program("predict", tmp_path / "nothere", "text")
    assert ended.code == 1
    assert "`review-trainer export` or `import` makes one" in ended.err
