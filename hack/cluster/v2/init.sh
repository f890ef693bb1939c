#!/bin/sh
# The first process of a guest: file systems, control groups of version 2, kernel modules, then one program, then power off.
# In: from the kernel's command line GUEST, the folder that this lies in, and CACHE; in the folder `run.sh`, what to run, and `modprobe`.
# Out: on the console the program's output; in `out/status` its exit status. The root is the machine's own, read only: what is
# written goes to memory, what the cluster's containers write to the guest's disk.
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
stty -opost
mount -t proc proc /proc
mount -t sysfs sysfs /sys
[ -c /dev/null ] || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=755 tmpfs /run
# The one folder that the machine sees.
mount -t hostfs -o "$GUEST/out" hostfs "$GUEST/out"
for folder in "$CACHE/locks" "$GUEST/tmp"; do
	mount -t tmpfs tmpfs "$folder"
done
# The first block device of user-mode Linux has this number. Nothing waits for the disk: it is thrown away with the guest.
mknod /run/disk b 98 0
mount -t ext4 -o noatime,barrier=0,noinit_itable /run/disk "$CACHE/clusters"
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# By this program the kernel gets what it lacks; these are known to be needed.
echo "$GUEST/modprobe" > /proc/sys/kernel/modprobe
"$GUEST/modprobe" -a overlay bridge br_netfilter veth ip_tables iptable_nat iptable_filter
ip link set lo up
echo "kernel $(uname -r) in a process, control groups: $(stat -f -c %T /sys/fs/cgroup) with $(cat /sys/fs/cgroup/cgroup.controllers)"
# A program takes ten times as long to start here as on the machine.
export QSCALER_PATIENCE=6
export TMPDIR="$GUEST/tmp" HOME="$GUEST/tmp" QSCALER_CACHE="$CACHE"
cd /
# Through a pipe: progress for a log, not for a terminal.
{ setsid -w sh "$GUEST/run.sh"; echo "$?" > "$GUEST/out/status"; } < /dev/null 2>&1 | cat
# Powering off is asked for, not waited for; a first process that ends would be a panic.
echo o > /proc/sysrq-trigger
exec sleep 1000
