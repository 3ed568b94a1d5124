"""What somebody writes first: a consumer, transformers' pipeline, a producer, one record at a time. Nobody would
notice what is lost or scored twice; it is here to be compared with in speed, and runs with the peers' interpreter.

    python plain_script.py HOST:PORT GROUP INPUT OUTPUT MODEL
"""

import json
import signal
import sys

from kafka import KafkaConsumer, KafkaProducer
from transformers import pipeline

server, group, source, target, model = sys.argv[1:]
classify = pipeline("text-classification", model=model)
consumer = KafkaConsumer(source, bootstrap_servers=server, group_id=group, auto_offset_reset="earliest")
producer = KafkaProducer(bootstrap_servers=server)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("ready", flush=True)
try:
    for record in consumer:
        review = json.loads(record.value)
        verdict = classify(review["text"], truncation=True)[0]
        prediction = {"review_id": review["review_id"], "label": verdict["label"], "confidence": verdict["score"]}
        producer.send(target, key=record.key, value=json.dumps(prediction).encode())
finally:
    consumer.close()
    producer.close()
