#!/bin/sh
# The keeper of a fake world (world.ts): two machines, joined by a veth, that live as long as its descriptor 3.
#
#   world.sh keep DIR            prints `HOST_PID INTERNET_PID` when the world is ready; cleans everything up, DIR too,
#                                when descriptor 3 ends (also because the test process was killed) or the host dies
#                                (WORLD_CGROUPS=shared: the cgroup file systems show what the real ones show)
#   world.sh machine NAME DIR    the first process of one machine, for `keep` alone
#
# A machine has a network, a mount and a pid namespace of its own: killing its first process ends all in it.
set -eu

mode=$1

# Joins the machines as a provider would: documentation addresses, and no route from the internet to any other network.
wire() {
  nsenter --net="/proc/$1/ns/net" ip -batch - <<END
link add eth0 type veth peer name eth0 netns $2
addr add 203.0.113.2/24 dev eth0
link set eth0 up
END
  nsenter --net="/proc/$2/ns/net" ip -batch - <<END
addr add 203.0.113.1/24 dev eth0
link set eth0 up
END
  nsenter --net="/proc/$1/ns/net" ip route add default via 203.0.113.1
}

# Directory of this world in every mounted cgroup hierarchy, one a line: `mount point directory`.
cgroups() {
  while read -r _ _ _ _ point rest; do
    case " ${rest##* - }" in
      ' cgroup '* | ' cgroup2 '*) echo "$point $point/${dir##*/}" ;;
    esac
  done < /proc/self/mountinfo
}

make_cgroups() {
  cgroups | while read -r point group; do
    # Version 2: what the world may control its root must hand on. On a machine with systemd it already does.
    if [ -e "$point/cgroup.subtree_control" ]; then
      for controller in cpu memory pids io; do
        echo "+$controller" 2> /dev/null > "$point/cgroup.subtree_control" || true
      done
    fi
    mkdir "$group" 2> /dev/null || continue
    # Version 1: a new cpuset is empty, and no process could join it.
    for file in cpuset.cpus cpuset.mems; do
      [ ! -e "$point/$file" ] || cat "$point/$file" > "$group/$file"
    done
  done
}

# What a test has frozen cannot die. Version 1 and 2.
thaw_cgroups() {
  cgroups | while read -r _ group; do
    [ -d "$group" ] || continue
    find "$group" -depth -name freezer.state | while read -r file; do echo THAWED > "$file" || true; done
    find "$group" -mindepth 2 -depth -name cgroup.freeze | while read -r file; do echo 0 > "$file" || true; done
  done
}

remove_cgroups() {
  cgroups | while read -r _ group; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} \; 2> /dev/null || true
  done
}

# Starts a machine and waits until it is set up; its pid as seen here is in $answer.
start() {
  # Should this keeper be killed, the machine dies with it: unshare by a parent-death signal, its child by --kill-child.
  setpriv --pdeathsig KILL \
    unshare --net --mount --pid --fork --kill-child sh "$0" machine "$1" "$dir" < /dev/null > /dev/null 3<&- &
  starting=$!
  read -r answer <&4
  [ "$answer" != failed ] || exit 1
  first_processes="$first_processes $answer"
  children="$children $starting"
  starting=
}

clean() {
  trap - EXIT
  trap '' INT TERM HUP
  exec 2> /dev/null
  # Its first process is killed, not unshare: that one ends when all processes of the machine have.
  # shellcheck disable=SC2086 # lists of pids
  kill -KILL $first_processes $starting $watcher || true
  thaw_cgroups
  for child in $children; do wait "$child" || true; done
  remove_cgroups
  rm -rf "$dir"
}

keep() {
  dir=$1
  mkfifo "$dir/ready"
  exec 4<> "$dir/ready"
  first_processes='' children='' starting='' watcher=''
  trap clean EXIT
  trap 'exit 1' INT TERM HUP
  make_cgroups
  mkdir -p /run/netns /run/minirun
  start internet
  internet=$answer
  start host
  host=$answer
  last=${children##* }
  wire "$host" "$internet"
  # The test process holds the other end of fd 3, and never writes.
  { cat <&3 > /dev/null; kill -KILL "$host" "$internet"; thaw_cgroups; } > /dev/null 2>&1 &
  watcher=$!
  # Standard output stays open: its end tells the test process that all is cleaned up.
  echo "$host $internet"
  exec 2> /dev/null
  wait "$last" || true
}

machine() {
  name=$1
  dir=$2
  trap 'echo failed > "$dir/ready"' EXIT
  # Through the /proc of the machine outside: the pid as seen there.
  read -r pid _ < /proc/self/stat
  make=$(cgroups)
  mount -t proc proc /proc
  mount -t tmpfs -o mode=755 netns /run/netns
  mount -t tmpfs -o mode=755 names /run/minirun
  # A new sysfs shows the links of this network namespace. It covers the cgroup file systems, so they move along: each
  # as the world's own directory, so that worlds that run at the same time do not see each other's cgroups.
  mkdir "$dir/$name.sys"
  mount -t sysfs sysfs "$dir/$name.sys"
  if [ -d /sys/fs/cgroup ]; then
    mount --rbind /sys/fs/cgroup "$dir/$name.sys/fs/cgroup"
  fi
  mount --move "$dir/$name.sys" /sys
  [ "${WORLD_CGROUPS:-own}" = own ] || make=
  echo "$make" | while read -r point group; do
    [ ! -d "$group" ] || mount --bind "$group" "$point"
  done
  if [ -e /etc/resolv.conf ]; then
    echo 'nameserver 203.0.113.1' > "$dir/resolv.conf"
    mount --bind "$dir/resolv.conf" /etc/resolv.conf
  fi
  # A new namespace may inherit these from the machine, but a test must find the kernel's defaults.
  echo 0 > /proc/sys/net/ipv4/ip_forward
  ip link set lo up
  echo "$pid" > "$dir/ready"
  # Pid 1 adopts orphans. With SIGCHLD ignored the kernel reaps them.
  exec env --ignore-signal=CHLD sleep infinity 2> /dev/null
}

shift
"$mode" "$@"
