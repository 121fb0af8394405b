#!/bin/sh
# S14: sh S14-masquerade.sh [SERVER]: a container reaches a server outside that has no route back to it.
. "$(dirname "$0")/demo.sh"
server=${1:-203.0.113.1}
uplink=$(ip -o route get "$server" | sed 's/.* dev \([^ ]*\).*/\1/')
uses net net0

title "Without masquerade: the question leaves with an address that the server has no route to"
show minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 --opt masquerade=false net
show minirun run -d --name net0 --network net --ip 172.18.0.10 nettools sleep infinity
show cat /proc/sys/net/ipv4/ip_forward
meanwhile minirun capture -t -c 1 "host:$uplink" icmp and host "$server"
show minirun exec net0 ping -c 1 -W 1 "$server" || echo "(exit code $?)"
second_terminal
minirun rm -f net0 >/dev/null && minirun network rm net >/dev/null

title "With masquerade: the host puts its own address in, and passes the answer on to the container"
show minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net
show minirun run -d --name net0 --network net --ip 172.18.0.10 nettools sleep infinity
show iptables -t nat -S MINIRUN-POSTROUTING 1
meanwhile minirun capture -t -c 2 "host:$uplink" icmp and host "$server"
show minirun exec net0 ping -c 1 -W 1 "$server"
second_terminal
