"""The public contract on a real broker: the headers that are documented, and the sample clients that strangers copy."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from referencing import Registry
from referencing.jsonschema import DRAFT7

from contract.pieces import StubWorker, review, visible
from running import BROKER, ROOT, Stage
from schemas import Prediction, Reason
from worker.letters import Letters
from worker.message import Message

pytestmark = pytest.mark.kafka

StartStub = Callable[..., StubWorker]

EXAMPLES = ROOT / "deploy" / "examples"
PUBLISHED = ROOT / "deploy" / "contract"
TRACE = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01")
CLIENT_SECONDS = 120


# === What is documented, on records of the worker ===

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CARRIED = [("traceparent", TRACEPARENT), ("replay.hops", b"2"), ("authorization", b"secret")]
POISON = ("great " * 40).encode()
"""Makes a stub fail that is told to by `STUB_POISON`."""

AT_FAULT: dict[Reason, bytes | None] = {
    Reason.TOMBSTONE: None,
    Reason.EMPTY: b"",
    Reason.TOO_LARGE: b" " * 2000,
    Reason.CONFLUENT_FRAMED: b"\x00\x00\x00\x00\x01" + review(1),
    Reason.NOT_UTF8: b"\xff",
    Reason.NOT_JSON: b"great",
    Reason.NOT_AN_OBJECT: b"[]",
    Reason.MISSING_FIELD: b"{}",
    Reason.WRONG_TYPE: b'{"review_id": 1, "text": "great"}',
    Reason.OUT_OF_BOUNDS: b'{"review_id": "", "text": "great"}',
    Reason.SCORER_FAILED: review(1, POISON.decode()),
}


def document() -> dict[str, Any]:
    made: dict[str, Any] = json.loads((PUBLISHED / "asyncapi.json").read_text(encoding="utf-8"))
    return made


def headers_of(record: ConsumerRecord) -> dict[str, str]:
    """As text; each is there once."""
    found = {name: value.decode() for name, value in record.headers}
    assert len(found) == len(record.headers)
    return found


def send(stage: Stage, values: list[bytes | None], headers: list[tuple[str, bytes]]) -> None:
    """Put values on the input topic under one key."""
    producer = KafkaProducer(bootstrap_servers=stage.address)
    try:
        sent = [producer.send(stage.input, key=b"key", value=value, headers=headers) for value in values]
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close(timeout=10)


def test_real_records_have_every_documented_header_and_no_other(stage: Stage, start_stub: StartStub) -> None:
    values = [review(1), *AT_FAULT.values()]
    send(stage, values, [])
    send(stage, values, CARRIED)
    start_stub(STUB_POISON="30", WORKER_BATCH__MAX_MESSAGE_BYTES="1000")
    stage.wait_until_drained(60)
    records = {"prediction": visible(stage, stage.output), "deadLetter": visible(stage, stage.dead)}
    assert {name: len(found) for name, found in records.items()} == {"prediction": 2, "deadLetter": 2 * len(AT_FAULT)}
    dead = [headers_of(record)["rejection.reason"] for record in records["deadLetter"]]
    assert sorted(dead) == sorted(2 * list(AT_FAULT))
    registry: Registry[Any] = Registry().with_resource("urn:asyncapi", DRAFT7.create_resource(document()))
    for message, found in records.items():
        schema = document()["components"]["messages"][message]["headers"]
        place = {"$ref": f"urn:asyncapi#/components/messages/{message}/headers"}
        validator = Draft7Validator(place, registry=registry)
        for record in found:
            validator.validate(headers_of(record))
        sets = {frozenset(headers_of(record)) for record in found}
        assert sets == {frozenset(schema["required"]), frozenset(schema["properties"])}


def test_real_predictions_are_what_their_schema_says(stage: Stage, start_stub: StartStub) -> None:
    schema = json.loads((PUBLISHED / "prediction.schema.json").read_text(encoding="utf-8"))
    stage.publish([review(1), review(2, "great " * 200)])
    start_stub()
    stage.wait_until_drained(60)
    values = [json.loads(record.value) for record in visible(stage, stage.output)]
    assert sorted(value["truncated"] for value in values) == [False, True]
    for value in values:
        Draft202012Validator(schema).validate(value)
        # Of a model whose labels are names: those that are numbers have a rating too.
        assert value.keys() == schema["properties"].keys() - {"rating"} == set(schema["required"])


# === The sample clients ===


@pytest.fixture(scope="session")
def java(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that a Java sample is the next argument of."""
    home = os.environ.get("JAVA_HOME")
    program = str(Path(home, "bin", "java")) if home else shutil.which("java")
    assert program, "no Java, which the broker needs as well"
    modules = subprocess.run([program, "--list-modules"], capture_output=True, text=True, check=True, timeout=60)
    if "jdk.compiler@" not in modules.stdout:
        pytest.skip("a JRE, which is enough for the broker, cannot run a Java source file: a JDK can")
    jars = subprocess.run(
        [sys.executable, str(BROKER), "install"], capture_output=True, text=True, check=True, timeout=280
    )
    return [program, "-XX:TieredStopAtLevel=1", "-classpath", f"{jars.stdout.strip()}/*"]


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Run a sample to its end, `client("python", "producer", …)`, and give what it printed."""

    def run(language: str, name: str, *arguments: str | int, given: str = "") -> str:
        if language == "python":
            program = [sys.executable, str(EXAMPLES / f"{name}.py")]
        else:
            program = [*request.getfixturevalue("java"), str(EXAMPLES / f"{name.title()}.java")]
        done = subprocess.run(
            [*program, *map(str, arguments)],
            input=given,
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=CLIENT_SECONDS,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def expected_line(record: ConsumerRecord) -> str:
    """What a sample consumer has to print of an output record."""
    headers = headers_of(record)
    if "rejection.reason" in headers:
        place = "/".join(headers[f"__connect.errors.{part}"] for part in ("topic", "partition", "offset"))
        detail = headers["__connect.errors.exception.message"]
        return f"dead letter\t{place}\t{headers['rejection.reason']}\t{detail}"
    prediction = Prediction.model_validate_json(record.value)
    place = f"{prediction.source.topic}/{prediction.source.partition}/{prediction.source.offset}"
    return f"prediction\t{place}\t{prediction.review_id}\t{prediction.label}\t{prediction.confidence:.3f}"


@pytest.mark.parametrize(("producer", "consumer"), [("python", "java"), ("java", "python")])
def test_reviews_of_one_language_are_read_back_by_the_other(
    stage: Stage, start_stub: StartStub, client: Callable[..., str], producer: str, consumer: str
) -> None:
    texts = ["I loved it.", "Ça va très bien 🎬", " ", 'He said: "No."']
    start_stub()

    ids = client(producer, "producer", stage.address, stage.input, given="\n".join(texts) + "\n").split()
    lines = client(consumer, "consumer", stage.address, stage.output, stage.dead, len(texts)).splitlines()

    published = {json.loads(record.value)["review_id"]: record for record in stage.read(stage.input)}
    assert [json.loads(published[it].value)["text"] for it in ids] == texts
    assert [published[it].key.decode() for it in ids] == ids
    records = [*visible(stage, stage.output), *visible(stage, stage.dead)]
    assert sorted(lines) == sorted(map(expected_line, records))
    assert [line.partition("\t")[0] for line in sorted(lines)] == ["dead letter", *3 * ["prediction"]]
    assert {line.split("\t")[2] for line in lines} == {"out_of_bounds", ids[0], ids[1], ids[3]}
    traces = {dict(record.headers)["traceparent"] for record in records}
    assert len(traces) == len(texts), "each review has a trace of its own"
    assert all(TRACE.fullmatch(it) for it in traces)


def put_prediction(stage: Stage, producer: KafkaProducer, number: int, event: bytes | None = None) -> None:
    """A prediction on the output topic, as the worker writes it; with another type of event if that is given."""
    message = Message(stage.input, 0, number, b"key", b"value")
    golden = json.loads((ROOT / "tests" / "schemas" / "golden" / "prediction.json").read_text(encoding="utf-8"))
    prediction = Prediction.model_validate_json(json.dumps(golden | {"review_id": f"r{number}"}))
    out = Letters(stage.output, stage.dead).write(message, prediction)
    headers = [(name, event if event and name == "ce_type" else value) for name, value in out.headers]
    producer.send(out.topic, key=out.key, value=out.value, headers=headers).get(timeout=30)


@pytest.mark.parametrize("language", ["python", "java"])
def test_a_consumer_reads_what_is_committed_and_goes_on_where_it_was(
    stage: Stage, client: Callable[..., str], language: str
) -> None:
    """The aborted prediction stands first: whoever reads it at all reads it before the others."""
    address = (stage.address, stage.output, stage.dead)
    producer = KafkaProducer(bootstrap_servers=stage.address, transactional_id=f"{stage.name}-other")
    producer.init_transactions()
    try:
        producer.begin_transaction()
        put_prediction(stage, producer, 1)
        producer.abort_transaction()
        producer.begin_transaction()
        put_prediction(stage, producer, 2)
        put_prediction(stage, producer, 3, b"review.scored.v2")
        producer.commit_transaction()
        first = client(language, "consumer", *address, 2).splitlines()
        producer.begin_transaction()
        put_prediction(stage, producer, 4)
        producer.commit_transaction()
        second = client(language, "consumer", *address, 1).splitlines()
    finally:
        producer.close(timeout=10)

    assert first == [
        f"prediction\t{stage.input}/0/2\tr2\tpositive\t0.938",
        f"unknown\t{stage.input}/0/3\treview.scored.v2",
    ]
    assert second == [f"prediction\t{stage.input}/0/4\tr4\tpositive\t0.938"]


@pytest.mark.parametrize("name", ["producer", "consumer"])
def test_a_sample_without_arguments_shows_how_it_is_used(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 2
    assert f"python {name}.py 127.0.0.1:9092" in done.stderr


def test_the_readme_shows_every_sample() -> None:
    shown = (EXAMPLES / "README.md").read_text(encoding="utf-8")

    samples = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".java")]
    assert len(samples) == 4
    for name in samples:
        assert f"deploy/examples/{name}" in shown
