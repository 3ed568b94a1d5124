"""Letters: the record that goes out for each one that came in."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ModelName, Prediction, Reason, Rejection, Source
from worker.letters import Letters, Outgoing, hops, trace
from worker.message import Headers, Message

LETTERS = Letters("review-predictions", "reviews-dead-letters")
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def message(key: bytes | None = b"key", value: bytes | None = b"value", headers: Headers = ()) -> Message:
    return Message("reviews", 3, 4211, key, value, headers, 1_795_000_000_000)


def prediction_of(message: Message) -> Prediction:
    return Prediction(
        review_id="tt0111161-17",
        label="positive",
        label_id=1,
        confidence=0.75,
        probabilities={"negative": 0.25, "positive": 0.75},
        model=ModelName(name="imdb", version=3, digest="sha256:" + "0" * 64),
        source=message.source,
        tokens=12,
        truncated=False,
        scored_at=datetime(2026, 11, 23, 10, tzinfo=timezone(timedelta(hours=1))),
    )


def predicted(message: Message) -> Outgoing:
    return LETTERS.write(message, prediction_of(message))


def rejected(message: Message) -> Outgoing:
    return LETTERS.write(
        message, Rejection(reason=Reason.NOT_UTF8, detail="byte 3 is not UTF-8", source=message.source)
    )


# --- predictions ---


def test_a_prediction_goes_to_its_topic_under_the_key_of_its_review() -> None:
    out = predicted(message(key=b"\x00\xff"))

    assert (out.topic, out.source_partition, out.key) == ("review-predictions", 3, b"\x00\xff")
    assert predicted(message(key=None)).key is None


def test_its_value_is_the_prediction_as_json() -> None:
    out = predicted(message())

    assert out.value is not None
    assert Prediction.model_validate_json(out.value) == prediction_of(message())
    assert json.loads(out.value)["source"] == {"topic": "reviews", "partition": 3, "offset": 4211}


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=128)
shares = st.floats(0, 1)


@given(names, names, names, shares, shares, st.integers(0), st.integers(2), st.booleans(), st.datetimes())
def test_its_bytes_are_those_of_the_schema(
    review_id: str, label: str, topic: str, one: float, other: float, offset: int, tokens: int, cut: bool, at: datetime
) -> None:
    """Whatever stands in it: quotes, line separators, emoji, numbers with exponents."""
    prediction = Prediction(
        review_id=review_id,
        label=label,
        label_id=0,
        confidence=one,
        probabilities={label: one, "": other},
        model=ModelName(name="imdb", version=3, digest="sha256:" + "0" * 64),
        source=Source(topic=topic, partition=0, offset=offset),
        tokens=tokens,
        truncated=cut,
        scored_at=at.replace(tzinfo=UTC),
    )

    assert LETTERS.write(message(), prediction).value == prediction.model_dump_json().encode()


def test_each_has_the_headers_of_its_own_batch_and_model() -> None:
    """What a batch has in common is made once, and not kept for the next one."""
    first = prediction_of(message())
    later = first.model_copy(update={"scored_at": first.scored_at + timedelta(seconds=1)})
    newer = later.model_copy(update={"model": ModelName(name="imdb", version=4, digest="sha256:" + "0" * 64)})

    found = [dict(LETTERS.write(message(), prediction).headers) for prediction in (first, later, newer, first)]

    assert [(headers["ce_time"][-8:-6], headers["ce_source"]) for headers in found] == [
        (b"00", b"/models/imdb/3"),
        (b"01", b"/models/imdb/3"),
        (b"01", b"/models/imdb/4"),
        (b"00", b"/models/imdb/3"),
    ]


def test_its_headers_make_it_a_cloud_event() -> None:
    assert dict(predicted(message()).headers) == {
        "content-type": b"application/json",
        "ce_specversion": b"1.0",
        "ce_id": b"reviews/3/4211",
        "ce_source": b"/models/imdb/3",
        "ce_type": b"review.scored.v1",
        "ce_time": b"2026-11-23T09:00:00+00:00",
    }


def test_its_name_is_the_same_after_a_retry() -> None:
    """So that a consumer can tell a repetition: it depends on where the review stood, and on nothing else."""
    first, again = predicted(message()), predicted(message(key=None, value=b"other"))

    assert dict(first.headers)["ce_id"] == dict(again.headers)["ce_id"]


# --- dead letters ---


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"key", b"value"), (b"key", b""), (b"key", None), (None, b"\xff\x00"), (b"", b"value"), (b"\xff", b"\x00" * 99)],
)
def test_a_dead_letter_is_the_message_byte_for_byte(key: bytes | None, value: bytes | None) -> None:
    out = rejected(message(key, value))

    assert (out.topic, out.source_partition) == ("reviews-dead-letters", 3)
    assert (out.key, out.value) == (key, value)


def test_a_message_without_key_and_value_is_sent_with_an_empty_one() -> None:
    """kafka-python refuses a record that has neither; a dead letter that can't be sent would stop its partition."""
    out = rejected(message(None, None))

    assert (out.key, out.value) == (None, b"")


