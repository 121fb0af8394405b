#!/bin/sh
# S12: the mistake: two containers, each with a cable of its own to the host, and both in one subnet.
. "$(dirname "$0")/demo.sh"
uses net0 net1

minirun run -d --name net0 --network none nettools sleep infinity >/dev/null
minirun run -d --name net1 --network none nettools sleep infinity >/dev/null
show minirun link add host:veth0 net0:ceth0 --addr 172.18.0.100/12 --peer-addr 172.18.0.10/12

title "The second one is refused, with the reason and the remedy"
show minirun link add host:veth1 net1:ceth1 --addr 172.18.0.101/12 --peer-addr 172.18.0.20/12 || echo "(exit code $?)"

title "To see what would happen: --force"
show minirun link add --force host:veth1 net1:ceth1 --addr 172.18.0.101/12 --peer-addr 172.18.0.20/12
show ping -c 1 -W 1 172.18.0.10
show ping -c 1 -W 1 172.18.0.20 || echo "(exit code $?)"
show minirun exec net1 ping -c 1 -W 1 172.18.0.100 || echo "(exit code $?)"

title "Why: two routes to the same subnet. The kernel takes the first, also for net1, which is behind the second"
show ip route show 172.16.0.0/12
show ip route get 172.18.0.20
typed minirun trace host net1 '>hops'
minirun trace host net1 2>&1 >hops || echo "(exit code $?)"
