#!/bin/sh
# Runs once in a new box, as a child of its first process: private mounts, one network device, then every daemon. In: standard input,
# the API's listening socket in the caller's network; words between @ set by xtask. Out: running daemons, one log each.
set -eu
dir='@DIR@'
# Mounts made here stay here; mounts made by the kubelet reach the containers.
mount --make-rprivate /
mount --make-rshared /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/containerd /run/lock
# What the daemons write for a moment ends with the box; the machine's own folder for that may be read-only.
export TMPDIR=/run
mount --bind "$dir/var-lib" /var/lib
mount --bind "$dir/var-log" /var/log
mkdir -p /var/lib/kubelet /var/lib/cni
# The kubelet writes these, and they are the whole machine's: it finds what it wants in covers and writes nothing.
cover() {
	echo "$2" > "$dir/conf/sysctl-${1##*/}"
	mount --bind "$dir/conf/sysctl-${1##*/}" "/proc/sys/$1"
}
cover vm/overcommit_memory 1
cover kernel/panic 10
cover kernel/panic_on_oops 1
# The kubelet ends on a processor that tells no clock rate, such as that of user-mode Linux.
if ! grep -q 'cpu MHz' /proc/cpuinfo; then
	{ echo 'cpu MHz		: 1000.000'; cat /proc/cpuinfo; } > "$dir/conf/cpuinfo"
	mount --bind "$dir/conf/cpuinfo" /proc/cpuinfo
fi
hostname '@NODE@'
ip link set lo up
# One bridge is the node's interface and the pods' gateway at once.
ip link add br0 type bridge
ip address add '@HOST_IP@/16' dev br0
ip link set br0 up
ip route add default dev br0 src '@HOST_IP@'
echo 1 > /proc/sys/net/ipv4/ip_forward
[ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables

# Not every kernel has nftables for IPv4; --check changes nothing.
nft --check add table ip probe 2> /dev/null || sed -i 's/^mode: nftables$/mode: iptables/' "$dir/conf/proxy.yaml"

cd "$dir"
# One that ends is started again, as a node's service manager does: on a slow machine some give up waiting for the API.
run() {
	log="$dir/log/$1.log"
	shift
	setsid sh -c 'while :; do "$@"; echo "ended with $?"; sleep 1; done' keep "$@" > "$log" 2>&1 < /dev/null &
}
# A shell gives background programs no standard input of its own; by another number it passes.
exec 3<&0
setsid relay 127.0.0.1:@PORT@ > "$dir/log/relay.log" 2>&1 <&3 3<&- &
exec 3<&-
# On a slow machine one after another: all at once, each gives up waiting for the others, begins anew, and none gets anywhere.
settled() {
	[ "$QSCALER_PATIENCE" -gt 1 ] || return 0
	until "$@" > /dev/null 2>&1; do sleep 1; done
}
ask() {
	kubectl --kubeconfig "$dir/kubeconfig" --cache-dir "$dir/run/kubectl" get "$@"
}
run containerd containerd -c "$dir/conf/containerd.toml"
settled test -e "$dir/run/imported"
run etcd etcd --name default --data-dir "$dir/etcd" --unsafe-no-fsync --log-level warn \
	--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
	--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380
run kube-apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --secure-port @PORT@ --bind-address 0.0.0.0 \
	--advertise-address '@HOST_IP@' --endpoint-reconciler-type lease --service-cluster-ip-range '@SERVICES@' --allow-privileged=true \
	--authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction --profiling=false \
	--audit-policy-file conf/audit.yaml --audit-log-path log/audit.log --audit-log-format json \
	--client-ca-file pki/ca.crt --tls-cert-file pki/apiserver.crt --tls-private-key-file pki/apiserver.key \
	--service-account-issuer https://kubernetes.default.svc --service-account-key-file pki/sa.pub --service-account-signing-key-file pki/sa.key \
	--kubelet-client-certificate pki/kubelet-client.crt --kubelet-client-key pki/kubelet-client.key \
	--kubelet-certificate-authority pki/ca.crt --kubelet-preferred-address-types InternalIP
settled ask --raw /readyz
run kube-controller-manager kube-controller-manager --kubeconfig conf/controllers.kubeconfig --use-service-account-credentials \
	--leader-elect=false --bind-address 127.0.0.1 --allocate-node-cidrs=false --kube-api-qps 500 --kube-api-burst 1000 \
	--root-ca-file pki/ca.crt --service-account-private-key-file pki/sa.key \
	--cluster-signing-cert-file pki/ca.crt --cluster-signing-key-file pki/ca.key
settled ask --namespace default serviceaccount default
run kube-scheduler kube-scheduler --kubeconfig conf/scheduler.kubeconfig --leader-elect=false --bind-address 127.0.0.1
run kube-proxy kube-proxy --config conf/proxy.yaml
# The kubelet gives up without a container runtime; for the API it waits by itself.
waited=0
until [ -S /run/containerd/containerd.sock ]; do
	waited=$((waited + 1))
	[ "$waited" -lt 600 ] || { echo "containerd made no socket; see log/containerd.log"; exit 1; }
	sleep 0.05
done
run kubelet kubelet --config "$dir/conf/kubelet.yaml" --kubeconfig "$dir/conf/node.kubeconfig" --hostname-override '@NODE@' \
	--node-ip '@HOST_IP@' --root-dir "$dir/kubelet" --cert-dir "$dir/kubelet/pki"
: > "$dir/run/started"
