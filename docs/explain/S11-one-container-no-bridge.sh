#!/bin/sh
# S11-one-container-no-bridge: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun run -d --name net0 --network none nettools sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name net0 lets
  # "ip -n net0" and "ip netns exec net0" find it.
  ip netns add net0

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n net0 link set lo up

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec net0 sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec net0 sysctl -qw net.ipv4.ip_unprivileged_port_start=0

  # === minirun link add host:veth0 net0:ceth0 --addr 172.18.0.10/12 --peer-addr 172.18.0.20/12

  # A veth pair is a cable with two plugs: veth0 is born on the host, ceth0 in net0. Deleting one
  # end deletes the other.
  ip link add name veth0 type veth peer name ceth0 netns net0

  # The prefix length tells the kernel which neighbours are behind veth0; it derives a route from
  # it.
  ip addr add 172.18.0.10/12 dev veth0

  # An interface passes nothing until it is up, and neither does its peer.
  ip link set dev veth0 up

  # The prefix length tells the kernel which neighbours are behind ceth0; it derives a route from
  # it.
  ip -n net0 addr add 172.18.0.20/12 dev ceth0

  # An interface passes nothing until it is up, and neither does its peer.
  ip -n net0 link set dev ceth0 up

  # The host has no IPv6 on veth0, which was given none: a container must not make it take routes.
  sysctl -qw net.ipv6.conf.veth0.disable_ipv6=1
}

delete() {
  ip link del dev veth0
  ip netns del net0
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
