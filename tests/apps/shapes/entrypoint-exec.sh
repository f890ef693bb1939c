#!/bin/sh
# An entry point that becomes the worker.
set -e
cd /app
exec celery -A tasks worker -l INFO -c 1 -Q "$QUEUE"
