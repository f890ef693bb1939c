"""A dispatcher: one loop over a Redis list hands what it pops to a pool of threads, so it waits for the next task while others run. No handler for any signal."""
import contextlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import ledger
import redis

THREADS = 4
POP_SECONDS = 2

tasks = redis.Redis.from_url(os.environ["BROKER_URL"])


@contextlib.contextmanager
def sender(queue):
    yield lambda *args: tasks.lpush(queue, json.dumps(args))


if __name__ == "__main__":
    free = threading.Semaphore(THREADS)

    def work(task):
        try:
            ledger.work(*task)
        finally:
            free.release()

    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            free.acquire()
            popped = tasks.brpop([os.environ["QUEUE"]], timeout=POP_SECONDS)
            if popped:
                pool.submit(work, json.loads(popped[1]))
            else:
                free.release()
