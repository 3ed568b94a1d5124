"""Contract: what crosses a boundary, as documents that tools of any language read.

    the records' bounds, docstrings and examples        -> JSON Schemas, one a record
    those, and the worker's topics, keys and headers    -> an AsyncAPI document

They are made from the code that reads and writes the records. `deploy/contract` has them as they were last published,
and a test compares byte for byte: no change of the contract goes unnoticed.
"""

import ast
import inspect
import json
import re
import textwrap
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

import schemas
from schemas import Manifest, Prediction, Reason, Rejection, Review, Source
from schemas.record import Record
from worker.errors import UsageError
from worker.intake import MAX_KEY_BYTES
from worker.letters import CONNECTOR, EVENT_TYPE, HOPS, Letters, Outgoing
from worker.message import Message
from worker.settings import BatchSettings, KafkaSettings
from worker.topics import DEAD_LETTER_ROOM, MAX_MESSAGE_BYTES

MAJOR = 1
"""Of the contract. Another one says that a field or header has another meaning: `ce_type` and every `$id` hold it."""

VERSION = f"{MAJOR}.0.0"
"""Of the contract, not of the program. The second number grows with every field or header that is added."""

ASYNCAPI = "3.1.0"
KAFKA_BINDING = "0.5.0"

RECORDS: dict[str, tuple[type[Record], JsonSchemaMode]] = {
    "review": (Review, "validation"),
    "prediction": (Prediction, "serialization"),
    "rejection": (Rejection, "serialization"),
    # The trainer writes it. Who makes artefacts by other means has to know what the worker takes.
    "manifest": (Manifest, "validation"),
}
"""What is read is described as leniently as it is read (fields with a default may be absent), what is written as it is
written."""

KINDS: dict[str, type[Any]] = {name: getattr(schemas, name) for name in schemas.__all__}
"""Records, their parts and the closed list by name, which is the title that pydantic gives their schemas."""

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
"""The example of W3C Trace Context."""

REFUSED = b'{"review_id": "tt0111161-18"}'
"""A value that is refused with the example of `Rejection`."""


def documents() -> dict[str, str]:
    """Every document by the name of its file. The same code gives the same bytes, whatever the environment says."""
    made = {f"{name}.schema.json": json_schema(name) for name in RECORDS}
    made["asyncapi.json"] = asyncapi()
    return {name: json.dumps(document, ensure_ascii=False, indent=2) + "\n" for name, document in made.items()}


def write(folder: Path) -> list[Path]:
    """Write every document, over those that are there.

    Args:
        folder: made if it is missing.

    Returns:
        Where they are.

    Raises:
        UsageError: the folder cannot be written to.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in documents().items():
            path = folder / name
            path.write_bytes(text.encode())
            written.append(path)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written: {error.strerror}") from None
    return written


# === JSON Schemas ===


def json_schema(name: str) -> dict[str, Any]:
    """The schema of one of `RECORDS`, draft 2020-12.

    Only keywords that mean the same in draft 7 are in it, so that validators of either read it alike.
    """
    record, mode = RECORDS[name]
    made = record.model_json_schema(mode=mode)
    parts = {title: _documented(part) for title, part in made.pop("$defs", {}).items()}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        # A URN: it names the schema and promises no server that would give it.
        "$id": f"urn:review-scorer:schema:{name}:{MAJOR}",
        **_documented(made),
        **({"$defs": parts} if parts else {}),
    }


def _documented(made: dict[str, Any]) -> dict[str, Any]:
    """A schema that pydantic made of a record or a closed list, with what the docstrings below its class say."""
    kind = KINDS[made["title"]]
    said = _docstrings(kind)
    description = _prose(kind)
    rest = {name: value for name, value in made.items() if name not in ("title", "description", "type")}
    if issubclass(kind, Enum):
        lines = [f"- `{it.value}`" + (f": {said[it.name]}" if it.name in said else "") for it in kind]
        description = "\n".join([description, "", *lines])
    else:
        for field, text in said.items():
            rest["properties"][field] = {"description": text, **rest["properties"][field]}
        rest["examples"] = [example(kind)]
    return {"title": made["title"], "description": description, "type": made["type"], **rest}


_EXAMPLE = re.compile(r"Example: `(.+?)`(?: \(64 digits\))?", re.DOTALL)
_SHORTENED = re.compile(r"sha256:([0-9a-f]+)\.\.\.([0-9a-f]+)")


def example(record: type[Any]) -> Any:
    """The JSON value that a record's docstring shows. A digest that is shortened there is filled up with zeros."""
    shown = _EXAMPLE.search(inspect.getdoc(record) or "")
    if shown is None:
        raise ValueError(f"the docstring of {record.__name__} shows no example. This is a bug.")
    return json.loads(_SHORTENED.sub(lambda it: f"sha256:{it[1]:0<{64 - len(it[2])}}{it[2]}", shown[1]))


