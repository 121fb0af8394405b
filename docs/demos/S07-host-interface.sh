#!/bin/sh
# S7: sh S07-host-interface.sh INTERFACE [GATEWAY]: an interface of the host moves into a container, and comes back.
. "$(dirname "$0")/demo.sh"
nic=${1:?give an interface of the host that nobody needs just now}
uses foo
minirun run -d --name foo --network none busybox sleep infinity >/dev/null
show ip -4 -brief addr show dev "$nic"

title "Into the container, with an address and a default route"
show minirun link add foo:enp3s1f0 "phys:$nic" --addr 192.168.1.3/24
show minirun route add foo default via "${2:-192.168.1.1}"
show ip link show "$nic" || echo "(exit code $?)"
show ip -n foo -4 -brief addr
show ip -n foo route
show minirun exec foo ping -c 1 "${2:-192.168.1.1}" || echo "(exit code $?)"

title "Its container is killed: it is the host's again, under its name"
show minirun kill foo
show minirun wait foo
show ip -4 -brief addr show dev "$nic"

title "Started again, the container has it again; rm gives it back, too"
show minirun start foo
show ip link show "$nic" || echo "(exit code $?)"
show minirun rm -f foo
show ip -4 -brief addr show dev "$nic"
