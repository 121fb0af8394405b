#!/bin/sh
# S8: a server in a container answers clients elsewhere.
. "$(dirname "$0")/demo.sh"
uses lan foo bar
minirun network create --subnet 10.13.37.0/24 --opt bridge=bridge0 lan >/dev/null

title "foo says OK to everybody who connects to port 8080"
show minirun run -d --name foo --network lan --ip 10.13.37.2 busybox nc -ll -p 8080 -e echo OK
until_true 'ip netns exec foo ss -l -t -n | grep :8080'

title "A client on the host, and one in another container"
show busybox nc 10.13.37.2 8080
show minirun run --rm --name bar --network lan busybox nc 10.13.37.2 8080
