#!/bin/sh
# S07-host-interface: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun run -d --name foo --network none busybox sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name foo lets
  # "ip -n foo" and "ip netns exec foo" find it.
  ip netns add foo

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n foo link set lo up

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec foo sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec foo sysctl -qw net.ipv4.ip_unprivileged_port_start=0

  # === minirun link add foo:enp3s1f0 phys:enp3s1f0 --addr 192.168.1.3/24

  # An interface is in one network stack only: enp3s1f0 leaves the host and is enp3s1f0 in foo. It
  # keeps minirun-enp3s1f0 as a second name, by which it is found again when it goes back with its
  # addresses and routes.
  ip link property add dev enp3s1f0 altname minirun-enp3s1f0
  ip link set dev enp3s1f0 netns foo name enp3s1f0

  # The prefix length tells the kernel which neighbours are behind enp3s1f0; it derives a route from
  # it.
  ip -n foo addr add 192.168.1.3/24 dev enp3s1f0

  # An interface passes nothing until it is up, and neither does its peer.
  ip -n foo link set dev enp3s1f0 up

  # === minirun route add foo default via 192.168.1.1

  # Everything that no other route matches is handed to 192.168.1.1, which passes it on.
  ip -n foo route add default via 192.168.1.1 dev enp3s1f0
}

delete() {
  ip -n foo route del default via 192.168.1.1 dev enp3s1f0
  ip -n foo link set dev minirun-enp3s1f0 netns $$ name enp3s1f0
  ip -n foo link set dev enp3s1f0 netns $$ name enp3s1f0
  ip link set dev minirun-enp3s1f0 name enp3s1f0
  ip link property del dev enp3s1f0 altname minirun-enp3s1f0
  ip link set dev enp3s1f0 mtu 1500
  ip addr replace 198.51.100.7/24 dev enp3s1f0
  ip link set dev enp3s1f0 up
  ip netns del foo
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
