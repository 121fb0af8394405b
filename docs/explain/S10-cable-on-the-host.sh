#!/bin/sh
# S10-cable-on-the-host: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun link add host:veth0 host:ceth0 --addr 172.18.0.10/12 --peer-addr 172.18.0.20/12

  # A veth pair is a cable with two plugs: veth0 is born on the host, ceth0 on the host. Deleting
  # one end deletes the other.
  ip link add name veth0 type veth peer name ceth0

  # The prefix length tells the kernel which neighbours are behind veth0; it derives a route from
  # it.
  ip addr add 172.18.0.10/12 dev veth0

  # An interface passes nothing until it is up, and neither does its peer.
  ip link set dev veth0 up

  # The prefix length tells the kernel which neighbours are behind ceth0; it derives a route from
  # it.
  ip addr add 172.18.0.20/12 dev ceth0

  # An interface passes nothing until it is up, and neither does its peer.
  ip link set dev ceth0 up

  # The host has no IPv6 on veth0, which was given none: a container must not make it take routes.
  sysctl -qw net.ipv6.conf.veth0.disable_ipv6=1

  # The host has no IPv6 on ceth0, which was given none: a container must not make it take routes.
  sysctl -qw net.ipv6.conf.ceth0.disable_ipv6=1
}

delete() {
  ip link del dev veth0
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