def _prose(kind: type[Any]) -> str:
    """The docstring of a class without its example, which stands elsewhere."""
    return _unwrapped(_EXAMPLE.sub("", inspect.getdoc(kind) or ""))


def _unwrapped(text: str) -> str:
    """Each paragraph on one line: the reader's window is not ours."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text.strip())


def _docstrings(kind: type[Any]) -> dict[str, str]:
    """What stands below the fields or members of a class. Python keeps these strings nowhere but in the source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)).body
    found = {}
    for statement, following in pairwise(body):
        match statement, following:
            case (
                (ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)])),
                ast.Expr(value=ast.Constant(value=str(said))),
            ):
                found[name] = _unwrapped(inspect.cleandoc(said))
    return found


# === AsyncAPI ===


def asyncapi() -> dict[str, Any]:
    """Topics, keys, headers and payloads from the worker's point of view, with the names of its default settings.

    The payloads are AsyncAPI's own schema objects, a superset of draft 7. References to the JSON Schemas would need
    `schemaFormat`: the specification has no value for draft 2020-12, and its parser refuses what it does not know.
    """
    kafka = KafkaSettings()
    return {
        "asyncapi": ASYNCAPI,
        "id": "urn:review-scorer:worker",
        "info": {
            "title": "Review scorer",
            "version": VERSION,
            "description": (
                "Every record on the topic of reviews gives exactly one record: a prediction, or a dead letter that "
                "says why there is none.\n\nNames of topics, group and client are those of the default settings. What "
                "comes later is added: ignore fields and headers that you do not know."
            ),
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "kafka": {
                "host": kafka.bootstrap_servers,
                "protocol": "kafka",
                "description": "WORKER_KAFKA__BOOTSTRAP_SERVERS, by TLS if WORKER_KAFKA__SECURITY_PROTOCOL says so.",
            }
        },
        "channels": _channels(kafka),
        "operations": _operations(kafka),
        "components": {"messages": _messages(kafka), "schemas": _payloads()},
    }


def _channels(kafka: KafkaSettings) -> dict[str, Any]:
    return {
        "reviews": _channel(
            kafka.input_topic,
            "review",
            "Reviews to be scored. Records of transactions that were aborted are never scored, those of open ones not "
            "before they are committed.",
        ),
        "predictions": _channel(
            kafka.output_topic,
            "prediction",
            "What the model says of each review. Read it with `isolation.level=read_committed`: only then is every "
            "prediction there once. Any other reader also sees those of transactions that were aborted, whose reviews "
            "are scored again. A review's key is its prediction's, so that what has one key stays in order; without a "
            "key, records of one partition go to one partition.",
        ),
        "deadLetters": _channel(
            kafka.dead_letter_topic,
            "deadLetter",
            "Records that cannot be scored, as they came. Read it with `isolation.level=read_committed`. Key and "
            "order are as with predictions. `review-worker replay` puts them back on the topic of reviews. Headers "
            "come on top of the record: this topic must take larger ones than that of reviews.",
            {"max.message.bytes": DEAD_LETTER_ROOM * MAX_MESSAGE_BYTES},
        ),
    }


