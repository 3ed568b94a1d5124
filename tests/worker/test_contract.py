"""Contract: the documents say what the records' own classes and the worker's letters do, no more and no less."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema.protocols import Validator
from pydantic import ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT7

from schemas import ModelName, Prediction, Reason, Rejection, Review
from worker.contract import MAJOR, RECORDS, REFUSED, asyncapi, documents, json_schema
from worker.intake import read_review
from worker.letters import EVENT_TYPE, Letters, hops, trace
from worker.message import Headers, Message
from worker.settings import BatchSettings, KafkaSettings

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "schemas" / "golden"
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

every_record = pytest.mark.parametrize("name", RECORDS)


def golden(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return value


def verdicts(name: str, value: object) -> set[bool]:
    """Whether a value is valid, as validators of the two drafts say."""
    schema = json_schema(name)
    return {Draft202012Validator(schema).is_valid(value), Draft7Validator(schema).is_valid(value)}


# === JSON Schemas ===


@every_record
def test_a_schema_is_one_of_draft_2020_12(name: str) -> None:
    schema = json_schema(name)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)


@every_record
def test_a_schema_has_a_name_that_promises_no_server(name: str) -> None:
    assert json_schema(name)["$id"] == f"urn:review-scorer:schema:{name}:{MAJOR}"


def parts_of(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [schema, *schema.get("$defs", {}).values()]


@every_record
def test_a_schema_says_what_the_docstrings_say(name: str) -> None:
    schema = json_schema(name)

    for part in parts_of(schema):
        assert part["title"]
        assert part["description"]
        assert "Example" not in part["description"], "it stands under `examples`"
    assert schema["title"] == RECORDS[name][0].__name__


def test_a_field_and_a_reason_have_their_own_description() -> None:
    assert json_schema("prediction")["properties"]["confidence"]["description"] == "The probability of `label`."
    reasons = json_schema("rejection")["$defs"]["Reason"]["description"].splitlines()
    assert "- `not_an_object`: JSON, but a list, a number or a string." in reasons
    assert "- `not_utf8`" in reasons
    assert len([line for line in reasons if line.startswith("- `")]) == len(Reason)


@every_record
def test_examples_and_golden_records_are_valid(name: str) -> None:
    schema = json_schema(name)

    (shown,) = schema["examples"]
    assert verdicts(name, shown) == {True}
    assert verdicts(name, golden(name)) == {True}
    for title, part in schema.get("$defs", {}).items():
        part_of_it = {"$ref": f"#/$defs/{title}", "$defs": schema["$defs"]}
        for shown in part.get("examples", []):
            Draft202012Validator(part_of_it).validate(shown)


@every_record
def test_a_field_is_required_unless_it_has_a_default(name: str) -> None:
    for field, info in RECORDS[name][0].model_fields.items():
        rest = {key: value for key, value in golden(name).items() if key != field}

        assert verdicts(name, rest) == {not info.is_required()}, field


@pytest.mark.parametrize(("name", "ignored"), [("review", True), ("prediction", True), ("manifest", False)])
def test_a_field_of_a_later_release_is_ignored_except_in_a_manifest(name: str, ignored: bool) -> None:
    assert verdicts(name, golden(name) | {"language": "en"}) == {ignored}


WRONG: dict[str, tuple[str, str, object]] = {
    "an id that is a number": ("review", "review_id", 17),
    "an empty id": ("review", "review_id", ""),
    "an id too long": ("review", "review_id", "a" * 129),
    "an id with a control character": ("review", "review_id", "a\x85b"),
    "an empty text": ("review", "text", ""),
    "a text of spaces": ("review", "text", " \n\u2003\x00"),
    "a text too long": ("review", "text", "a" * 100_001),
    "a text that is null": ("review", "text", None),
    "a probability above 1": ("prediction", "confidence", 1.001),
    "a probability in the table below 0": ("prediction", "probabilities", {"negative": -0.5}),
    "one token": ("prediction", "tokens", 1),
    "a digest too short": ("prediction", "model", golden("prediction")["model"] | {"digest": "sha256:5e88"}),
    "a source without its offset": ("prediction", "source", {"topic": "reviews", "partition": 0}),
    "a negative offset": ("prediction", "source", {"topic": "reviews", "partition": 0, "offset": -1}),
    "a reason that is none": ("rejection", "reason", "too_boring"),
    "an empty detail": ("rejection", "detail", ""),
    "another format": ("manifest", "format", 2),
    "one label": ("manifest", "labels", ["positive"]),
    "a cut of no tokens": ("manifest", "cut", {"head": 0, "tail": 1}),
    "a cut with more in it": ("manifest", "cut", {"head": 1, "tail": 1, "middle": 1}),
    "a temperature of 0": ("manifest", "temperature", 0),
    "no files": ("manifest", "files", {}),
}
RIGHT: dict[str, tuple[str, str, object]] = {
    "the longest id": ("review", "review_id", "é" * 128),
    "the longest text": ("review", "text", "🎬" * 100_000),
    "a text with little in it": ("review", "text", "\n\x00.\x00"),
    "certainty": ("prediction", "confidence", 1),
    "the largest offset": ("prediction", "source", {"topic": "reviews", "partition": 0, "offset": 2**63 - 1}),
    "a field of a later release in a part": ("prediction", "source", golden("prediction")["source"] | {"rack": "a"}),
    "no digest of the data": ("manifest", "data_digest", None),
}


@pytest.mark.parametrize(("case", "valid"), [*((case, False) for case in WRONG), *((case, True) for case in RIGHT)])
def test_a_schema_judges_as_the_record_does(case: str, valid: bool) -> None:
    name, field, value = (WRONG | RIGHT)[case]
    changed = golden(name) | {field: value}

    try:
        RECORDS[name][0].model_validate_json(json.dumps(changed))
    except ValidationError:
        accepted = False
    else:
        accepted = True

    assert accepted == valid
    assert verdicts(name, changed) == {valid}


COMMON_KEYWORDS = {
    *("$schema", "$id", "$ref", "title", "description", "examples", "default", "type", "enum", "const", "format"),
    *("properties", "required", "additionalProperties", "minProperties", "items", "minItems", "maxItems", "anyOf"),
    *("minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum"),
}
"""Which mean the same in draft 7 and draft 2020-12. `$defs` is only where references lead."""


def schemas_below(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all those in it."""
    yield schema
    for keyword in ("properties", "$defs"):
        for below in schema.get(keyword, {}).values():
            yield from schemas_below(below)
    for keyword in ("items", "additionalProperties"):
        if isinstance(schema.get(keyword), dict):
            yield from schemas_below(schema[keyword])
    for below in schema.get("anyOf", []):
        yield from schemas_below(below)


