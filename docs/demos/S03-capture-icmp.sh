#!/bin/sh
# S3: the cable of S2 with a capture of ICMP in the namespace of one container, into a file.
. "$(dirname "$0")/demo.sh"
uses ns1 ns2

minirun run -d --name ns1 --network none nettools sleep infinity >/dev/null
minirun run -d --name ns2 --network none nettools sleep infinity >/dev/null
minirun link add ns1:veth0 ns2:veth1 --addr 10.0.1.1/24 --peer-addr 10.0.2.1/24 >/dev/null
minirun route add ns1 10.0.2.0/24 dev veth0
minirun route add ns2 10.0.1.0/24 dev veth1

title "A capture of 20 packets in one terminal, ping in another"
meanwhile minirun capture -c 20 -w icmp.pcap ns1:veth0 icmp
show minirun exec ns2 ping -c 10 -i 0.1 10.0.1.1
second_terminal

title "What it saw, as any tcpdump shows it"
show tcpdump -t -n -r icmp.pcap
