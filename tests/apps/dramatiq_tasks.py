"""A plain Dramatiq application, on Redis or on RabbitMQ."""
import contextlib
import os

import dramatiq
import ledger

url = os.environ["BROKER_URL"]
if url.startswith("amqp"):
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    broker = RabbitmqBroker(url=url)
else:
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=url)
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name=os.environ["QUEUE"])
def work(task, seconds, mib=0):
    ledger.work(task, seconds, mib)


@contextlib.contextmanager
def sender(_queue):
    yield work.send
    broker.close()
