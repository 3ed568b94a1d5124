#!/usr/bin/env python3
r"""Publish reviews: every line of standard input is the text of one.

    printf 'I loved it.\nFar too long.\n' | python producer.py 127.0.0.1:9092 reviews

Prints their ids once the broker has them.
"""

import json
import secrets
import sys
from uuid import uuid4

from kafka import KafkaProducer

ACKNOWLEDGED_SECONDS = 30


def main(servers: str, topic: str) -> None:
    """Send, and wait until the broker has acknowledged every review."""
    # The client's defaults are what is wanted: all replicas acknowledge, and what is sent again is there once.
    producer = KafkaProducer(bootstrap_servers=servers, linger_ms=20)
    sent = []
    try:
        for line in sys.stdin:
            review_id = str(uuid4())
            review = {"review_id": review_id, "text": line.rstrip("\n")}
            # A trace begins here. The prediction carries it on, and so does a dead letter.
            trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
            future = producer.send(
                topic,
                # Reviews with the same key stay in order: a film, say, or a customer. Here each is on its own.
                key=review_id.encode(),
                value=json.dumps(review).encode(),
                headers=[("traceparent", trace.encode())],
            )
            sent.append((review_id, future))
        for review_id, future in sent:
            future.get(timeout=ACKNOWLEDGED_SECONDS)
            print(review_id)
    finally:
        producer.close(timeout=ACKNOWLEDGED_SECONDS)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(*sys.argv[1:])
