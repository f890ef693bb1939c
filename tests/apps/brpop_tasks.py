"""A plain loop over a Redis list: a task is off the list before it runs, and there is no handler for any signal."""
import contextlib
import json
import os

import ledger
import redis

POP_SECONDS = 2

tasks = redis.Redis.from_url(os.environ["BROKER_URL"])


@contextlib.contextmanager
def sender(queue):
    yield lambda *args: tasks.lpush(queue, json.dumps(args))


if __name__ == "__main__":
    while True:
        popped = tasks.brpop([os.environ["QUEUE"]], timeout=POP_SECONDS)
        if popped:
            ledger.work(*json.loads(popped[1]))
