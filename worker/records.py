"""Records: the bytes of the records in a record batch, both ways. What is around them, the batch's own header, checksum
and compression, is kafka-python's.

The format is Kafka's message format v2 (https://kafka.apache.org/documentation/#recordbatch), read and written without
an object in between: kafka-python's own way takes 14 µs of a processor for each record that it reads and 30 for each
that it writes, which was most of a worker's time.

    record: length varint · attributes int8 · timestamp delta varlong · offset delta varint
            · key length varint, key · value length varint, value · header count varint, headers
    header: name length varint, name · value length varint, value           (a length of -1 stands for null)
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache

from kafka.errors import CorruptRecordError
from kafka.record.util import decode_varint, encode_varint

from worker.message import Headers, Message

Header = tuple[str, bytes]

NULL = b"\x01"
"""-1 as a varint."""

PREFIX = b"\x00\x00"
"""No attributes, and the timestamp of the batch."""

HEADERS_KEPT = 1_024
"""Most headers of a prediction are those of the one before."""


def read_records(
    data: bytes, count: int, topic: str, partition: int, first_offset: int, first_ms: int, same_ms: int | None
) -> Iterator[Message]:
    """The messages of one record batch, in their order.

    Args:
        data: the records, decompressed.
        count: how many there are, as the batch's header says.
        topic: where the batch stood.
        partition: where the batch stood.
        first_offset: the batch's base offset, to which each record has a delta.
        first_ms: the batch's first timestamp, to which each record has a delta.
        same_ms: the timestamp of them all, where the broker gave it (LogAppendTime).

    Raises:
        CorruptRecordError: these are no records; those before the first broken one were given.
    """
    position, size = 0, len(data)
    try:
        for _ in range(count):
            length, position = decode_varint(data, position)
            end = position + length
            delta_ms, position = decode_varint(data, position + 1)
            delta, position = decode_varint(data, position)
            length, position = decode_varint(data, position)
            key = None
            if length >= 0:
                key = data[position : position + length]
                position += length
            length, position = decode_varint(data, position)
            value = None
            if length >= 0:
                value = data[position : position + length]
                position += length
            headers: Headers = ()
            if data[position]:
                headers, position = _read_headers(data, position)
            else:
                position += 1
            if position != end or end > size:
                raise CorruptRecordError(f"a record ends {position - end} bytes behind its end")
            time_ms = first_ms + delta_ms if same_ms is None else same_ms
            yield Message(topic, partition, first_offset + delta, key, value, headers, time_ms)
    except (ValueError, IndexError) as error:
        raise CorruptRecordError(f"no record ({type(error).__name__})") from None
    if position != size:
        raise CorruptRecordError(f"{size - position} bytes behind the last record")


def _read_headers(data: bytes, position: int) -> tuple[Headers, int]:
    """The headers, and where they end."""
    count, position = decode_varint(data, position)
    if count < 0:
        raise CorruptRecordError(f"a record has {count} headers")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        length, position = decode_varint(data, position)
        if length < 0:
            raise CorruptRecordError(f"a header's name has {length} bytes")
        name = data[position : position + length].decode()
        length, position = decode_varint(data, position + length)
        if length >= 0:
            headers.append((name, data[position : position + length]))
            position += length
        else:
            headers.append((name, None))
    return tuple(headers), position


def write_record(number: int, key: bytes | None, value: bytes | None, headers: Iterable[Header]) -> bytes:
    """One record, with the timestamp of its batch.

    Args:
        number: how many are before it in its batch.
        key: null if None.
        value: null if None.
        headers: in their order.
    """
    written = [_write_header(header) for header in headers]
    body = b"".join(
        (
            PREFIX,
            varint(number),
            NULL if key is None else varint(len(key)) + key,
            NULL if value is None else varint(len(value)) + value,
            varint(len(written)),
            *written,
        )
    )
    return varint(len(body)) + body


@lru_cache(HEADERS_KEPT)
def _write_header(header: Header) -> bytes:
    name, value = header[0].encode(), header[1]
    return b"".join((varint(len(name)), name, varint(len(value)), value))


def varint(number: int) -> bytes:
    """Zigzag and base 128, as protocol buffers write a signed number."""
    return VARINTS[number] if number < len(VARINTS) else _varint(number)


def _varint(number: int) -> bytes:
    written = bytearray()
    encode_varint(number, written.append)
    return bytes(written)


VARINTS = [_varint(number) for number in range(4_096)]
"""Lengths and numbers as they mostly are."""
