"""A plain Huey application."""
import contextlib
import os

import ledger
from huey import RedisHuey

huey = RedisHuey(os.environ["QUEUE"], url=os.environ["BROKER_URL"], results=False)


@huey.task()
def work(task, seconds, mib=0):
    ledger.work(task, seconds, mib)


@contextlib.contextmanager
def sender(_queue):
    yield work
