"""The catalogue and more through a real broker and the real worker: one answer each, no word of them anywhere else, and
no more memory than a bound; then what a small request can grow to."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord

from contract.pieces import BAD_KEY, StubWorker, produce_raw, started_stubs
from faults.oracle import Place, examine, place_of_dead_letter, place_of_prediction
from hostile.records import CATALOGUE, GOOD, LIMIT, MARK, TEXTS, Hostile, filled, fuzzed, review
from running import Stage, Worker
from schemas import Prediction, Rejection, Review
from worker.intake import read_review
from worker.message import Message

pytestmark = pytest.mark.kafka

StartWorker = Callable[..., Worker]
StartStub = Callable[..., StubWorker]

CASE = "case"
"""Header of ours that says which record of the catalogue this is."""

ROOM = 20_000_000
"""Bytes of a record that a topic takes once it is asked to; the default is 1 MB."""

ANY_NUMBER = {"WORKER_LIMITS__CONSECUTIVE_DEAD_LETTERS": "0"}


@pytest.fixture
def start_stub(stage: Stage, tiny_model: Path, tmp_path: Path) -> Iterator[StartStub]:
    """Start workers without TensorFlow on the stage."""
    with started_stubs(stage, tiny_model, tmp_path) as start:
        yield start


def publish(stage: Stage, records: Sequence[tuple[str, Hostile]]) -> None:
    """Put records on the input topic, in turn on its partitions; those that kafka-python would not send come last, in
    requests of our own."""
    producer = KafkaProducer(bootstrap_servers=stage.address, acks="all", linger_ms=20, max_request_size=ROOM)
    raw: list[list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]] = [[], []]
    try:
        sent = []
        for number, (name, it) in enumerate(records):
            headers = [*it.headers, (CASE, name.encode())]
            if any(value is None for _, value in headers) or (it.key is None and it.value is None):
                raw[number % 2].append((it.key, it.value, headers))
                continue
            sent.append(
                producer.send(
                    stage.input,
                    key=it.key,
                    value=it.value,
                    headers=headers,
                    partition=number % 2,
                    timestamp_ms=it.timestamp_ms,
                )
            )
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close(timeout=10)
    for partition, some in enumerate(raw):
        if some:
            produce_raw(stage.address, stage.input, partition, some)


def good(count: int) -> list[tuple[str, Hostile]]:
    """Reviews as they should be."""
    return [
        (f"good {number}", Hostile(review(review_id=f"good-{number}", text="the movie was great"), "scored"))
        for number in range(count)
    ]


def peak_megabytes(worker: Worker) -> float:
    """The most memory that its process ever had."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def place_of(record: ConsumerRecord) -> Place:
    return record.partition, record.offset


# --- everything ---

GROWTH_MEGABYTES = 400
"""A fetch of 1 MB for each partition, some 40 records of up to 2.5 MB in hand twice, their dead letters in the
producer, and the tokens of a million characters."""


