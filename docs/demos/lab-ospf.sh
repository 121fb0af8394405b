#!/bin/sh
# Three routers that run BIRD, the routing daemon of many internet exchanges (Debian: apt-get install bird2). They tell
# each other by OSPF what they reach. A cable is cut, and they find another way.
. "$(dirname "$0")/demo.sh"
uses pc1 r1 r2 r3 pc3
# The picture is a wide one.
export COLUMNS=150
command -v bird >/dev/null || { echo 'bird is missing: apt-get install bird2' >&2; exit 1; }

title "Three routers. Their programs are this machine's: its /usr, read-only"
for n in 1 2 3; do
  cat >"r$n.conf" <<END
router id 10.255.0.$n;
protocol device {}
protocol kernel { ipv4 { export all; }; }
protocol ospf v2 { ipv4 { export none; }; area 0 {
  interface "eth*" { type ptp; hello 1; dead 4; };
  interface "lan" { stub; };
}; }
END
  show minirun run -d --name "r$n" --network none --router --cap-add NET_ADMIN \
    -v /usr:/usr:ro -v "./r$n.conf:/etc/bird.conf:ro" nettools bird -f -c /etc/bird.conf -s /tmp/bird.ctl
done
show cat r1.conf

title "Each with each: a triangle. And a computer at two of its corners"
minirun run -d --name pc1 --network none busybox sleep infinity >/dev/null
minirun run -d --name pc3 --network none busybox sleep infinity >/dev/null
show minirun link add r1:eth1 r2:eth1 --addr 10.1.12.1/30 --peer-addr 10.1.12.2/30
show minirun link add r2:eth2 r3:eth1 --addr 10.1.23.1/30 --peer-addr 10.1.23.2/30
show minirun link add r1:eth2 r3:eth2 --addr 10.1.13.1/30 --peer-addr 10.1.13.2/30
show minirun link add r1:lan pc1:eth0 --addr 10.0.1.1/24 --peer-addr 10.0.1.10/24
show minirun link add r3:lan pc3:eth0 --addr 10.0.3.1/24 --peer-addr 10.0.3.10/24
show minirun route add pc1 default via 10.0.1.1
show minirun route add pc3 default via 10.0.3.1
show minirun network graph

title "Some seconds later r1 has learnt where pc3 is"
until_true 'ip -n r1 route get 10.0.3.10 | grep "dev eth2" && ip -n r3 route get 10.0.1.10 | grep "dev eth2"'
show ip -n r1 route get 10.0.3.10
show minirun trace pc1 pc3

title "The cable between r1 and r3 is cut. They agree on the way around"
show minirun link down r1-r3
until_true 'ip -n r1 route get 10.0.3.10 | grep "dev eth1" && ip -n r3 route get 10.0.1.10 | grep "dev eth1" && ip -n r2 route get 10.0.3.10 && ip -n r2 route get 10.0.1.10'
show ip -n r1 route get 10.0.3.10
show minirun trace pc1 pc3
