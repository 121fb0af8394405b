#!/bin/sh
# The floor: what `run --rm busybox true` takes by hand, in as few commands as we know. No state, no locks, no undo.
#
#   floor.sh ROOTFS DIR COMMAND [ARGUMENT…]    DIR holds the writable layers; the bridge floor0 (10.91.0.1/16) exists
set -eu
rootfs=$1
name=floor$$
work=$2/$name
shift 2

ip netns add "$name"
ip -batch - << END
link add $name type veth peer name eth0 netns $name
link set $name master floor0 up
END
ip -n "$name" -batch - << END
link set lo up
addr add 10.91.0.2/16 dev eth0
link set eth0 up
route add default via 10.91.0.1
END
mkdir -p "$work/upper" "$work/work" "$work/merged"

status=0
# The overlay is mounted in the container's own mount namespace and ends with it.
# shellcheck disable=SC2016 # expanded inside
nsenter --net="/run/netns/$name" unshare --mount --pid --uts --ipc --cgroup --fork --kill-child sh -euc '
  cd "$2"
  mount -t overlay overlay -o "lowerdir=$1,upperdir=upper,workdir=work" merged
  cd merged
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mount -t tmpfs -o mode=755 dev dev
  mkdir dev/old
  hostname "${2##*/}"
  pivot_root . dev/old
  shift 2
  umount -l /dev/old
  exec "$@"
' floor "$rootfs" "$work" "$@" || status=$?

ip netns del "$name"
rm -rf "$work"
exit "$status"
