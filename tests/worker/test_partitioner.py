"""Partitioner: every Kafka client puts a key on the same partition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2 as murmur2_of_kafka_python

from worker.partitioner import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_it_is_the_hash_of_kafkas_own_tests(key: bytes, hashed: int) -> None:
    """org.apache.kafka.common.utils.UtilsTest; Java's numbers have a sign."""
    assert murmur2(key) == hashed % 2**32


@given(st.binary(max_size=200))
def test_it_is_the_hash_of_kafka_python(key: bytes) -> None:
    assert murmur2(key) == murmur2_of_kafka_python(key)


@given(st.binary(max_size=50), st.integers(1, 1_000))
def test_the_sign_is_dropped_before_the_remainder_is_taken(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2_of_kafka_python(key) & 0x7FFFFFFF) % partitions
