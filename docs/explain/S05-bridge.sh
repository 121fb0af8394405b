#!/bin/sh
# S05-bridge: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun network create --subnet 10.13.37.0/24 --opt bridge=bridge0 lan

  # A bridge is a switch inside the kernel. bridge0 will join the containers of network lan; its MAC
  # is pinned, otherwise it would change with its ports.
  ip link add bridge0 address 02:42:0a:0d:25:01 type bridge
  ip link set bridge0 mtu 1500

  # The host's own address on the bridge; it is the containers' gateway. Deleting the bridge deletes
  # it.
  ip addr replace 10.13.37.1/24 dev bridge0

  # An interface passes nothing until it is up.
  ip link set bridge0 up

  # The host may answer for 127.0.0.1 on the bridge and checks sources loosely; it has no IPv6 where
  # that was not asked for. Deleting the bridge deletes these settings.
  sysctl -qw net.ipv4.conf.bridge0.route_localnet=1
  sysctl -qw net.ipv4.conf.bridge0.rp_filter=2
  sysctl -qw net.ipv6.conf.bridge0.disable_ipv6=1

  # The kernel passes packets from one interface to another only when it is told to be a router.
  sysctl -qw net.ipv4.ip_forward=1

  # Chains of our own, jumped to first. MINIRUN-USER is for your rules: minirun makes it, never
  # changes what is in it, and deletes it only when it is empty. Nothing that comes from elsewhere
  # may name the loopback addresses of this host.
  iptables -w -t filter -N MINIRUN-USER
  iptables -w -t filter -N MINIRUN-ISOLATE
  iptables -w -t filter -N MINIRUN-FORWARD
  iptables -w -t filter -I MINIRUN-FORWARD 1 -j MINIRUN-ISOLATE
  iptables -w -t filter -I MINIRUN-FORWARD 1 -j MINIRUN-USER
  iptables -w -t filter -I FORWARD 1 -j MINIRUN-FORWARD
  iptables -w -t nat -N MINIRUN-POSTROUTING
  iptables -w -t nat -N MINIRUN-DNAT
  iptables -w -t nat -A POSTROUTING -j MINIRUN-POSTROUTING
  iptables -w -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j MINIRUN-DNAT
  iptables -w -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j MINIRUN-DNAT
  iptables -w -t raw -N MINIRUN-RAW
  iptables -w -t raw -A MINIRUN-RAW ! -i lo -d 127.0.0.0/8 -j DROP
  iptables -w -t raw -I PREROUTING 1 -j MINIRUN-RAW

  # Answers to what a container asked come back in.
  iptables -w -t filter -I MINIRUN-FORWARD 2 -o bridge0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT

  # What was sent to a published port of the host comes in, from wherever it may be.
  iptables -w -t filter -I MINIRUN-FORWARD 2 -o bridge0 -m conntrack --ctstate DNAT -j ACCEPT

  # Nobody else gets in: neither other networks nor machines that route through this one.
  iptables -w -t filter -A MINIRUN-ISOLATE ! -i bridge0 -o bridge0 -j DROP

  # Whatever a container of this network sends is forwarded, also when another tool set the policy
  # of FORWARD to DROP.
  iptables -w -t filter -A MINIRUN-FORWARD -i bridge0 -j ACCEPT

  # Nobody outside has a route to the containers' addresses, so what leaves carries the host's
  # address; multicast stays as it is.
  iptables -w -t nat -A MINIRUN-POSTROUTING -s 10.13.37.0/24 ! -d 224.0.0.0/4 ! -o bridge0 -j MASQUERADE

  # A container that uses a published port of its own network must get the answer through the host,
  # not around it.
  iptables -w -t nat -A MINIRUN-POSTROUTING -s 10.13.37.0/24 -o bridge0 -m conntrack --ctstate DNAT -j MASQUERADE

  # What the host sends to its own loopback and a published port there leads to a container, carries
  # the bridge's address.
  iptables -w -t nat -A MINIRUN-POSTROUTING -s 127.0.0.0/8 -o bridge0 -j MASQUERADE

  # === minirun run -d --name foo --network lan --ip 10.13.37.2 busybox sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name foo lets
  # "ip -n foo" and "ip netns exec foo" find it.
  ip netns add foo

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n foo link set lo up

  # A veth pair is a cable with two plugs: mr0a0d2502 stays on the host, eth0 is born inside foo.
  # Deleting the namespace takes both along.
  ip link add mr0a0d2502 mtu 1500 address fe:42:0a:0d:25:02 type veth peer name eth0 mtu 1500 address 02:42:0a:0d:25:02 netns foo

  # Plug the host's end into the bridge.
  ip link set mr0a0d2502 master bridge0 up

  # The container's address; the prefix length tells the kernel which neighbours are reached
  # directly.
  ip -n foo addr add 10.13.37.2/24 dev eth0
  ip -n foo link set eth0 up

  # A bridge port needs no addresses of its own.
  sysctl -qw net.ipv6.conf.mr0a0d2502.disable_ipv6=1

  # Everything else goes to the gateway.
  ip -n foo route add default via 10.13.37.1 dev eth0

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec foo sysctl -qw net.ipv4.conf.eth0.arp_notify=1
  ip netns exec foo sysctl -qw net.ipv4.conf.eth0.rp_filter=2
  ip netns exec foo sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1
  ip netns exec foo sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec foo sysctl -qw net.ipv4.ip_unprivileged_port_start=0
}

delete() {
  ip netns del foo
  iptables -w -t nat -D MINIRUN-POSTROUTING -s 127.0.0.0/8 -o bridge0 -j MASQUERADE
  iptables -w -t nat -D MINIRUN-POSTROUTING -s 10.13.37.0/24 -o bridge0 -m conntrack --ctstate DNAT -j MASQUERADE
  iptables -w -t nat -D MINIRUN-POSTROUTING -s 10.13.37.0/24 ! -d 224.0.0.0/4 ! -o bridge0 -j MASQUERADE
  iptables -w -t filter -D MINIRUN-FORWARD -i bridge0 -j ACCEPT
  iptables -w -t filter -D MINIRUN-ISOLATE ! -i bridge0 -o bridge0 -j DROP
  iptables -w -t filter -D MINIRUN-FORWARD -o bridge0 -m conntrack --ctstate DNAT -j ACCEPT
  iptables -w -t filter -D MINIRUN-FORWARD -o bridge0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
  iptables -w -t filter -D FORWARD -j MINIRUN-FORWARD
  iptables -w -t filter -F MINIRUN-FORWARD
  iptables -w -t filter -X MINIRUN-FORWARD
  iptables -w -t filter -F MINIRUN-ISOLATE
  iptables -w -t filter -X MINIRUN-ISOLATE
  iptables -w -t nat -D POSTROUTING -j MINIRUN-POSTROUTING
  iptables -w -t nat -F MINIRUN-POSTROUTING
  iptables -w -t nat -X MINIRUN-POSTROUTING
  iptables -w -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j MINIRUN-DNAT
  iptables -w -t nat -D OUTPUT -m addrtype --dst-type LOCAL -j MINIRUN-DNAT
  iptables -w -t nat -F MINIRUN-DNAT
  iptables -w -t nat -X MINIRUN-DNAT
  iptables -w -t raw -D PREROUTING -j MINIRUN-RAW
  iptables -w -t raw -F MINIRUN-RAW
  iptables -w -t raw -X MINIRUN-RAW
  iptables -w -t filter -X MINIRUN-USER
  sysctl -qw net.ipv4.ip_forward=0
  ip link del bridge0
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
