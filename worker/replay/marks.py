"""Marks: what a dead letter says of the record that it was, and that record again."""

import re
from dataclasses import dataclass

from schemas import Reason
from worker.letters import HOPS, Outgoing, hops, trace
from worker.message import Headers, Message


@dataclass(frozen=True, slots=True)
class Marks:
    """What the headers of a dead letter tell of the record that it was."""

    reason: Reason
    partition: int
    hops: int


_REASONS = {reason.value.encode(): reason for reason in Reason}
_PARTITION = re.compile(rb"[0-9]{1,9}")


def read_marks(headers: Headers, input_topic: str) -> Marks | None:
    """None for a record that no worker on this input topic can have written."""
    values = {name: value or b"" for name, value in headers}
    reason = _REASONS.get(values.get("rejection.reason", b""))
    partition = values.get("__connect.errors.partition", b"")
    if reason is None or values.get("__connect.errors.topic") != input_topic.encode():
        return None
    if not _PARTITION.fullmatch(partition):
        return None
    return Marks(reason, int(partition), sum(int(value) for _, value in hops(headers)))


def put_back(message: Message, marks: Marks, input_topic: str) -> Outgoing:
    """The record that goes back: key and value byte for byte, and of its headers only the trace."""
    headers = [(HOPS, b"%d" % (marks.hops + 1)), *trace(message.headers)]
    # kafka-python cannot send a record without key and value; our own dead letters have an empty one, too.
    value = b"" if message.key is None and message.value is None else message.value
    return Outgoing(input_topic, marks.partition, message.key, value, headers)
