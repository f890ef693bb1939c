#!/bin/sh
# An entry point that starts the worker as a child, as most do.
set -e
cd /app
celery -A tasks worker -l INFO -c 1 -Q "$QUEUE"
