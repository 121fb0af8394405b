#!/bin/sh
# S11: one container, tied to the host by a cable without a bridge.
. "$(dirname "$0")/demo.sh"
uses net0

show minirun run -d --name net0 --network none nettools sleep infinity
show minirun link add host:veth0 net0:ceth0 --addr 172.18.0.10/12 --peer-addr 172.18.0.20/12

title "Host and container reach each other"
show ping -c 1 172.18.0.20
show minirun exec net0 ping -c 1 172.18.0.10

title "The container knows the way to 172.16.0.0/12 and to nothing else, not even to another address of the host"
show ip -n net0 route
show minirun exec net0 ping -c 1 "$(host_address)" || echo "(exit code $?)"
