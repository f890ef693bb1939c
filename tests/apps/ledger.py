"""The ledger of a test: every sending, start and end of a task, in a Redis list of its own server (not the broker), so that what was done, cut,
lost or done twice is known for every framework in the same way. Used by the applications beside it, and by nothing else."""
import json
import os
import time
import uuid

import redis

# The defaults of some seconds are too short for a machine that has two cores for a whole cluster: an answer that is late is no fault of a worker's.
ledger = redis.Redis.from_url(os.environ["LEDGER_URL"], socket_timeout=120, socket_connect_timeout=120)


def put(event, task, run=""):
    ledger.rpush(os.environ["LEDGER_KEY"], json.dumps({"event": event, "task": task, "run": run, "host": os.uname().nodename, "at": time.time()}))


def start(task, mib=0):
    """Begins a run; gives its number and the memory that it holds."""
    run = uuid.uuid4().hex
    put("start", task, run)
    block = bytearray(mib << 20)
    for page in range(0, len(block), 4096):
        block[page] = 1
    return run, block


def work(task, seconds, mib=0):
    """One whole run, in small steps."""
    end = time.time() + seconds
    run, _block = start(task, mib)
    while time.time() < end:
        time.sleep(max(0.0, min(0.1, end - time.time())))
    put("done", task, run)
