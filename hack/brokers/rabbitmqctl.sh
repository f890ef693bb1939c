#!/bin/sh
# rabbitmqctl for a server of rabbitmq-server beside it: the same RABBITMQ_NODENAME, RABBITMQ_MNESIA_BASE and ERL_EPMD_PORT.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../rabbitmq.env"
exec "$RABBITMQ_SBIN/$(basename "$0")" "$@"