def _channel(topic: str, message: str, description: str, configuration: dict[str, Any] | None = None) -> dict[str, Any]:
    binding: dict[str, Any] = {"topic": topic, "bindingVersion": KAFKA_BINDING}
    if configuration:
        binding["topicConfiguration"] = configuration
    return {
        "address": topic,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"kafka": binding},
    }


def _operations(kafka: KafkaSettings) -> dict[str, Any]:
    client = {"clientId": {"type": "string", "default": kafka.client_id}, "bindingVersion": KAFKA_BINDING}
    group = {"groupId": {"type": "string", "default": kafka.group_id}}
    sent = (
        "In one transaction with the offsets of the reviews, for each micro-batch: a worker that dies leaves both or "
        "neither."
    )
    return {
        "receiveReview": _operation(
            "receive",
            "reviews",
            "review",
            "Read with `isolation.level=read_committed`. Its offsets are committed with the predictions and dead "
            "letters that follow from it.",
            group | client,
        ),
        "sendPrediction": _operation("send", "predictions", "prediction", sent, client),
        "sendDeadLetter": _operation("send", "deadLetters", "deadLetter", sent, client),
    }


def _operation(action: str, channel: str, message: str, description: str, binding: dict[str, Any]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "description": description,
        "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"}],
        "bindings": {"kafka": binding},
    }


def _messages(kafka: KafkaSettings) -> dict[str, Any]:
    letters = Letters(kafka.output_topic, kafka.dead_letter_topic)
    limit = BatchSettings().max_message_bytes
    prediction = Prediction.model_validate_json(json.dumps(example(Prediction)))
    rejection = Rejection.model_validate_json(json.dumps(example(Rejection)))
    return {
        "review": _message(
            title="Review",
            summary=f"One review as UTF-8 JSON of at most {limit:,} bytes. Anything else becomes a dead letter.",
            key=f"Any bytes, at most {MAX_KEY_BYTES:,}, or none. Reviews with the same key are scored in order, and "
            "stay in order.",
            headers=_REVIEW_HEADERS,
            payload={"$ref": "#/components/schemas/Review"},
            shown={"headers": {"traceparent": TRACEPARENT}, "payload": example(Review)},
        ),
        "prediction": _message(
            title="Prediction",
            summary="One scored review: a CloudEvent in binary mode of Kafka's protocol binding.",
            key="The review's, byte for byte; none where it had none.",
            headers=_PREDICTION_HEADERS,
            payload={"$ref": "#/components/schemas/Prediction"},
            shown={
                "headers": _headers_of(letters.write(_read_at(prediction.source, b""), prediction)),
                "payload": example(Prediction),
            },
        ),
        "deadLetter": _message(
            title="Dead letter",
            summary="One record that could not be scored: key and value as they came, with headers in Kafka Connect's "
            "form on why, and where from.",
            key="The record's, byte for byte; none where it had none.",
            content_type="application/octet-stream",
            headers=_DEAD_LETTER_HEADERS,
            payload={
                "title": "Original value",
                "description": "The record's value, byte for byte, and null where that was null. A record with neither "
                "key nor value gets an empty value.",
                "type": ["string", "null"],
                "format": "binary",
            },
            shown={
                "headers": _headers_of(letters.write(_read_at(rejection.source, REFUSED), rejection)),
                "payload": REFUSED.decode(),
            },
        ),
    }


def _message(
    *,
    title: str,
    summary: str,
    key: str,
    content_type: str = "application/json",
    headers: dict[str, Any],
    payload: dict[str, Any],
    shown: dict[str, Any],
) -> dict[str, Any]:
    return {
        "title": title,
        "summary": summary,
        "contentType": content_type,
        "headers": headers,
        "payload": payload,
        "bindings": {
            "kafka": {
                "key": {"type": ["string", "null"], "format": "binary", "description": key},
                "bindingVersion": KAFKA_BINDING,
            }
        },
        "examples": [shown],
    }