@every_record
def test_only_what_both_drafts_know_is_used(name: str) -> None:
    """AsyncAPI's schemas are a superset of draft 7, in which `$ref` also hides what stands beside it."""
    for schema in schemas_below(json_schema(name)):
        assert schema.keys() - {"$defs"} <= COMMON_KEYWORDS
        if "$ref" in schema:
            assert schema.keys() <= {"$ref", "title", "description"}


# === AsyncAPI ===

DOCUMENT = asyncapi()
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
REGISTRY: Registry[Any] = Registry().with_resource("urn:asyncapi", DRAFT7.create_resource(DOCUMENT))


def validator(message: str, part: str) -> Validator:
    """Of a message's `headers` or `payload`."""
    return Draft7Validator({"$ref": f"urn:asyncapi#/components/messages/{message}/{part}"}, registry=REGISTRY)


def references(value: object) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for below in value.values():
            yield from references(below)
    elif isinstance(value, list):
        for below in value:
            yield from references(below)


def resolved(reference: str) -> Any:
    place: Any = DOCUMENT
    for step in reference.removeprefix("#/").split("/"):
        place = place[step]
    return place


def test_every_reference_leads_somewhere_in_the_document() -> None:
    found = set(references(DOCUMENT))

    assert "#/components/schemas/Prediction" in found
    for reference in found:
        assert reference.startswith("#/")
        assert resolved(reference)


def test_nothing_in_the_document_is_unused() -> None:
    found = set(references(DOCUMENT))

    for kind in ("messages", "schemas"):
        for name in DOCUMENT["components"][kind]:
            assert f"#/components/{kind}/{name}" in found, name


def test_the_worker_receives_reviews_and_sends_predictions_and_dead_letters() -> None:
    done = {
        (it["action"], resolved(it["channel"]["$ref"])["address"], tuple(map(message_of, it["messages"])))
        for it in DOCUMENT["operations"].values()
    }

    assert done == {
        ("receive", "reviews", ("review",)),
        ("send", "review-predictions", ("prediction",)),
        ("send", "reviews-dead-letters", ("deadLetter",)),
    }


def message_of(reference: dict[str, str]) -> str:
    """An operation's message is one of its channel, which is one of the components."""
    its: str = resolved(reference["$ref"])["$ref"]
    return its.removeprefix("#/components/messages/")


