"""The rules that every record of the contract shares, held to one golden file each."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import schemas
from schemas import Cut, FileDigest, Int8, Manifest, ModelName, Prediction, Rejection, Review, Source
from schemas.record import Record

GOLDEN = Path(__file__).parent / "golden"
TOP_LEVEL: dict[str, type[Record]] = {
    "review": Review,
    "prediction": Prediction,
    "rejection": Rejection,
    "manifest": Manifest,
}
EVERY_RECORD = [Review, Prediction, Rejection, Manifest, ModelName, Source, Cut, FileDigest, Int8]

top_level = pytest.mark.parametrize("name", TOP_LEVEL)
every_record = pytest.mark.parametrize("record", EVERY_RECORD, ids=lambda record: record.__name__)


def golden(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return value


def example(record: type[Record]) -> dict[str, Any]:
    """The example of a docstring: what stands between "Example: `" and "`", with `...` completed to 64 digits."""
    assert record.__doc__ is not None
    text = re.search(r"Example: `(.+?)`", record.__doc__, re.DOTALL)
    assert text is not None, f"{record.__name__} shows no example"
    completed = re.sub(
        r"sha256:([0-9a-f]+)\.\.\.([0-9a-f]+)", lambda m: f"sha256:{m[1]:0<{64 - len(m[2])}}{m[2]}", text[1]
    )
    value: dict[str, Any] = json.loads(completed)
    return value


def shown_fields(record: type[Record]) -> list[str]:
    """All but those that are left out where they have nothing to say."""
    return [name for name, field in record.model_fields.items() if field.exclude_if is None]


def test_every_record_that_crosses_a_boundary_is_listed_here() -> None:
    exported = [value for name in schemas.__all__ if issubclass(value := getattr(schemas, name), Record)]

    assert sorted(exported, key=lambda record: record.__name__) == sorted(EVERY_RECORD, key=lambda r: r.__name__)


@top_level
def test_a_golden_record_is_written_as_it_was_read(name: str) -> None:
    record = TOP_LEVEL[name].model_validate_json((GOLDEN / f"{name}.json").read_bytes())

    # As text: the order of the fields is what people read, and 0.0 must not become 0.
    assert record.model_dump_json() == json.dumps(golden(name), ensure_ascii=False, separators=(",", ":"))


@top_level
def test_a_golden_record_shows_every_field(name: str) -> None:
    assert list(golden(name)) == shown_fields(TOP_LEVEL[name])


@every_record
def test_the_example_of_the_docstring_is_valid_and_complete(record: type[Record]) -> None:
    shown = example(record)

    record.model_validate_json(json.dumps(shown))

    assert list(shown) == shown_fields(record)


@top_level
def test_every_missing_field_is_an_error_unless_it_has_a_default(name: str) -> None:
    for field, info in TOP_LEVEL[name].model_fields.items():
        rest = {key: value for key, value in golden(name).items() if key != field}
        if info.is_required():
            with pytest.raises(ValidationError, match="Field required"):
                TOP_LEVEL[name].model_validate_json(json.dumps(rest))
        else:
            TOP_LEVEL[name].model_validate_json(json.dumps(rest))


@pytest.mark.parametrize("name", ["review", "prediction", "rejection"])
def test_a_field_of_a_later_release_is_ignored(name: str) -> None:
    later = golden(name) | {"language": "en"}

    read = TOP_LEVEL[name].model_validate_json(json.dumps(later))

    assert json.loads(read.model_dump_json()) == golden(name)


@every_record
def test_a_record_cannot_be_changed(record: type[Record]) -> None:
    made = record.model_validate_json(json.dumps(example(record)))
    field = next(iter(record.model_fields))

    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, field, getattr(made, field))


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("review", "review_id", 17),
        ("review", "text", 5),
        ("review", "text", ["a", "b"]),
        ("prediction", "label_id", "1"),
        ("prediction", "label_id", 1.0),
        ("prediction", "label_id", True),
        ("prediction", "confidence", "0.5"),
        ("prediction", "truncated", 1),
        ("prediction", "truncated", "true"),
        ("prediction", "scored_at", 1_795_000_000),
        ("prediction", "source", {"topic": "reviews", "partition": "0", "offset": 1}),
        ("rejection", "reason", 1),
        ("rejection", "detail", None),
        ("manifest", "version", "3"),
        ("manifest", "format", "1"),
        ("manifest", "labels", "negative"),
        ("manifest", "cut", {"head": "129", "tail": 383}),
        ("manifest", "metrics", {"accuracy": "0.9"}),
    ],
)
def test_nothing_is_taken_for_another_type(name: str, field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        TOP_LEVEL[name].model_validate_json(json.dumps(golden(name) | {field: value}))


PAYLOAD = "what only the input holds"


def refusal(record: type[Record], content: str) -> str:
    """What the error says, in both of its text forms; empty where the record is accepted."""
    try:
        record.model_validate_json(content)
    except ValidationError as error:
        return f"{error} {error!r}"
    return ""


@top_level
def test_the_text_of_an_error_never_holds_the_input(name: str) -> None:
    said = [
        refusal(TOP_LEVEL[name], json.dumps(golden(name) | {field: wrong}))
        for field in TOP_LEVEL[name].model_fields
        for wrong in (PAYLOAD * 10_000, [PAYLOAD], {"topic": PAYLOAD})
    ]

    assert any(said)
    assert not [text for text in said if PAYLOAD in text]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(("name", "field"), [("prediction", "confidence"), ("manifest", "temperature")])
def test_a_number_is_finite(name: str, field: str, number: str) -> None:
    content = json.dumps(golden(name) | {field: "here"}).replace('"here"', number)

    with pytest.raises(ValidationError, match="finite"):
        TOP_LEVEL[name].model_validate_json(content)


def test_a_metric_that_is_no_number_cannot_be_written_and_then_not_be_read() -> None:
    content = json.dumps(golden("manifest") | {"metrics": {"accuracy": float("nan")}})

    with pytest.raises(ValidationError, match="finite"):
        Manifest.model_validate_json(content)


def with_identifier(name: str) -> str:
    return json.dumps(golden("review") | {"review_id": name})


@pytest.mark.parametrize("name", ["a", "a" * 128, "é" * 128, "tt0111161/17 of 20", "\u202eabc", "🎬"])
def test_an_identifier_has_1_to_128_characters(name: str) -> None:
    assert Review.model_validate_json(with_identifier(name)).review_id == name


@pytest.mark.parametrize("name", ["", "a" * 129, "é" * 129])
def test_an_identifier_of_another_length_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"at (least 1|most 128) character"):
        Review.model_validate_json(with_identifier(name))


@pytest.mark.parametrize("number", [*range(0x20), 0x7F, *range(0x80, 0xA0)])
def test_an_identifier_holds_no_control_character(number: int) -> None:
    for name in (f"a{chr(number)}b", f"ab{chr(number)}", chr(number)):
        with pytest.raises(ValidationError, match="pattern"):
            Review.model_validate_json(with_identifier(name))


@pytest.mark.parametrize(
    "digest",
    [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha256:" + "0" * 63 + "g",
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "\n",
        " sha256:" + "0" * 64,
        "md5:" + "0" * 64,
    ],
)
def test_a_digest_is_sha256_and_64_hexadecimal_digits(digest: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        FileDigest.model_validate_json(json.dumps({"bytes": 1, "sha256": digest}))
