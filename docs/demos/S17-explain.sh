#!/bin/sh
# S17: --explain prints a script that does by hand what the command would do.
. "$(dirname "$0")/demo.sh"
uses net net0

title "A script of the network, and one of a container; of this, the part about its network stack"
typed minirun network create --explain --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net '>net.sh'
minirun network create --explain --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net >net.sh
minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net >id
typed minirun run --explain -d --name net0 --network net --ip 172.18.0.10 busybox sleep infinity '>net0.sh'
minirun run --explain -d --name net0 --network net --ip 172.18.0.10 busybox sleep infinity >net0.sh
show sed -n '/--- Network stack/,/default via/p' net0.sh

title "Their add in an empty namespace, then their delete, twice"
cat >try.sh <<'END'
mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up
sh net.sh add && sh net0.sh add && sh look.sh >by-hand
for time in 1 2; do sh net0.sh delete && sh net.sh delete && echo exit code 0; done
{ ip -brief link; ip netns list; iptables-save; } | grep -v '^[#:*C]' >left
END
# What there is on the host, in the namespace, and in the rules.
printf %s 'ip -o -4 addr show br0 | cut -d : -f 2; ip -o link show master br0 | cut -d : -f 2; ip -n net0 -o -4 addr
  ip -n net0 route; cat /proc/sys/net/ipv4/ip_forward; iptables-save | grep br0' >look.sh
show unshare --net --mount --pid --fork sh try.sh
show cat left

title "The same by minirun: there is no difference"
show minirun run -d --name net0 --network net --ip 172.18.0.10 busybox sleep infinity
sh look.sh >really
show diff by-hand really
