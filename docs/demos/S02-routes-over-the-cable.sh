#!/bin/sh
# S2: the cable of S1, and on both sides a route to the other's subnet.
. "$(dirname "$0")/demo.sh"
uses ns1 ns2

minirun run -d --name ns1 --network none nettools sleep infinity >/dev/null
minirun run -d --name ns2 --network none nettools sleep infinity >/dev/null
minirun link add ns1:veth0 ns2:veth1 --addr 10.0.1.1/24 --peer-addr 10.0.2.1/24 >/dev/null

title "ns1 does not know where 10.0.2.1 is"
show ip -n ns1 route get 10.0.2.1 || echo "(exit code $?)"

title "A route on each side: what goes there goes into the cable"
show minirun route add ns1 10.0.2.0/24 dev veth0
show minirun route add ns2 10.0.1.0/24 dev veth1

title "Now the kernel names the interface and the address that it sends from"
show ip -n ns1 route get 10.0.2.1
show ip -n ns2 route get 10.0.1.1
show ip -n ns1 route

title "Ping in both directions"
show minirun exec ns1 ping -c 3 -i 0.1 10.0.2.1
show minirun exec ns2 ping -c 3 -i 0.1 10.0.1.1
