#!/bin/sh
# S17: --explain prints a script that does by hand what the command would do.
. "$(dirname "$0")/demo.sh"
uses net net0
minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net >/dev/null

title "The script of a container, and its part about the container's network stack"
typed minirun run --explain -d --name net0 --network net --ip 172.18.0.10 busybox sleep infinity '>net0.sh'
minirun run --explain -d --name net0 --network net --ip 172.18.0.10 busybox sleep infinity >net0.sh
show sed -n '/--- Network stack/,/--- The process/p' net0.sh

title "Its add in an empty namespace, then its delete, twice"
cat >look.sh <<'END'
ip -o -4 addr show br0 | cut -d : -f 2; ip -o link show master br0 | cut -d : -f 2; cat /proc/sys/net/ipv4/ip_forward
ip -n net0 -o -4 addr; ip -n net0 route; iptables-save | grep br0
END
cat >try.sh <<'END'
mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up
sh net0.sh add; sh look.sh >by-hand
sh net0.sh delete && sh net0.sh delete && echo "exit code 0"
{ ip -brief link; ip netns list; iptables-save; } | grep -v '^[#:*C]' >left
END
show unshare --net --mount --pid --fork sh try.sh
show cat left

title "The same by minirun: there is no difference"
show minirun run -d --name net0 --network net --ip 172.18.0.10 busybox sleep infinity
sh look.sh >really
show diff by-hand really
