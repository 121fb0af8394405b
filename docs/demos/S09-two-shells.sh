#!/bin/sh
# S9: two containers on one cable and in one subnet, a shell in each, and a capture in one.
. "$(dirname "$0")/demo.sh"
uses ns-1 ns-2

show minirun run -d --name ns-1 --network none nettools sleep infinity
show minirun run -d --name ns-2 --network none nettools sleep infinity
show minirun link add ns-1:veth-1 ns-2:veth-2 --addr 10.0.0.10/16 --peer-addr 10.0.0.20/16

title "In one terminal a shell in ns-2 (at a keyboard: minirun exec -it ns-2 sh), which captures"
echo 'tcpdump -t -n -c 4 -i veth-2 icmp' >keyboard
meanwhile minirun exec -i ns-2 sh <keyboard

title "In another a shell in ns-1"
printf '%s\n' 'ip -4 -brief addr' 'ping -c 2 -i 0.2 10.0.0.20' >keyboard
show minirun exec -i ns-1 sh <keyboard

title "Meanwhile in the first"
second_terminal

title "Nothing is left: no namespace, no interface"
show minirun rm -f ns-1
show minirun rm -f ns-2
show ip netns list
show ip link show veth-1 || echo "(exit code $?)"
