#!/bin/sh
# S09-two-shells: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun run -d --name ns-1 --network none nettools sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name ns-1 lets
  # "ip -n ns-1" and "ip netns exec ns-1" find it.
  ip netns add ns-1

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n ns-1 link set lo up

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec ns-1 sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec ns-1 sysctl -qw net.ipv4.ip_unprivileged_port_start=0

  # === minirun run -d --name ns-2 --network none nettools sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name ns-2 lets
  # "ip -n ns-2" and "ip netns exec ns-2" find it.
  ip netns add ns-2

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n ns-2 link set lo up

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec ns-2 sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec ns-2 sysctl -qw net.ipv4.ip_unprivileged_port_start=0

  # === minirun link add ns-1:veth-1 ns-2:veth-2 --addr 10.0.0.10/16 --peer-addr 10.0.0.20/16

  # A veth pair is a cable with two plugs: veth-1 is born in ns-1, veth-2 in ns-2. Deleting one end
  # deletes the other.
  ip link add name veth-1 netns ns-1 type veth peer name veth-2 netns ns-2

  # The prefix length tells the kernel which neighbours are behind veth-1; it derives a route from
  # it.
  ip -n ns-1 addr add 10.0.0.10/16 dev veth-1

  # An interface passes nothing until it is up, and neither does its peer.
  ip -n ns-1 link set dev veth-1 up

  # The prefix length tells the kernel which neighbours are behind veth-2; it derives a route from
  # it.
  ip -n ns-2 addr add 10.0.0.20/16 dev veth-2

  # An interface passes nothing until it is up, and neither does its peer.
  ip -n ns-2 link set dev veth-2 up
}

delete() {
  ip -n ns-1 link del dev veth-1
  ip -n ns-2 link del dev veth-2
  ip netns del ns-2
  ip netns del ns-1
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
