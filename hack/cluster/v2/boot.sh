#!/bin/sh
# The first process, on the machine, of the namespaces that hold a guest. In: GUEST, its folder; as arguments the kernel and its command
# line. Out: the exit status of the program that the guest ran. With this process the kernel of the machine ends the guest's.
ip link set lo up
"$@" < /dev/null
read -r status < "$GUEST/out/status" || status=1
exit "$status"
