"""The stations between source and outbox, in the test's own process: a message in, the output record as a reader gets
it out."""

from typing import Any

import numpy as np
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from hostile.records import LIMIT
from schemas import Cut, ModelName, Prediction, Rejection, Review
from worker.intake import read_review
from worker.letters import Letters, Outgoing
from worker.message import Message
from worker.tokens import TokenRow
from worker.verdict import Verdict

LETTERS = Letters("review-predictions", "reviews-dead-letters")
LABELS = ("negative", "neutral", "positive")
VERDICT = Verdict(ModelName(name="tiny", version=1, digest="sha256:" + "0" * 64), LABELS, 1.0)
ROW = TokenRow(np.array([2, 5, 3], dtype=np.int32), truncated=False)

CUT = Cut(head=16, tail=48)

HEADER_BYTES = 2_000
"""More than any output record of ours has, names and values together: nothing of the input's may add up in them."""


def concluded(message: Message) -> Prediction | Rejection:
    """What becomes of a message, whatever the model thinks of it."""
    read = read_review(message, LIMIT)
    if isinstance(read, Review):
        (prediction,) = VERDICT.predict([read], [message.source], [ROW], np.zeros((1, len(LABELS)), dtype=np.float32))
        return prediction
    assert isinstance(read, Rejection), f"neither a review nor a rejection: {type(read).__name__}"
    return read


def delivered(out: Outgoing) -> Any:
    """The record that a reader gets, after `KafkaProducer.send`'s own demands: one that it refuses would stop a
    partition for good."""
    assert out.key is not None or out.value is not None
    assert all(type(name) is str and type(value) is bytes for name, value in out.headers)
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 30,
    )
    builder.append(0, None, out.key, out.value, out.headers)
    (record,) = DefaultRecordBatch(bytes(builder.build()))
    return record


def require_a_fit_answer(message: Message, outcome: Prediction | Rejection) -> None:
    """The one output record of a message can be sent, holds the whole message when it is a dead letter, and has no
    header that a publisher wrote, but for one trace."""
    record = delivered(LETTERS.write(message, outcome))
    assert record.key == message.key
    names = [name for name, _ in record.headers]
    assert len(names) == len(set(names)), "a header twice: readers differ on which one counts"
    assert sum(len(name) + len(value) for name, value in record.headers) < HEADER_BYTES
    headers = dict(record.headers)
    if isinstance(outcome, Rejection):
        assert record.value == (b"" if message.key is None and message.value is None else message.value)
        assert headers["rejection.reason"] == outcome.reason.value.encode()
        assert headers["__connect.errors.offset"] == b"4211"
    else:
        assert Prediction.model_validate_json(record.value) == outcome
        assert headers["ce_id"] == b"reviews/3/4211"
    assert headers.get("traceparent", b"00").startswith(b"00")
