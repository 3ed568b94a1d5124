#!/usr/bin/env python3
"""Follow predictions and dead letters, one line each.

    python consumer.py 127.0.0.1:9092 review-predictions reviews-dead-letters [COUNT]

Ends with Ctrl-C, or when so many have come.
"""

import json
import sys
from contextlib import suppress
from math import inf

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord

EVENT_TYPE = b"review.scored.v1"


def main(servers: str, predictions: str, dead_letters: str, count: float = inf) -> None:
    """Print what is committed, from the oldest record on. The next run goes on where this one ended."""
    consumer = KafkaConsumer(
        predictions,
        dead_letters,
        bootstrap_servers=servers,
        group_id="review-reader",
        # Without it, predictions of aborted transactions would be read too, and their reviews come twice.
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        # Committed below instead, after a record was dealt with: one that was not comes again. What must not be done
        # twice has to remember `ce_id`, which is the same each time.
        enable_auto_commit=False,
    )
    seen = 0
    try:
        while seen < count:
            for records in consumer.poll(1_000).values():
                for record in records:
                    print(*describe(record, predictions), sep="\t", flush=True)
                    seen += 1
            consumer.commit()
    finally:
        consumer.close()


def describe(record: ConsumerRecord, predictions: str) -> tuple[str, ...]:
    """What there is to say of a record; of a prediction of another contract, only that it is one."""
    headers = dict(record.headers)
    if record.topic != predictions:
        place = "/".join(headers[f"__connect.errors.{part}"].decode() for part in ("topic", "partition", "offset"))
        reason = headers["rejection.reason"].decode()
        return "dead letter", place, reason, headers["__connect.errors.exception.message"].decode()
    place = headers["ce_id"].decode()
    if headers["ce_type"] != EVENT_TYPE:
        return "unknown", place, headers["ce_type"].decode()
    prediction = json.loads(record.value)
    return "prediction", place, prediction["review_id"], prediction["label"], f"{prediction['confidence']:.3f}"


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    servers, predictions, dead_letters, *count = sys.argv[1:]
    with suppress(KeyboardInterrupt):
        main(servers, predictions, dead_letters, *map(int, count))
