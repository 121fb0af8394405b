#!/bin/sh
# S1: two containers joined by one cable, a veth pair. Each end is in a subnet of its own.
. "$(dirname "$0")/demo.sh"
uses ns1 ns2

title "Two containers that have nothing but a loopback interface"
show minirun run -d --name ns1 --network none nettools sleep infinity
show minirun run -d --name ns2 --network none nettools sleep infinity
show minirun addr ns1

title "A cable between them"
show minirun link add ns1:veth0 ns2:veth1 --addr 10.0.1.1/24 --peer-addr 10.0.2.1/24
show minirun network graph
show ip -n ns1 -4 -brief addr
show ip -n ns2 -4 -brief addr

title "Each reaches its own address"
show minirun exec ns1 ping -c 1 10.0.1.1
show minirun exec ns2 ping -c 1 10.0.2.1

title "The host has neither of the two interfaces"
show ip link show veth0 || echo "(exit code $?)"
show ip link show veth1 || echo "(exit code $?)"

title "Neither knows a way to the other: their routing tables have their own subnets only"
show minirun exec ns1 ping -c 1 10.0.2.1 || echo "(exit code $?)"
show minirun exec ns2 ping -c 1 10.0.1.1 || echo "(exit code $?)"
show ip -n ns1 route
