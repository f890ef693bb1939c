"""A plain RabbitMQ consumer: it acknowledges a message once its task is done (or, with AUTO_ACK, leaves
that to the broker), and has no handler for any signal."""
import contextlib
import json
import os

import ledger
import pika

AUTO_ACK = "AUTO_ACK" in os.environ


def channel_to(queue):
    channel = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER_URL"])).channel()
    channel.queue_declare(queue, durable=True)
    return channel


@contextlib.contextmanager
def sender(queue):
    channel = channel_to(queue)
    channel.confirm_delivery()
    # Written to disk: a task outlives its broker.
    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    yield lambda *args: channel.basic_publish("", queue, json.dumps(args), persistent)
    channel.connection.close()


def work(channel, method, _properties, body):
    ledger.work(*json.loads(body))
    if not AUTO_ACK:
        channel.basic_ack(method.delivery_tag)


if __name__ == "__main__":
    consumer = channel_to(os.environ["QUEUE"])
    consumer.basic_qos(prefetch_count=1)
    consumer.basic_consume(os.environ["QUEUE"], work, auto_ack=AUTO_ACK)
    consumer.start_consuming()
