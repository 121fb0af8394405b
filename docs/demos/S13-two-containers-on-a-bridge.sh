#!/bin/sh
# S13: two containers on a bridge, with default routes by way of it.
. "$(dirname "$0")/demo.sh"
uses net net0 net1

show minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net
show minirun run -d --name net0 --network net --ip 172.18.0.10 nettools sleep infinity
show minirun run -d --name net1 --network net --ip 172.18.0.20 nettools sleep infinity
show minirun network graph
show ip -4 -brief addr show br0
show ip -brief link show master br0
show ip -n net0 route

title "Each reaches the other, the bridge, and every other address of the host"
show minirun exec net0 ping -c 1 172.18.0.20
show minirun exec net1 ping -c 1 172.18.0.10
show minirun exec net0 ping -c 1 172.18.0.1
show minirun exec net1 ping -c 1 "$(host_address)"