def test_each_hostile_record_has_its_one_answer_and_the_good_ones_are_scored(
    stage: Stage, start: StartWorker, tiny_model: Path
) -> None:
    stage.configure(stage.input, max_message_bytes=ROOM, message_timestamp_after_max_ms=(1 << 63) - 1)
    hostile = [*CATALOGUE.items(), *((f"seed 1, number {n}", it) for n, it in enumerate(fuzzed(1_500, seed=1)))]
    friendly = good(len(hostile) // 9)
    mixed = [it for number, one in enumerate(friendly) for it in (one, *hostile[number :: len(friendly)])]
    publish(stage, friendly)
    worker = start(tiny_model, WORKER_LOG_LEVEL="debug", WORKER_BATCH__MAX_MESSAGE_BYTES=str(LIMIT), **ANY_NUMBER)
    stage.wait_until_drained(120)
    before = peak_megabytes(worker)

    publish(stage, mixed)
    stage.wait_until_drained(120)

    growth = peak_megabytes(worker) - before
    _, metrics = worker.get("/metrics")
    assert worker.stop() == 0
    found = examine(stage)
    assert found.sound, found
    assert found.inputs == len(friendly) + len(mixed)
    require_the_answers(stage)
    reasons = Counter(dict(letter.headers)["rejection.reason"].decode() for letter in stage.read(stage.dead))
    for reason, count in reasons.items():
        assert f'review_worker_rejections_total{{reason="{reason}"}} {count}.0' in metrics
    assert f"review_worker_reviews_consumed_total {found.inputs}.0" in metrics
    assert MARK not in metrics
    assert MARK not in worker.log.read_text()
    assert growth < GROWTH_MEGABYTES


def require_the_answers(stage: Stage) -> None:
    """Each input has the answer that the intake gives in this process, and those of the catalogue what is written
    there; dead letters hold them byte for byte."""
    predictions = {place_of_prediction(record): record for record in stage.read(stage.output)}
    letters = {place_of_dead_letter(record): record for record in stage.read(stage.dead)}
    seen = set()
    for record in stage.read(stage.input):
        name = dict(record.headers)[CASE].decode()
        seen.add(name)
        read = read_review(Message(stage.input, record.partition, record.offset, record.key, record.value), LIMIT)
        if name in CATALOGUE:
            assert (read.reason if isinstance(read, Rejection) else "scored") == CATALOGUE[name].expected, name
        if isinstance(read, Review):
            prediction = Prediction.model_validate_json(predictions.pop(place_of(record)).value)
            assert prediction.review_id == read.review_id, name
            assert not name.startswith("good") or prediction.review_id.startswith("good-"), name
        else:
            assert not name.startswith("good"), name
            letter = letters.pop(place_of(record))
            assert letter.key == record.key, name
            assert letter.value == (b"" if record.key is None and record.value is None else record.value), name
            headers = dict(letter.headers)
            assert headers["rejection.reason"] == read.reason.value.encode(), name
            assert headers["__connect.errors.topic"] == stage.input.encode(), name
            assert headers["__connect.errors.exception.message"] == read.detail.encode(), name
            assert MARK not in repr(letter.headers), name
    assert seen >= CATALOGUE.keys()
    assert not predictions
    assert not letters


def test_a_record_that_cannot_be_decoded_is_counted_and_the_others_are_scored(
    stage: Stage, start_stub: StartStub
) -> None:
    """A header's name that is not UTF-8 is legal for the broker. The record has no answer: it is the one loss that the
    worker counts instead, since its bytes never come out of the client."""
    publish(stage, good(4))
    produce_raw(stage.address, stage.input, 0, [(MARK.encode(), GOOD, [(BAD_KEY, MARK.encode())])])
    produce_raw(stage.address, stage.input, 1, [(None, GOOD, [(BAD_KEY, None)]), (None, GOOD, [])])
    publish(stage, good(4))
    worker = start_stub(WORKER_LOG_LEVEL="debug")
    stage.wait_until_drained(60)
    _, metrics = worker.get("/metrics")
    assert worker.stop() == 0
    scored = [place_of_prediction(record) for record in stage.read(stage.output)]
    assert sorted(scored) == [(0, 0), (0, 1), (0, 3), (0, 4), (1, 0), (1, 1), (1, 4), (1, 5)]
    assert "review_worker_corrupt_records_total 3.0" in metrics
    assert MARK not in metrics + worker.log.read_text()


# --- what grows ---

BOMBS: dict[str, Callable[[], list[bytes]]] = {
    "one record of 50 MB": lambda: [filled(50_000_000)],
    "5,000 records of 10 kB": lambda: [filled(10_000).replace(b"text", b"TEXT")] * 5_000,
    "60 of the longest reviews": lambda: [review(text=TEXTS["100,000: Chinese"])] * 60,
}
BOMB_MEGABYTES = 400
"""A bomb's content some eight times over: decompressed, sliced, in hand, and in the producer before and after it is
compressed again. 190 MB, 110 MB and 260 MB were measured; the longest reviews took twice as much where the tokenizer
was given all of them at once."""


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_a_small_batch_grows_to_fits_and_the_next_review_is_scored(
    stage: Stage, start_stub: StartStub, bomb: str
) -> None:
    """Decompression has no limit; what is fetched has, and it is what is measured here."""
    publish(stage, good(2))
    worker = start_stub(**ANY_NUMBER)
    stage.wait_until_drained(60)
    before = peak_megabytes(worker)

    values = BOMBS[bomb]()
    explode(stage, values)
    publish(stage, good(2))
    stage.wait_until_drained(120)

    growth = peak_megabytes(worker) - before
    assert worker.stop() == 0
    found = examine(stage)
    assert found.sound, found
    assert found.inputs == 4 + len(values)
    assert found.predictions == 4 + sum(len(value) < LIMIT and b'"text"' in value for value in values)
    assert MARK not in worker.log.read_text()
    assert growth < BOMB_MEGABYTES


def explode(stage: Stage, values: Sequence[bytes]) -> None:
    """One record batch, which its topic takes for 1 MB at most."""
    producer = KafkaProducer(
        bootstrap_servers=stage.address,
        acks="all",
        compression_type="gzip",
        linger_ms=60_000,
        batch_size=1 << 30,
        max_request_size=1 << 30,
    )
    try:
        sent = [producer.send(stage.input, value=value, partition=0) for value in values]
        producer.flush(timeout=60)
        for future in sent:
            future.get(timeout=30)
    finally:
        producer.close(timeout=10)


def test_a_dead_letter_without_room_stops_the_worker_and_is_written_once_there_is(
    stage: Stage, start_stub: StartStub
) -> None:
    """A record of 10 MB on a topic that takes it, and dead letters that do not: skipping it would lose it."""
    stage.configure(stage.input, max_message_bytes=ROOM)
    large = random.Random(1).randbytes(10_000_000)  # noqa: S311 - bytes that no codec makes fewer
    publish(stage, [*good(2), ("large", Hostile(large, None))])
    worker = start_stub("without-room")
    assert worker.wait(60) == 1
    assert "raise max.message.bytes" in worker.log.read_text()
    assert not stage.read(stage.dead)

    stage.configure(stage.dead, max_message_bytes=ROOM)
    publish(stage, good(2))
    again = start_stub("with-room")
    stage.wait_until_drained(60)
    assert again.stop() == 0
    found = examine(stage)
    assert found.sound, found
    assert (found.predictions, found.dead_letters) == (4, 1)
    (letter,) = stage.read(stage.dead)
    assert letter.value == large
    assert MARK not in worker.log.read_text() + again.log.read_text()
