#!/bin/sh
# S14-masquerade: the network of the demo, by hand. Made of what --explain says about
# its commands; left out are files, names and processes of containers.
#
#   sh SCRIPT add      takes the steps
#   sh SCRIPT delete   takes them back; when there is nothing to take back, nothing happens

add() {
  set -e
  # === minirun network create --subnet 172.16.0.0/12 --gateway 172.18.0.1 --opt bridge=br0 net

  # A bridge is a switch inside the kernel. br0 will join the containers of network net; its MAC is
  # pinned, otherwise it would change with its ports.
  ip link add br0 address 02:42:ac:12:00:01 type bridge
  ip link set br0 mtu 1500

  # The host's own address on the bridge; it is the containers' gateway. Deleting the bridge deletes
  # it.
  ip addr replace 172.18.0.1/12 dev br0

  # An interface passes nothing until it is up.
  ip link set br0 up

  # The host may answer for 127.0.0.1 on the bridge and checks sources loosely; it has no IPv6 where
  # that was not asked for. Deleting the bridge deletes these settings.
  sysctl -qw net.ipv4.conf.br0.route_localnet=1
  sysctl -qw net.ipv4.conf.br0.rp_filter=2
  sysctl -qw net.ipv6.conf.br0.disable_ipv6=1

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
  iptables -w -t filter -I MINIRUN-FORWARD 2 -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT

  # What was sent to a published port of the host comes in, from wherever it may be.
  iptables -w -t filter -I MINIRUN-FORWARD 2 -o br0 -m conntrack --ctstate DNAT -j ACCEPT

  # Nobody else gets in: neither other networks nor machines that route through this one.
  iptables -w -t filter -A MINIRUN-ISOLATE ! -i br0 -o br0 -j DROP

  # Whatever a container of this network sends is forwarded, also when another tool set the policy
  # of FORWARD to DROP.
  iptables -w -t filter -A MINIRUN-FORWARD -i br0 -j ACCEPT

  # Nobody outside has a route to the containers' addresses, so what leaves carries the host's
  # address; multicast stays as it is.
  iptables -w -t nat -A MINIRUN-POSTROUTING -s 172.16.0.0/12 ! -d 224.0.0.0/4 ! -o br0 -j MASQUERADE

  # A container that uses a published port of its own network must get the answer through the host,
  # not around it.
  iptables -w -t nat -A MINIRUN-POSTROUTING -s 172.16.0.0/12 -o br0 -m conntrack --ctstate DNAT -j MASQUERADE

  # What the host sends to its own loopback and a published port there leads to a container, carries
  # the bridge's address.
  iptables -w -t nat -A MINIRUN-POSTROUTING -s 127.0.0.0/8 -o br0 -j MASQUERADE

  # === minirun run -d --name net0 --network net --ip 172.18.0.10 nettools sleep infinity

  # A network namespace is a network stack of its own: interfaces, routes, rules. The name net0 lets
  # "ip -n net0" and "ip netns exec net0" find it.
  ip netns add net0

  # Even the loopback interface starts down, and without it 127.0.0.1 does not answer.
  ip -n net0 link set lo up

  # A veth pair is a cable with two plugs: mrac12000a stays on the host, eth0 is born inside net0.
  # Deleting the namespace takes both along.
  ip link add mrac12000a mtu 1500 address fe:42:ac:12:00:0a type veth peer name eth0 mtu 1500 address 02:42:ac:12:00:0a netns net0

  # Plug the host's end into the bridge.
  ip link set mrac12000a master br0 up

  # The container's address; the prefix length tells the kernel which neighbours are reached
  # directly.
  ip -n net0 addr add 172.18.0.10/12 dev eth0
  ip -n net0 link set eth0 up

  # A bridge port needs no addresses of its own.
  sysctl -qw net.ipv6.conf.mrac12000a.disable_ipv6=1

  # Everything else goes to the gateway.
  ip -n net0 route add default via 172.18.0.1 dev eth0

  # Settings of the namespace, which init makes in it before the command starts.
  ip netns exec net0 sysctl -qw net.ipv4.conf.eth0.arp_notify=1
  ip netns exec net0 sysctl -qw net.ipv4.conf.eth0.rp_filter=2
  ip netns exec net0 sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1
  ip netns exec net0 sysctl -qw net.ipv4.ping_group_range='0 2147483647'
  ip netns exec net0 sysctl -qw net.ipv4.ip_unprivileged_port_start=0
}

delete() {
  ip netns del net0
  iptables -w -t nat -D MINIRUN-POSTROUTING -s 127.0.0.0/8 -o br0 -j MASQUERADE
  iptables -w -t nat -D MINIRUN-POSTROUTING -s 172.16.0.0/12 -o br0 -m conntrack --ctstate DNAT -j MASQUERADE
  iptables -w -t nat -D MINIRUN-POSTROUTING -s 172.16.0.0/12 ! -d 224.0.0.0/4 ! -o br0 -j MASQUERADE
  iptables -w -t filter -D MINIRUN-FORWARD -i br0 -j ACCEPT
  iptables -w -t filter -D MINIRUN-ISOLATE ! -i br0 -o br0 -j DROP
  iptables -w -t filter -D MINIRUN-FORWARD -o br0 -m conntrack --ctstate DNAT -j ACCEPT
  iptables -w -t filter -D MINIRUN-FORWARD -o br0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
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
  ip link del br0
  return 0
}

case "${1:-}" in
  add) add ;;
  delete) delete 2>/dev/null ;;
  *) echo "usage: sh $0 add|delete" >&2; exit 2 ;;
esac
