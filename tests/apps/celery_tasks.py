"""A plain Celery application, as a user would write it: it knows nothing of QScaler."""
import contextlib
import os
import uuid

import ledger
from celery import Celery

app = Celery("tasks", broker=os.environ["BROKER_URL"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True
# The default of 4 s is too short for a broker on a machine that has two cores for a whole cluster.
app.conf.broker_connection_timeout = 60
if "VISIBILITY_TIMEOUT_S" in os.environ and os.environ["BROKER_URL"].startswith("redis"):
    # What is due again is looked for every 10 s; every 100 s is what Celery does by itself.
    app.conf.broker_transport_options = {"visibility_timeout": int(os.environ["VISIBILITY_TIMEOUT_S"]), "unacked_restore_throttle": 1}
app.conf.worker_enable_remote_control = os.environ.get("REMOTE_CONTROL") != "off"
if "KEY_PREFIX" in os.environ:
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "global_keyprefix": os.environ["KEY_PREFIX"]}
if os.environ.get("ACKS_LATE"):
    app.conf.task_acks_late = True
    app.conf.worker_prefetch_multiplier = 1
    app.conf.task_reject_on_worker_lost = True


def used():
    """What this container uses without file cache, in MiB."""
    version2 = os.path.exists("/sys/fs/cgroup/memory.current")
    folder, prefix, usage = ("/sys/fs/cgroup/", "", "memory.current") if version2 else ("/sys/fs/cgroup/memory/", "total_", "memory.usage_in_bytes")
    stat = dict(line.split() for line in open(folder + "memory.stat"))
    cache = sum(int(stat[prefix + name]) for name in ("active_file", "inactive_file"))
    return (int(open(folder + usage).read()) - cache) >> 20


def stream(mib):
    """Writes a file of this size and reads it twice: it fills the page cache, and nothing else."""
    path, chunk = f"/tmp/{uuid.uuid4().hex}", bytes(1 << 20)
    with open(path, "wb") as file:
        for _ in range(mib):
            file.write(chunk)
        os.fsync(file.fileno())
    for _ in range(2):
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
    os.remove(path)


@app.task
def work(task, seconds, mib=0, total=0, file=0):
    stream(file)
    if total:  # As much as brings the whole container to this.
        mib = max(0, total - used())
    ledger.work(task, seconds, mib)


@contextlib.contextmanager
def sender(queue):
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)
        def send(*args, delay=None, **more):
            app.send_task("tasks.work", args=args, kwargs=more, queue=queue, producer=producer, countdown=delay)

        yield send
