"""Fetched: what kafka-python gives of a fetch, and where it goes on, whatever the log holds."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record.default_records import DefaultRecordBase, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c
from kafka.structs import TopicPartition

from worker.fetched import FetchedMessages
from worker.message import Message

PLACE = TopicPartition("reviews", 3)
FIRST = 4_000
"""The offset that is asked for."""
FIRST_MS = 1_795_000_000_000
ABORT, COMMIT = 0, 1
LZ4 = DefaultRecordBase.CODEC_LZ4
"""The last one that the old format had."""


@dataclass(frozen=True)
class Aborted:
    """As a fetch's answer lists them."""

    producer_id: int
    first_offset: int


@dataclass(frozen=True)
class Piece:
    """A record batch of the log.

    Attributes:
        records: values.
        producer: whose transaction it belongs to; -1 for none.
        marker: the end of the producer's transaction, instead of records.
        codec: as in the batch's attributes.
        broker_time: the topic has LogAppendTime.
        gone: records that compaction took from its end.
        old: message format v1.
    """

    records: tuple[bytes, ...]
    producer: int = -1
    marker: int | None = None
    codec: int = 0
    broker_time: bool = False
    gone: int = 0
    old: bool = False

    @property
    def offsets(self) -> int:
        """That it takes in the log."""
        return 1 if self.marker is not None else len(self.records) + self.gone

    def written(self, offset: int) -> bytes:
        """Its bytes."""
        if self.old and self.marker is None and self.producer < 0:
            legacy = LegacyRecordBatchBuilder(1, min(self.codec, LZ4), 1 << 20)
            for number, value in enumerate(self.records):
                legacy.append(offset + number, FIRST_MS + number, b"key", value)
            return bytes(legacy.build())
        within = self.producer >= 0
        builder = DefaultRecordBatchBuilder(2, self.codec, within, self.producer, 0 if within else -1, -1, 1 << 20)
        if self.marker is not None:
            builder.append(0, FIRST_MS, struct.pack(">hh", 0, self.marker), struct.pack(">hi", 0, 0), [])
        else:
            for number, value in enumerate(self.records):
                builder.append(number, FIRST_MS + number, b"key", value, [("number", str(number).encode())])
        data = builder.build()
        struct.pack_into(">q", data, 0, offset)
        (attributes,) = struct.unpack_from(">h", data, DefaultRecordBase.ATTRIBUTES_OFFSET)
        attributes |= DefaultRecordBase.CONTROL_MASK if self.marker is not None else 0
        attributes |= DefaultRecordBase.TIMESTAMP_TYPE_MASK if self.broker_time else 0
        struct.pack_into(">hi", data, DefaultRecordBase.ATTRIBUTES_OFFSET, attributes, self.offsets - 1)
        return signed(data)


def signed(data: bytearray) -> bytes:
    """With the checksum that belongs to it."""
    crc = calc_crc32c(memoryview(data)[DefaultRecordBase.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", data, DefaultRecordBase.CRC_OFFSET, crc)
    return bytes(data)


def written(log: list[Piece], first: int = FIRST) -> bytes:
    """The log's bytes from that offset on."""
    offsets = accumulate((piece.offsets for piece in log), initial=first)
    return b"".join(piece.written(offset) for piece, offset in zip(log, offsets, strict=False))


def aborted(log: list[Piece], first: int = FIRST) -> list[Aborted]:
    """What a broker tells of the log's aborted transactions."""
    found, begun, offset = [], dict[int, int](), first
    for piece in log:
        if piece.marker is None and piece.producer >= 0:
            begun.setdefault(piece.producer, offset)
        elif piece.producer in begun:
            started = begun.pop(piece.producer)
            if piece.marker == ABORT:
                found.append(Aborted(producer_id=piece.producer, first_offset=started))
        offset += piece.offsets
    return found


def taken(kind: type, data: bytes, transactions: list[Aborted], at_once: int) -> Iterator[tuple[list[Message], int]]:
    """What each `take` gives, and where the next fetch would begin."""
    level = IsolationLevel.READ_COMMITTED
    part = kind(FIRST, PLACE, MemoryRecords(data), isolation_level=level, aborted_transactions=transactions)
    while part:
        yield [as_message(record) for record in part.take(at_once)], part.next_fetch_offset


def as_message(record: Any) -> Message:
    """Whichever it was."""
    if isinstance(record, Message):
        return record
    headers = tuple(record.headers)
    return Message(record.topic, record.partition, record.offset, record.key, record.value, headers, record.timestamp)


values = st.lists(st.binary(max_size=30) | st.just(b"good " * 40), min_size=1, max_size=4).map(tuple)
pieces = st.one_of(
    st.builds(
        Piece, values, codec=st.integers(0, 4), broker_time=st.booleans(), gone=st.integers(0, 2), old=st.booleans()
    ),
    st.builds(Piece, values, producer=st.integers(1, 2), codec=st.integers(0, 4), gone=st.integers(0, 2)),
    st.builds(Piece, st.just(()), producer=st.integers(1, 2), marker=st.sampled_from([ABORT, COMMIT])),
)
logs = st.lists(pieces, max_size=8)


@given(logs, st.integers(1, 5), st.integers(0, 3))
def test_a_log_is_read_as_kafka_python_reads_it(log: list[Piece], at_once: int, before: int) -> None:
    """Batches of any kind, read from their midst too: the same messages at every step, and the same next offset."""
    data, transactions = written(log, FIRST - before), aborted(log, FIRST - before)

    ours = list(taken(FetchedMessages, data, transactions, at_once))

    assert ours == list(taken(Fetcher.PartitionRecords, data, transactions, at_once))


def test_of_a_log_with_everything_in_it_the_committed_records_are_read() -> None:
    """So that the property above cannot hold because of two empty hands."""
    log = [
        Piece((b"old", b"older"), old=True),
        Piece((b"from",), producer=1),
        Piece((b"kept",), producer=2, codec=1),
        Piece((), producer=1, marker=ABORT),
        Piece((b"plain",), broker_time=True),
        Piece((), producer=2, marker=COMMIT),
        Piece((b"again",), producer=1),
        Piece((), producer=1, marker=COMMIT),
        Piece((b"last",), gone=2),
    ]

    found = list(taken(FetchedMessages, written(log), aborted(log), 100))

    ((messages, following),) = found
    assert [message.value for message in messages] == [b"old", b"older", b"kept", b"plain", b"again", b"last"]
    assert following == FIRST + 12


@pytest.mark.parametrize("old", [False, True])
def test_a_batch_that_fails_its_checksum_is_corrupt_behind_those_before_it(old: bool) -> None:
    """And the marker before it has been passed: the step over it begins where it stands."""
    log = [Piece((b"good",), producer=1), Piece((), producer=1, marker=COMMIT), Piece((b"bad",), old=old)]
    data = bytearray(written(log))
    data[-1] ^= 1
    part = FetchedMessages(FIRST, PLACE, MemoryRecords(bytes(data)), isolation_level=IsolationLevel.READ_COMMITTED)

    assert [message.value for message in part.take(10)] == [b"good"]
    with pytest.raises(CorruptRecordError, match="checksum") as error:
        part.take(10)
    assert "bad" not in str(error.value)
    assert part.next_fetch_offset == FIRST + 2


def test_a_partition_that_brought_something_goes_to_the_end_of_the_line() -> None:
    """kafka-python tells by the bytes that were read."""
    part = FetchedMessages(FIRST, PLACE, MemoryRecords(written([Piece((b"good",))])))
    part.take(10)

    assert part.bytes_read > 0
