#!/bin/sh
# After a box has ended: its control groups and all its files but the logs. The kernel has ended its processes, mounts and devices.
dir='@DIR@'
group='@CGROUP@'
tries=0
while [ "$tries" -lt 100 ]; do
	left=
	for root in /sys/fs/cgroup/*/"$group" /sys/fs/cgroup/"$group"; do
		[ -d "$root" ] || continue
		find "$root" -depth -type d -exec rmdir {} + 2> /dev/null
		[ ! -d "$root" ] || left=1
	done
	[ -n "$left" ] || break
	tries=$((tries + 1))
	sleep 0.05
done
find "$dir" -mindepth 1 -maxdepth 1 ! -name log ! -name box.pid ! -name cleanup.sh -exec rm -rf {} +
rm -f "$dir/box.pid" "$dir/cleanup.sh"
