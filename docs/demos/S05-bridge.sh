#!/bin/sh
# S5: a bridge on the host, with the host itself and a container on it.
. "$(dirname "$0")/demo.sh"
uses lan foo

title "A network is a bridge on the host, and the host has the first address on it"
show minirun network create --subnet 10.13.37.0/24 --opt bridge=bridge0 lan
show minirun run -d --name foo --network lan --ip 10.13.37.2 busybox sleep infinity

show ip -4 -brief addr show dev bridge0
show ip -n foo -4 -brief addr show dev eth0

title "One cable goes from the container to a port of the bridge"
show ip link show master bridge0

title "Host and container reach each other"
show ping -c 2 -i 0.1 10.13.37.2
show minirun exec foo ping -c 2 10.13.37.1
