#!/bin/sh
# S16-entering-namespaces: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun run -d --name net0 --network none nettools tail -f /dev/null

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name net0 lets
  # "ip -n net0" and "ip netns exec net0" find it.
  ip netns add net0

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n net0 link set lo up

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec net0 sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec net0 sysctl -qw net.ipv4.ip_unprivileged_port_start=0
}

delete() {
  ip netns del net0
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
