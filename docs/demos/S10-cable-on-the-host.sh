#!/bin/sh
# S10: a cable of which both ends are on the host.
. "$(dirname "$0")/demo.sh"
uses veth0-ceth0

show minirun link add host:veth0 host:ceth0 --addr 172.18.0.10/12 --peer-addr 172.18.0.20/12
show ip -4 -brief addr show dev veth0
show ip -4 -brief addr show dev ceth0

title "An address that has a length gives the kernel a route, too"
show ip route show 172.16.0.0/12

title "While the other end is down, nothing can come out there: linkdown"
show minirun link down host:ceth0
until_true 'ip route | grep linkdown'
show ip route show 172.16.0.0/12
show minirun link up host:ceth0
until_true '! ip route | grep linkdown'
show ip route show 172.16.0.0/12

title "An end never goes alone: who deletes one has deleted both"
show ip link delete veth0
show ip link show ceth0 || echo "(exit code $?)"
show minirun link ls