def test_an_operation_names_messages_of_its_own_channel() -> None:
    for operation in DOCUMENT["operations"].values():
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")


def test_topics_group_and_client_are_those_of_the_default_settings() -> None:
    kafka = KafkaSettings()
    topics = {kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic}
    bindings = [channel["bindings"]["kafka"] for channel in DOCUMENT["channels"].values()]
    receives = DOCUMENT["operations"]["receiveReview"]["bindings"]["kafka"]

    assert {binding["topic"] for binding in bindings} == topics
    assert {channel["address"] for channel in DOCUMENT["channels"].values()} == topics
    assert receives["groupId"]["default"] == kafka.group_id
    assert receives["clientId"]["default"] == kafka.client_id


def test_every_reader_is_told_to_read_committed_records_only() -> None:
    told = [
        DOCUMENT["channels"]["predictions"],
        DOCUMENT["channels"]["deadLetters"],
        DOCUMENT["operations"]["receiveReview"],
    ]

    assert all("`isolation.level=read_committed`" in it["description"] for it in told)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_example_of_a_message_is_valid(message: str) -> None:
    (shown,) = MESSAGES[message]["examples"]

    for part in ("headers", "payload"):
        Draft7Validator.check_schema(MESSAGES[message][part])
        validator(message, part).validate(shown[part])


def test_the_example_of_a_dead_letter_is_refused_as_it_says() -> None:
    (shown,) = MESSAGES["deadLetter"]["examples"]
    read = read_review(Message("reviews", 0, 4212, None, REFUSED), 1000)

    assert isinstance(read, Rejection)
    assert shown["payload"] == REFUSED.decode()
    assert shown["headers"]["rejection.reason"] == read.reason.value
    assert shown["headers"]["__connect.errors.exception.message"] == read.detail


@pytest.mark.parametrize("name", ["review", "prediction"])
def test_a_payload_is_judged_as_its_json_schema_judges(name: str) -> None:
    payload = validator(name, "payload")

    payload.validate(golden(name))
    for case, (of, field, value) in (WRONG | RIGHT).items():
        if of == name:
            assert payload.is_valid(golden(name) | {field: value}) == (case in RIGHT), case


def test_the_major_version_is_that_of_the_event() -> None:
    assert EVENT_TYPE.decode().endswith(f".v{MAJOR}")
    assert DOCUMENT["info"]["version"].startswith(f"{MAJOR}.")


@pytest.mark.parametrize("part", ["key", "value"])
def test_a_review_may_be_as_large_as_is_documented_and_no_larger(part: str) -> None:
    message = MESSAGES["review"]
    text = message["summary"] if part == "value" else message["bindings"]["kafka"]["key"]["description"]
    (documented,) = re.findall(r"[0-9,]{4,}", text)
    limit = int(documented.strip(",").replace(",", ""))
    value = json.dumps(golden("review")).encode()

    for size, accepted in ((limit, True), (limit + 1, False)):
        key, padded = (b"k" * size, value) if part == "key" else (b"k", value.ljust(size))
        read = read_review(Message("reviews", 0, 0, key, padded), BatchSettings().max_message_bytes)
        assert isinstance(read, Review) == accepted
        assert accepted or (isinstance(read, Rejection) and read.reason == Reason.TOO_LARGE)


# === Headers ===

LETTERS = Letters("review-predictions", "reviews-dead-letters")
CARRIED: list[Headers] = [
    (),
    (("traceparent", TRACEPARENT), ("replay.hops", b"2"), ("authorization", b"secret"), ("nothing", None)),
]


def written(reason: Reason | None, headers: Headers) -> dict[str, str]:
    """The headers of what follows from a message: of a prediction where there is no reason."""
    message = Message("reviews", 3, 4211, b"key", b"value", headers)
    if reason:
        out = LETTERS.write(message, Rejection(reason=reason, detail="why", source=message.source))
    else:
        prediction = Prediction.model_validate_json(json.dumps(golden("prediction")))
        out = LETTERS.write(message, prediction)
    found = {name: value.decode() for name, value in out.headers}
    assert len(found) == len(out.headers), "a header is there twice"
    return found


@pytest.mark.parametrize("headers", CARRIED, ids=["bare", "traced"])
@pytest.mark.parametrize("reason", [None, *Reason])
def test_the_headers_that_are_written_are_those_that_are_documented(reason: Reason | None, headers: Headers) -> None:
    message = "deadLetter" if reason else "prediction"
    documented = MESSAGES[message]["headers"]

    found = written(reason, headers)

    validator(message, "headers").validate(found)
    assert found.keys() == set(documented["properties"] if headers else documented["required"])


