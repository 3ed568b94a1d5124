"""Partitioner: which partition a key goes to, the same as with every other Kafka client.

That is MurmurHash2 as in Kafka's `org.apache.kafka.common.utils.Utils.murmur2`. kafka-python has it byte by byte, which
takes longer than writing the record.
"""

from struct import unpack_from

SEED = 0x9747B28C
FACTOR = 0x5BD1E995
SHIFT = 24
WORD = 0xFFFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """From 0."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The hash, without a sign, 32 bits."""
    words, left = divmod(len(data), 4)
    hashed = SEED ^ len(data)
    for word in unpack_from(f"<{words}I", data):
        mixed = word * FACTOR & WORD
        mixed ^= mixed >> SHIFT
        hashed = (hashed * FACTOR & WORD) ^ (mixed * FACTOR & WORD)
    if left:
        hashed = (hashed ^ int.from_bytes(data[-left:], "little")) * FACTOR & WORD
    hashed = (hashed ^ hashed >> 13) * FACTOR & WORD
    return hashed ^ hashed >> 15
