"""Reads hookstream's typed topics and handles each event once.

    pip install -r requirements.txt
    python consumer.py [BOOTSTRAP [REGISTRY_URL [TOPIC_PATTERN]]]

The defaults are the addresses of `hookstream dev`.
"""

import json
import sys

from confluent_kafka import DeserializingConsumer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer

defaults = ["127.0.0.1:9092", "http://127.0.0.1:8081", r"^(datagrid|grapevine)\..*"]
bootstrap, registry, pattern = sys.argv[1:4] + defaults[len(sys.argv) - 1:]

consumer = DeserializingConsumer({
    "bootstrap.servers": bootstrap,
    "group.id": "hookstream-example-python",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "value.deserializer": AvroDeserializer(SchemaRegistryClient({"url": registry})),
})
consumer.subscribe([pattern])

seen = set()  # delivery is at least once; a real consumer keeps the keys where it keeps its results
try:
    while True:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            print(message.error(), file=sys.stderr)
            continue
        event, key = message.value(), message.key().decode()
        if key not in seen:
            print(key, event["time"] or event["received_at"], json.dumps(event["data"], default=str, ensure_ascii=False), flush=True)
            seen.add(key)
        consumer.commit(message)  # after the work, so that a crash repeats it rather than loses it
except KeyboardInterrupt:
    pass
finally:
    consumer.close()