def test_its_headers_say_why_and_where_from_as_kafka_connect_does() -> None:
    assert dict(rejected(message()).headers) == {
        "rejection.reason": b"not_utf8",
        "__connect.errors.topic": b"reviews",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"4211",
        "__connect.errors.connector.name": b"review-worker",
        "__connect.errors.stage": b"VALUE_CONVERTER",
        "__connect.errors.exception.message": b"byte 3 is not UTF-8",
    }


# --- headers of the input ---


@pytest.mark.parametrize("write", [predicted, rejected])
def test_only_the_trace_is_carried_on(write: object) -> None:
    assert callable(write)
    headers: Headers = (
        ("traceparent", TRACEPARENT),
        ("authorization", b"secret"),
        ("ce_id", b"forged"),
        ("rejection.reason", b"forged"),
        ("__connect.errors.topic", b"forged"),
        ("nothing", None),
        ("", b"\xff"),
    )

    plain, traced = write(message()), write(message(headers=headers))

    assert traced.headers == [*plain.headers, ("traceparent", TRACEPARENT)]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        TRACEPARENT.upper(),
        TRACEPARENT + b"\n",
        b" " + TRACEPARENT,
        b"01" + TRACEPARENT[2:],
        TRACEPARENT + b"-00",
        TRACEPARENT.replace(b"-", b"_"),
    ],
)
def test_what_is_no_trace_context_stays_behind(value: bytes | None) -> None:
    assert trace((("traceparent", value),)) == []


def test_of_several_traces_the_first_good_one_counts() -> None:
    other = TRACEPARENT[:-1] + b"0"

    assert trace((("traceparent", None), ("traceparent", TRACEPARENT), ("traceparent", other))) == [
        ("traceparent", TRACEPARENT)
    ]


@pytest.mark.parametrize("value", [b"0", b"1", b"007", b"999"])
def test_a_record_that_was_put_back_and_failed_again_keeps_its_count(value: bytes) -> None:
    """Else it would be put back for ever."""
    headers: Headers = (("replay.hops", value), ("traceparent", TRACEPARENT), ("authorization", b"secret"))

    out = rejected(message(headers=headers))

    assert out.headers == [*rejected(message()).headers, ("traceparent", TRACEPARENT), ("replay.hops", value)]


def test_a_prediction_does_not_tell_how_often_its_review_was_put_back() -> None:
    assert predicted(message(headers=(("replay.hops", b"2"),))).headers == predicted(message()).headers


@pytest.mark.parametrize("value", [None, b"", b"-1", b"+1", b" 1", b"1\n", b"1.0", b"1000", b"\xff", "٣".encode()])
def test_what_is_no_small_number_is_no_count(value: bytes | None) -> None:
    assert hops((("replay.hops", value),)) == []
    assert rejected(message(headers=(("replay.hops", value),))).headers == rejected(message()).headers


def test_of_several_counts_the_first_good_one_counts() -> None:
    assert hops((("replay.hops", b"x"), ("replay.hops", b"2"), ("replay.hops", b"0"))) == [("replay.hops", b"2")]


@pytest.mark.parametrize("write", [predicted, rejected])
def test_every_header_is_ascii_text_with_bytes(write: object) -> None:
    """The producer refuses a header whose value is None, and with it the whole batch."""
    assert callable(write)
    for name, value in write(message()).headers:
        assert name.isascii()
        assert isinstance(value, bytes)


def test_times_are_given_in_utc() -> None:
    time = datetime.fromisoformat(dict(predicted(message()).headers)["ce_time"].decode())

    assert time.utcoffset() == UTC.utcoffset(None)
