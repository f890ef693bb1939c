"""Sends the tasks of a plan (JSON on standard input: a list of {task, at, seconds, mib, total, file, delay}; `at` in seconds from now) to one queue, with
the application's own client: `tasks.sender(queue)` gives a function that sends one task. `total` and `file` are for Celery's application only;
`delay` (seconds after which a task is due) for those of Celery, RQ and arq."""
import json
import sys
import time

import ledger
import tasks

plan = json.load(sys.stdin)
begin = time.time()
with tasks.sender(sys.argv[1]) as send:
    for item in sorted(plan, key=lambda item: item["at"]):
        delay = begin + item["at"] - time.time()
        if delay > 0:
            time.sleep(delay)
        ledger.put("sent", item["task"])
        more = {key: item[key] for key in ("total", "file", "delay") if key in item}
        send(item["task"], item["seconds"], item.get("mib", 0), **more)
print(json.dumps({"sent": len(plan)}))
