"""Records: the bytes of a record batch as kafka-python has them, both ways."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from worker.message import Message
from worker.records import VARINTS, read_records, varint, write_record

FIRST_MS = 1_795_000_000_000

Header = tuple[str, bytes | None]
Record = tuple[bytes | None, bytes | None, list[Header]]

payload = st.none() | st.binary(max_size=40) | st.integers(0, 20_000).map(bytes)
records = st.lists(
    st.tuples(payload, payload, st.lists(st.tuples(st.text(max_size=20), st.none() | st.binary(max_size=20)))),
    min_size=1,
    max_size=8,
)


def written_by_kafka_python(given: list[Record], deltas_ms: list[int]) -> bytes:
    """The records of one batch, without its header."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 30)
    for number, ((key, value, headers), delta) in enumerate(zip(given, deltas_ms, strict=True)):
        builder.append(number, FIRST_MS + delta, key, value, headers)
    return bytes(builder.build()[DefaultRecordBatchBuilder.HEADER_STRUCT.size :])


def read(data: bytes, count: int, same_ms: int | None = None) -> list[Message]:
    return list(read_records(data, count, "reviews", 3, 4_000, FIRST_MS, same_ms))


@given(records, st.data())
def test_what_kafka_python_writes_is_read(given: list[Record], data: st.DataObject) -> None:
    deltas = [0, *(data.draw(st.integers(-(2**40), 2**40)) for _ in given[1:])]

    messages = read(written_by_kafka_python(given, deltas), len(given))

    assert messages == [
        Message("reviews", 3, 4_000 + number, key, value, tuple(headers), FIRST_MS + delta)
        for number, ((key, value, headers), delta) in enumerate(zip(given, deltas, strict=True))
    ]


@given(records)
def test_what_is_written_is_what_kafka_python_would(given: list[Record]) -> None:
    """Byte for byte, where all have the time of the batch. Headers always have a value here."""
    full = [(key, value, [(name, it or b"") for name, it in headers]) for key, value, headers in given]

    written = b"".join(write_record(number, *record) for number, record in enumerate(full))

    assert written == written_by_kafka_python(full, [0] * len(full))  # type: ignore[arg-type]


def test_a_time_that_the_broker_gave_is_that_of_every_record() -> None:
    data = written_by_kafka_python([(b"a", b"b", []), (b"c", b"d", [])], [0, 5])

    assert [message.timestamp_ms for message in read(data, 2, same_ms=17)] == [17, 17]


@given(st.integers(-(2**31), 2**31 - 1) | st.sampled_from([len(VARINTS) - 1, len(VARINTS), 63, 64, 8_191, 8_192]))
def test_numbers_are_varints(number: int) -> None:
    number = abs(number)
    zigzag, expected = number << 1, bytearray()
    while zigzag >= 0x80:
        expected.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    expected.append(zigzag)

    assert varint(number) == bytes(expected)


# --- what is no record ---


def test_those_before_a_broken_record_are_given_first() -> None:
    """So that stepping over the broken one loses none of them."""
    data = bytearray(written_by_kafka_python([(b"k", b"good", []), (b"k", b"bad", [])], [0, 0]))
    data[-1] = 0x03  # a header count of -2
    given = read_records(bytes(data), 2, "reviews", 0, 0, FIRST_MS, None)

    assert next(given).value == b"good"
    with pytest.raises(CorruptRecordError):
        next(given)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda data: data + b"\x00", id="more than the records"),
        pytest.param(lambda data: data[:-1], id="less than the records"),
        pytest.param(lambda data: b"\x00" + data[1:], id="a shorter record"),
        pytest.param(lambda data: b"\x7e" + data[1:], id="a longer record"),
        pytest.param(lambda data: b"\xff" * 12, id="a number without an end"),
        pytest.param(lambda _: b"", id="nothing"),
        pytest.param(lambda data: data.replace(b"name", b"\xff\xfe\xfd\xfc"), id="a name that is not UTF-8"),
        pytest.param(lambda data: data.replace(b"\x08name", b"\x01name"), id="a name of length -1"),
    ],
)
def test_bytes_that_are_no_records_are_corrupt(broken: object) -> None:
    assert callable(broken)
    data = written_by_kafka_python([(b"k", b"v", [("name", b"value")])], [0])
    assert len(read(data, 1)) == 1

    with pytest.raises(CorruptRecordError) as error:
        read(broken(data), 1)
    assert "value" not in str(error.value)


def test_a_record_that_is_cut_off_is_not_given() -> None:
    data = written_by_kafka_python([(b"k", b"v", [("name", b"value")])], [0])

    with pytest.raises(CorruptRecordError):
        next(read_records(data[:-1], 1, "reviews", 0, 0, FIRST_MS, None))


@given(st.binary(max_size=60), st.integers(1, 5))
def test_any_bytes_are_records_or_corrupt(data: bytes, count: int) -> None:
    """A record at fault must never end the worker with another error, or spin."""
    try:
        messages = read(data, count)
    except CorruptRecordError:
        return
    assert len(messages) == count


@given(records, st.integers(0, 10_000), st.integers(1, 255))
def test_a_flipped_byte_is_read_as_kafka_python_reads_it_or_refused(given: list[Record], place: int, flip: int) -> None:
    """Nothing that kafka-python refuses becomes a message."""
    data = bytearray(written_by_kafka_python(given, [0] * len(given)))
    data[place % len(data)] ^= flip
    try:
        messages = read(bytes(data), len(given))
    except CorruptRecordError:
        return
    assert messages == read_by_kafka_python(bytes(data), len(given))


def read_by_kafka_python(data: bytes, count: int) -> list[Message]:
    """As the batch at 4,000 of partition 3."""
    header = DefaultRecordBatch.HEADER_STRUCT
    batch = bytearray(
        header.pack(4_000, len(data), 0, 2, 0, 0, count - 1, FIRST_MS, FIRST_MS, -1, -1, -1, count) + data
    )
    struct.pack_into(">i", batch, 8, len(batch) - 12)
    return [
        Message("reviews", 3, it.offset, it.key, it.value, tuple(it.headers), it.timestamp)
        for it in DefaultRecordBatch(batch)
    ]
