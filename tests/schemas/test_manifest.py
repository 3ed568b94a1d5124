"""The manifest of an artefact: what it does not know, it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from schemas import Manifest

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "manifest.json").read_text(encoding="utf-8"))


def read(**fields: object) -> Manifest:
    return Manifest.model_validate_json(json.dumps(GOLDEN | fields))


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"stride": 128}, "stride"),
        ({"cut": GOLDEN["cut"] | {"stride": 128}}, "cut.stride"),
        ({"int8": GOLDEN["int8"] | {"preset": "mixed"}}, "int8.preset"),
        ({"files": {"config.json": GOLDEN["files"]["config.json"] | {"mode": 0o777}}}, "files.config.json.mode"),
    ],
)
def test_an_unknown_field_at_any_depth_is_refused(fields: dict[str, object], where: str) -> None:
    """It may change how text must be read."""
    with pytest.raises(ValidationError, match="Extra inputs are not permitted") as caught:
        read(**fields)

    assert ".".join(map(str, caught.value.errors()[0]["loc"])) == where


@pytest.mark.parametrize("version", [0, 2, -1])
def test_another_format_is_refused(version: int) -> None:
    with pytest.raises(ValidationError, match="format"):
        read(format=version)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "..", "a b", "a" * 65, "a\n", "é"])
def test_a_name_is_safe_as_a_folder_and_in_a_header(name: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        read(name=name)


@pytest.mark.parametrize("name", ["a", "a" * 64, "imdb-v1.2_large", "3"])
def test_an_ordinary_name_is_one(name: str) -> None:
    assert read(name=name).name == name


@pytest.mark.parametrize("labels", [[], ["only"], ["same", "same"], [str(n) for n in range(1001)]])
def test_labels_are_at_least_two_and_distinct(labels: list[str]) -> None:
    with pytest.raises(ValidationError, match="labels"):
        read(labels=labels)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 0},
        {"cut": {"head": 0, "tail": 1}},
        {"cut": {"head": 1, "tail": 0}},
        {"temperature": 0},
        {"temperature": -1.0},
        {"files": {}},
        {"files": {"config.json": {"bytes": -1, "sha256": "sha256:" + "0" * 64}}},
        {"created_at": "2026-11-23T09:00:00"},
        {"int8": GOLDEN["int8"] | {"int8_accuracy": 1.01}},
        {"int8": GOLDEN["int8"] | {"calibration_reviews": 0}},
        {"data_digest": "unknown"},
        {"data_digest": ""},
    ],
    ids=str,
)
def test_what_is_out_of_bounds_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        read(**fields)


def test_the_data_of_an_imported_model_may_be_unknown() -> None:
    assert read(data_digest=None).data_digest is None


def test_a_model_without_an_int8_form_says_nothing_of_one() -> None:
    without = {field: value for field, value in GOLDEN.items() if field != "int8"}
    assert Manifest.model_validate_json(json.dumps(without)).int8 is None
