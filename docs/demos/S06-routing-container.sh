#!/bin/sh
# S6: behind the container foo of S5 is another one, bar. foo is a router: the host reaches bar through it.
. "$(dirname "$0")/demo.sh"
uses lan foo bar

minirun network create --subnet 10.13.37.0/24 --opt bridge=bridge0 lan >/dev/null

title "foo is on the bridge and passes packets on; bar has no network of its own"
show minirun run -d --name foo --network lan --ip 10.13.37.2 --router busybox sleep infinity
show minirun run -d --name bar --network none busybox sleep infinity

title "A cable from foo to bar. Four addresses, two of which can be used: 10.9.9.9 and 10.9.9.10"
show minirun link add foo:eth1 bar:eth0 --addr 10.9.9.9/30 --peer-addr 10.9.9.10/30

title "bar sends everything to foo; the host learns that foo leads to bar"
show minirun route add bar default via 10.9.9.9
show minirun route add host 10.9.9.8/30 via 10.13.37.2
show minirun network graph

title "From the host, two hops"
show traceroute -n 10.9.9.10
show minirun trace host 10.9.9.10
