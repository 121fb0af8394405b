#!/bin/sh
# S15: after traffic, a container knows the MAC address of its neighbour, which it has asked for by ARP.
. "$(dirname "$0")/demo.sh"
uses net net0 net1
minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net >/dev/null
minirun run -d --name net0 --network net --ip 172.18.0.10 nettools sleep infinity >/dev/null
minirun run -d --name net1 --network net --ip 172.18.0.20 nettools sleep infinity >/dev/null

title "Before the first packet to 172.18.0.20: the question who has it, and the answer"
meanwhile minirun capture -t -c 2 net0 arp and host 172.18.0.20
show minirun exec net0 ping -c 1 172.18.0.20
second_terminal

title "What net0 has learnt from it"
show ip -n net0 neigh
show minirun neigh net0
title "It is the address of net1"
show minirun addr net1
