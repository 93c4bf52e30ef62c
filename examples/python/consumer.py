"""Reads hookstream's typed topics and handles each event once.

    pip install -r requirements.txt
    python consumer.py [BOOTSTRAP [REGISTRY_URL [TOPIC_PATTERN]]]

The defaults are the addresses of `hookstream dev`.
"""

import json
import signal
import sys
import time
from collections import OrderedDict

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

# Dead letters are excluded: their topics begin with `dead_letter.`, and their values are not Avro.
DEFAULTS = ["127.0.0.1:9092", "http://127.0.0.1:8081", r"^(datagrid|grapevine)\..*"]
MOST_KEYS = 100_000


def handle(key, event):
    """The work. A crash may repeat it, so it must be idempotent, such as an upsert by key."""
    when = event["time"] or event["received_at"]  # datetimes; `time` is None if the provider sent none
    print(key, when.isoformat(), event["type"], json.dumps(event["data"], default=str, ensure_ascii=False), flush=True)


class ErrorLog:
    """Prints Kafka errors, each kind at most once a minute, since the client retries 20 times a second."""

    def __init__(self):
        self.printed = {}

    def __call__(self, error):
        now = time.monotonic()
        if error.code() != KafkaError._ALL_BROKERS_DOWN and now - self.printed.get(error.code(), now - 61) > 60:
            self.printed[error.code()] = now
            print(f"kafka: {error.str()}", file=sys.stderr)


def consume(bootstrap, registry, pattern):
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": "hookstream-example-python",
        "auto.offset.reset": "earliest",
        # Only offsets stored after the work are committed, so a crash repeats the work.
        "enable.auto.offset.store": False,
        "error_cb": ErrorLog(),
        "log_level": 2,  # librdkafka would repeat the same message
    })
    try:
        consumer.list_topics(timeout=10)
    except KafkaException as error:
        consumer.poll(0)  # passes the error to `ErrorLog`
        raise RuntimeError(f"Kafka does not answer at {bootstrap}: {error.args[0].str()}") from error
    consumer.subscribe([pattern])
    # The keys handled last, to skip most duplicates. It forgets older keys: if handling an event twice does harm,
    # store the key with the result in one transaction.
    seen = OrderedDict()
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            value, key = message.value(), (message.key() or b"").decode(errors="replace")
            place = f"{message.topic()}/{message.partition()}/{message.offset()}"
            # hookstream never writes the first two; other producers may.
            if value is None:
                print(f"skipped {place}: a tombstone", file=sys.stderr)
            elif not value.startswith(b"\0"):
                print(f"skipped {place}: not in the wire format of a schema registry", file=sys.stderr)
            elif (message.topic(), key) not in seen:
                try:
                    event = deserialize(value, SerializationContext(message.topic(), MessageField.VALUE))
                except Exception as error:
                    raise RuntimeError(f"{place} cannot be read with the registry at {registry}: {error}") from error
                handle(key, event)
                seen[message.topic(), key] = None
                if len(seen) > MOST_KEYS:
                    seen.popitem(last=False)
            consumer.store_offsets(message)
    finally:
        consumer.close()  # commits


def interrupt(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    given = sys.argv[1:4]
    try:
        consume(*given, *DEFAULTS[len(given):])
    except KeyboardInterrupt:
        pass
    except Exception as error:  # any error: one message and exit code 1
        sys.exit(f"consumer: {error}")
