"""Letters: what goes out for one message, a prediction or a dead letter, as Kafka records."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas import ModelName, Prediction, Reason, Rejection
from worker.message import Headers, Message

EVENT_TYPE = b"review.scored.v1"
PREDICTION = (("content-type", b"application/json"), ("ce_specversion", b"1.0"))
CONNECTOR = b"review-worker"
IN_SCORING = frozenset({Reason.OUT_OF_MEMORY, Reason.SCORER_FAILED})
"""Reasons that are found behind the intake: Kafka Connect's stage is another then."""

_TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context, version 00. Anything else in that header is not carried on."""

_json = Prediction.__pydantic_serializer__.to_json
"""The bytes of `model_dump_json`, without its way through a text: a quarter of its time."""

HOPS = "replay.hops"
"""Header: how often `review-worker replay` has put this record back on the input topic, in ASCII digits."""

_HOPS = re.compile(rb"[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One output record: exactly one follows from each input message."""

    topic: str
    source_partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Letters:
    """Turns verdicts and rejections into output records."""

    def __init__(self, output_topic: str, dead_letter_topic: str) -> None:
        self._output_topic = output_topic
        self._dead_letter_topic = dead_letter_topic
        self._shared_by: tuple[ModelName, datetime] | None = None
        self._shared: tuple[tuple[str, bytes], ...] = ()

    def write(self, message: Message, outcome: Prediction | Rejection) -> Outgoing:
        """The one output record of a message."""
        if isinstance(outcome, Rejection):
            return self._dead_letter(message, outcome)
        return self._prediction(message, outcome)

    def _prediction(self, message: Message, prediction: Prediction) -> Outgoing:
        """A CloudEvent in binary mode: the prediction as the value, the attributes as headers. `ce_id` is the input's
        coordinates, the same after every retry, so that a consumer of its own can tell a repetition."""
        headers = [
            *PREDICTION,
            ("ce_id", f"{message.topic}/{message.partition}/{message.offset}".encode()),
            *self._shared_headers(prediction.model, prediction.scored_at),
            *trace(message.headers),
        ]
        return Outgoing(self._output_topic, message.partition, message.key, _json(prediction), headers)

    def _shared_headers(self, model: ModelName, scored_at: datetime) -> tuple[tuple[str, bytes], ...]:
        """Those that all predictions of a batch have in common, made once."""
        if self._shared_by is None or self._shared_by[0] is not model or self._shared_by[1] is not scored_at:
            self._shared_by = model, scored_at
            self._shared = (
                ("ce_source", f"/models/{model.name}/{model.version}".encode()),
                ("ce_type", EVENT_TYPE),
                ("ce_time", scored_at.astimezone(UTC).isoformat().encode()),
            )
        return self._shared

    def _dead_letter(self, message: Message, rejection: Rejection) -> Outgoing:
        """The message as it came, with Kafka Connect's headers on why and where from."""
        headers = [
            ("rejection.reason", rejection.reason.value.encode()),
            ("__connect.errors.topic", message.topic.encode()),
            ("__connect.errors.partition", str(message.partition).encode()),
            ("__connect.errors.offset", str(message.offset).encode()),
            ("__connect.errors.connector.name", CONNECTOR),
            ("__connect.errors.stage", b"TRANSFORMATION" if rejection.reason in IN_SCORING else b"VALUE_CONVERTER"),
            ("__connect.errors.exception.message", rejection.detail.encode()),
            *trace(message.headers),
            # Else a record that fails for ever would be put back for ever.
            *hops(message.headers),
        ]
        # A record without key and value is legal in Kafka, but kafka-python cannot send one.
        value = b"" if message.key is None and message.value is None else message.value
        return Outgoing(self._dead_letter_topic, message.partition, message.key, value, headers)


def trace(headers: Headers) -> list[tuple[str, bytes]]:
    """The one header that is carried on into whatever follows. Others stay behind: their values may be None, which the
    producer refuses, or whatever a publisher put there."""
    return _carried(headers, "traceparent", _TRACEPARENT)


def hops(headers: Headers) -> list[tuple[str, bytes]]:
    """The header that counts replays, for the dead letter of a record that failed again; none where it never was one.
    A publisher could have put anything there: what is no small number is left behind."""
    return _carried(headers, HOPS, _HOPS)


def _carried(headers: Headers, wanted: str, pattern: re.Pattern[bytes]) -> list[tuple[str, bytes]]:
    """The first header of that name with a value of that form, if any."""
    return [
        (name, value) for name, value in headers if name == wanted and value is not None and pattern.fullmatch(value)
    ][:1]
