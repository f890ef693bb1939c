#!/bin/sh
# A worker that ends when its queue is empty, started again for ever.
while true; do
  rq worker --burst --url "$BROKER_URL" "$QUEUE"
  sleep 1
done
