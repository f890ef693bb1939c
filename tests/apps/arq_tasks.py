"""A plain arq application. With `job_completion_wait` a worker that is told to leave finishes its job first."""
import asyncio
import contextlib
import os

import ledger
from arq import create_pool
from arq.connections import RedisSettings


async def work(_context, task, seconds, mib=0):
    run, _block = ledger.start(task, mib)
    await asyncio.sleep(seconds)
    ledger.put("done", task, run)


class WorkerSettings:
    functions = [work]
    redis_settings = RedisSettings.from_dsn(os.environ["BROKER_URL"])
    queue_name = os.environ["QUEUE"]
    max_jobs = 1
    job_completion_wait = 300


@contextlib.contextmanager
def sender(queue):
    loop = asyncio.new_event_loop()
    pool = loop.run_until_complete(create_pool(WorkerSettings.redis_settings))
    yield lambda *args, delay=None: loop.run_until_complete(pool.enqueue_job("work", *args, _queue_name=queue, _defer_by=delay))
    loop.run_until_complete(pool.aclose())
