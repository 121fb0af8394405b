#!/bin/sh
# S4: a TCP server on one end of the cable of S2 and a client on the other; the capture has the handshake and the message.
. "$(dirname "$0")/demo.sh"
uses ns1 ns2

title "ns1 is a server: it prints what arrives on TCP port 7096"
show minirun run -d --name ns1 --network none nettools sh -c 'exec nc -l -k -n -v 7096 2>&1'
minirun run -d --name ns2 --network none nettools sleep infinity >/dev/null
minirun link add ns1:veth0 ns2:veth1 --addr 10.0.1.1/24 --peer-addr 10.0.2.1/24 >/dev/null
minirun route add ns1 10.0.2.0/24 dev veth0
minirun route add ns2 10.0.1.0/24 dev veth1
until_true 'minirun logs ns1 | grep Listening'

title "A client, and a capture of four packets"
meanwhile minirun capture -c 4 -w tcp.pcap ns1:veth0 tcp port 7096
show minirun exec ns2 sh -c "echo hello from ns2 | nc -N 10.0.1.1 7096"
second_terminal

title "The message has arrived"
until_true 'minirun logs ns1 | grep hello'
show minirun logs ns1

title "The handshake: S is SYN, a dot is ACK. Then the message: P is PUSH"
show tcpdump -t -n -r tcp.pcap
show sh -c "tcpdump -A -r tcp.pcap 2>/dev/null | grep -o 'hello.*'"
