"""A plain RQ application. The worker forks a process for each job."""
import contextlib
import datetime
import os

import ledger
import redis
import rq


def work(task, seconds, mib=0):
    ledger.work(task, seconds, mib)


@contextlib.contextmanager
def sender(queue):
    jobs = rq.Queue(queue, connection=redis.Redis.from_url(os.environ["BROKER_URL"]))

    def send(*args, delay=None):
        if delay is None:
            jobs.enqueue("tasks.work", args=args)
        else:
            jobs.enqueue_in(datetime.timedelta(seconds=delay), "tasks.work", *args)

    yield send
