#!/bin/sh
# rabbitmq-server, unpacked and not installed: everything it reads or writes is named by the environment, and its process id is
# this script's own (exec), so that the one who started it can end it by pid. Its port mapper (epmd) is its own and dies with it.
#   RABBITMQ_NODENAME         such as a@localhost; one per server
#   RABBITMQ_MNESIA_BASE      data directory, also HOME (cookie); created
#   RABBITMQ_LOG_BASE         log directory, default: RABBITMQ_MNESIA_BASE/log
#   RABBITMQ_NODE_IP_ADDRESS  default 127.0.0.1        RABBITMQ_NODE_PORT        AMQP, default 5672
#   RABBITMQ_MANAGEMENT_PORT  default 15672            RABBITMQ_PROMETHEUS_PORT  default 15692
#   RABBITMQ_DIST_PORT        default 25672            ERL_EPMD_PORT             default 4369
#   RABBITMQ_EXTRA_CONFIG     further lines of rabbitmq.conf, such as "collect_statistics_interval = 1000"
# User guest, password guest, from any address.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../rabbitmq.env"
mkdir -p "$RABBITMQ_MNESIA_BASE" "$RABBITMQ_LOG_BASE"
export RABBITMQ_CONFIG_FILE="${RABBITMQ_CONFIG_FILE:-$RABBITMQ_MNESIA_BASE/rabbitmq.conf}"
export RABBITMQ_ENABLED_PLUGINS_FILE="${RABBITMQ_ENABLED_PLUGINS_FILE:-$RABBITMQ_MNESIA_BASE/enabled_plugins}"
cat > "$RABBITMQ_CONFIG_FILE" <<CONF
loopback_users = none
management.tcp.ip = $RABBITMQ_NODE_IP_ADDRESS
management.tcp.port = ${RABBITMQ_MANAGEMENT_PORT:-15672}
prometheus.tcp.ip = $RABBITMQ_NODE_IP_ADDRESS
prometheus.tcp.port = ${RABBITMQ_PROMETHEUS_PORT:-15692}
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
${RABBITMQ_EXTRA_CONFIG:-}
CONF
[ -f "$RABBITMQ_ENABLED_PLUGINS_FILE" ] || echo '[rabbitmq_management,rabbitmq_prometheus].' > "$RABBITMQ_ENABLED_PLUGINS_FILE"
# In the foreground, so that nothing outlives this process: pdeathsig ends it with the server, which keeps this pid.
setpriv --pdeathsig KILL epmd -address "$ERL_EPMD_ADDRESS" -port "$ERL_EPMD_PORT" < /dev/null > /dev/null 2>&1 &
export detached=1 # the server's script then execs Erlang in place of waiting for it
exec "$RABBITMQ_SBIN/rabbitmq-server" "$@" < /dev/null
