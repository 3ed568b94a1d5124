"""The prediction that consumers read."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas import Prediction

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "prediction.json").read_text(encoding="utf-8"))


def read(**fields: object) -> Prediction:
    return Prediction.model_validate_json(json.dumps(GOLDEN | fields))


@pytest.mark.parametrize("share", [-0.001, 1.001, 2])
def test_a_probability_is_0_to_1(share: float) -> None:
    with pytest.raises(ValidationError):
        read(confidence=share)
    with pytest.raises(ValidationError):
        read(probabilities={"negative": share})


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_certain_probability_is_one(share: float) -> None:
    assert read(confidence=share).confidence == share


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label_id", -1),
        ("tokens", 1),
        ("source", {"topic": "", "partition": 0, "offset": 0}),
        ("source", {"topic": "reviews", "partition": -1, "offset": 0}),
        ("source", {"topic": "reviews", "partition": 0, "offset": -1}),
        ("model", GOLDEN["model"] | {"version": 0}),
        ("model", GOLDEN["model"] | {"name": ""}),
        ("model", GOLDEN["model"] | {"digest": "sha256:5e88"}),
    ],
)
def test_a_number_or_name_out_of_bounds_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        read(**{field: value})


def test_a_time_without_its_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        read(scored_at="2026-11-23T09:00:00")


def test_the_probabilities_keep_the_order_of_the_labels() -> None:
    shares = {"positive": 0.25, "negative": 0.5, "neutral": 0.25}

    assert list(json.loads(read(probabilities=shares).model_dump_json())["probabilities"]) == list(shares)


def test_a_rating_is_left_out_where_there_is_none() -> None:
    assert "rating" not in json.loads(read().model_dump_json())
    assert json.loads(read(rating=3.7).model_dump_json())["rating"] == 3.7
