"""A plain RQ application. The worker forks a process for each job."""
import contextlib
import os

import ledger
import redis
import rq


def work(task, seconds, mib=0):
    ledger.work(task, seconds, mib)


@contextlib.contextmanager
def sender(queue):
    jobs = rq.Queue(queue, connection=redis.Redis.from_url(os.environ["BROKER_URL"]))
    yield lambda *args: jobs.enqueue("tasks.work", args=args)
