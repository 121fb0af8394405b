#!/bin/sh
# S16: into the namespaces of a container that runs: into all of them, or into its network only.
. "$(dirname "$0")/demo.sh"
uses net0
show minirun run -d --name net0 --network none nettools tail -f /dev/null

title "Into all of them: its processes, of which its command is number 1, its hostname, its network"
show minirun exec net0 ps
show minirun exec net0 hostname
show minirun exec net0 ip -brief addr

title "The same by hand, with the process id that it has on the host"
pid=$(minirun inspect -f '{{.State.Pid}}' net0)
show nsenter --target "$pid" --all ps

title "Into its network only: the host's programs, the host's processes"
show minirun netns net0
show nsenter --net="$(minirun netns net0)" ip -brief addr
show ip netns exec net0 ip -brief addr
show ip netns exec net0 cat /proc/1/comm

title "User 0 in it is user 0 of the host, and so on for all of them: inside, outside, how many"
show minirun exec net0 cat /proc/self/uid_map
