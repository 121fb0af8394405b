#!/bin/sh
# S03-capture-icmp: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun run -d --name ns1 --network none nettools sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name ns1 lets
  # "ip -n ns1" and "ip netns exec ns1" find it.
  ip netns add ns1

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n ns1 link set lo up

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec ns1 sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec ns1 sysctl -qw net.ipv4.ip_unprivileged_port_start=0

  # === minirun run -d --name ns2 --network none nettools sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name ns2 lets
  # "ip -n ns2" and "ip netns exec ns2" find it.
  ip netns add ns2

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n ns2 link set lo up

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec ns2 sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec ns2 sysctl -qw net.ipv4.ip_unprivileged_port_start=0

  # === minirun link add ns1:veth0 ns2:veth1 --addr 10.0.1.1/24 --peer-addr 10.0.2.1/24

  # A veth pair is a cable with two plugs: veth0 is born in ns1, veth1 in ns2. Deleting one end
  # deletes the other.
  ip link add name veth0 netns ns1 type veth peer name veth1 netns ns2

  # The prefix length tells the kernel which neighbours are behind veth0; it derives a route from
  # it.
  ip -n ns1 addr add 10.0.1.1/24 dev veth0

  # An interface passes nothing until it is up, and neither does its peer.
  ip -n ns1 link set dev veth0 up

  # The prefix length tells the kernel which neighbours are behind veth1; it derives a route from
  # it.
  ip -n ns2 addr add 10.0.2.1/24 dev veth1

  # An interface passes nothing until it is up, and neither does its peer.
  ip -n ns2 link set dev veth1 up

  # === minirun route add ns1 10.0.2.0/24 dev veth0

  # What goes to 10.0.2.0/24 leaves by veth0, where the receiver itself is asked for.
  ip -n ns1 route add 10.0.2.0/24 dev veth0

  # === minirun route add ns2 10.0.1.0/24 dev veth1

  # What goes to 10.0.1.0/24 leaves by veth1, where the receiver itself is asked for.
  ip -n ns2 route add 10.0.1.0/24 dev veth1
}

delete() {
  ip -n ns2 route del 10.0.1.0/24 dev veth1
  ip -n ns1 route del 10.0.2.0/24 dev veth0
  ip -n ns1 link del dev veth0
  ip -n ns2 link del dev veth1
  ip netns del ns2
  ip netns del ns1
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