def _read_at(place: Source, value: bytes) -> Message:
    """The input record of an example."""
    traced = (("traceparent", TRACEPARENT.encode()),)
    return Message(place.topic, place.partition, place.offset, None, value, traced)


def _headers_of(out: Outgoing) -> dict[str, str]:
    """The headers of an example, as the worker writes them."""
    return {name: value.decode() for name, value in out.headers}


def _payloads() -> dict[str, Any]:
    """The records and the closed list that messages refer to."""
    wanted: list[tuple[str, JsonSchemaMode, type[Record] | type[Enum]]] = [
        ("review", "validation", Review),
        ("prediction", "serialization", Prediction),
        ("reason", "serialization", Reason),
    ]
    _, made = TypeAdapter.json_schemas(
        [(name, mode, TypeAdapter(kind)) for name, mode, kind in wanted],
        ref_template="#/components/schemas/{model}",
    )
    return {title: _documented(part) for title, part in made["$defs"].items()}


# === Headers ===


def _text(description: str, **rules: Any) -> dict[str, Any]:
    """A header's value: UTF-8 text, as every header here."""
    return {"type": "string", "description": description} | rules


def _headers(required: dict[str, Any], optional: dict[str, Any]) -> dict[str, Any]:
    made = {"type": "object", "properties": required | optional}
    return made | {"required": list(required)} if required else made


_TRACE = {
    "traceparent": _text(
        "W3C Trace Context, version 00: carried on from the review to whatever follows from it. Anything else is left "
        "behind.",
        pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
        examples=[TRACEPARENT],
    )
}
_HOPS = {
    HOPS: _text(
        "How often `review-worker replay` has put this record back on the topic of reviews.",
        pattern="^[0-9]{1,3}$",
        examples=["1"],
    )
}

_REVIEW_HEADERS = _headers({}, _TRACE | _HOPS)

_PREDICTION_HEADERS = _headers(
    {
        "content-type": _text("CloudEvents' `datacontenttype`.", const="application/json"),
        "ce_specversion": _text("The version of CloudEvents.", const="1.0"),
        "ce_id": _text(
            "Topic, partition and offset of the review: the same however often it had to be tried, so that a consumer "
            "can tell a repetition of its own.",
            pattern="^[A-Za-z0-9._-]{1,249}/[0-9]+/[0-9]+$",
        ),
        "ce_source": _text(
            "The model, by name and version.", pattern="^/models/[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[1-9][0-9]*$"
        ),
        "ce_type": _text("The kind of event and the major version of this contract.", const=EVENT_TYPE.decode()),
        "ce_time": _text("When the review was scored, in UTC: `scored_at` of the payload.", format="date-time"),
    },
    _TRACE,
)

_DEAD_LETTER_HEADERS = _headers(
    {
        "rejection.reason": {"$ref": "#/components/schemas/Reason"},
        "__connect.errors.topic": _text("The topic that the record was read from.", minLength=1),
        "__connect.errors.partition": _text("Its partition.", pattern="^[0-9]+$"),
        "__connect.errors.offset": _text("Its offset.", pattern="^[0-9]+$"),
        "__connect.errors.connector.name": _text("Who refused it.", const=CONNECTOR.decode()),
        "__connect.errors.stage": _text(
            "Where: in reading the record, or behind that, in scoring the review.",
            enum=["VALUE_CONVERTER", "TRANSFORMATION"],
        ),
        "__connect.errors.exception.message": _text(
            "One line for a person: which field, what was expected. It never holds a part of the record.",
            minLength=1,
            maxLength=500,
        ),
    },
    _TRACE | _HOPS,
)