@pytest.mark.parametrize(
    ("message", "header", "value"),
    [
        ("prediction", "ce_type", "review.scored.v2"),
        ("prediction", "ce_id", "4211"),
        ("prediction", "ce_source", "imdb"),
        ("prediction", "content-type", "text/plain"),
        ("prediction", "traceparent", "00-1-2-3"),
        ("deadLetter", "rejection.reason", "too_boring"),
        ("deadLetter", "__connect.errors.offset", "-1"),
        ("deadLetter", "__connect.errors.stage", "SINK"),
        ("deadLetter", "__connect.errors.exception.message", ""),
        ("deadLetter", "replay.hops", "many"),
    ],
)
def test_another_value_of_a_header_is_refused(message: str, header: str, value: str) -> None:
    found = written(Reason.EMPTY if message == "deadLetter" else None, CARRIED[1])

    assert not validator(message, "headers").is_valid(found | {header: value})


@pytest.mark.parametrize("message", ["prediction", "deadLetter"])
def test_a_header_of_a_later_release_is_ignored(message: str) -> None:
    found = written(Reason.EMPTY if message == "deadLetter" else None, ())

    assert validator(message, "headers").is_valid(found | {"later": "x"})


@pytest.mark.parametrize(
    "value",
    [TRACEPARENT, b"", TRACEPARENT.upper(), b"01" + TRACEPARENT[2:], b" " + TRACEPARENT, TRACEPARENT + b"-00", b"00"],
)
def test_a_trace_is_documented_as_it_is_carried_on(value: bytes) -> None:
    pattern = MESSAGES["review"]["headers"]["properties"]["traceparent"]["pattern"]

    assert bool(re.search(pattern, value.decode())) == bool(trace((("traceparent", value),)))


@pytest.mark.parametrize("value", [b"0", b"007", b"999", b"", b"1000", b"-1", b"1.0", b" 1"])
def test_a_count_of_hops_is_documented_as_it_is_carried_on(value: bytes) -> None:
    pattern = MESSAGES["deadLetter"]["headers"]["properties"]["replay.hops"]["pattern"]

    assert bool(re.search(pattern, value.decode())) == bool(hops((("replay.hops", value),)))


def test_a_model_of_any_name_that_a_manifest_may_have_is_a_documented_source() -> None:
    message = Message("reviews", 3, 4211, None, b"value")
    values = golden("prediction") | {"scored_at": datetime(2026, 11, 23, tzinfo=UTC)}
    for name in ("a", "0", "imdb.v2_large-x", "A" * 64):
        assert Draft202012Validator(json_schema("manifest")).is_valid(golden("manifest") | {"name": name})
        model = ModelName(name=name, version=17, digest=values["model"]["digest"])
        prediction = Prediction.model_validate(values | {"model": model, "source": message.source})

        headers = {name: value.decode() for name, value in LETTERS.write(message, prediction).headers}

        validator("prediction", "headers").validate(headers)


# === The command ===


def command(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", "contract", *map(str, arguments)],
        env=os.environ | {"PYTHONHASHSEED": "7", "COLUMNS": "120", "NO_COLOR": "1"} | variables,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
        cwd=ROOT,
    )


def test_the_asyncapi_document_is_printed_whatever_the_settings_are() -> None:
    done = command(WORKER_KAFKA__INPUT_TOPIC="mine", WORKER_KAFKA__GROUP_ID="mine", LC_ALL="C")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == documents()["asyncapi.json"]


def test_all_documents_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "contract"

    done = command("--out", folder)

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(map(Path, done.stdout.split())) == sorted(folder.iterdir())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: text.encode() for name, text in documents().items()
    }


def test_written_again_they_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "review.schema.json").write_text("what was there before, and longer than what comes\n" * 1000)

    assert command("--out", tmp_path).returncode == 0

    assert (tmp_path / "review.schema.json").read_text() == documents()["review.schema.json"]


@pytest.mark.parametrize("place", ["file", "file/below", "taken"])
def test_a_folder_that_cannot_be_written_to_is_one_line_and_exit_2(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "review.schema.json").mkdir(parents=True)

    done = command("--out", tmp_path / place)

    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --out {tmp_path / place}: cannot be written: ")


def test_the_help_shows_how_it_is_used() -> None:
    done = command("--help")

    assert done.returncode == 0
    assert "review-worker contract --out deploy/contract" in done.stdout
