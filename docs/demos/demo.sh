# shellcheck shell=sh
# What the demos have in common; each of them begins with: . "$(dirname "$0")/demo.sh"
set -eu

# MINIRUN=bin/minirun sh docs/demos/S01-….sh takes that one, not the one in PATH.
case ${MINIRUN:-} in */*) MINIRUN=$(cd "$(dirname "$MINIRUN")" && pwd)/${MINIRUN##*/} ;; esac
minirun() { command "${MINIRUN:-minirun}" "$@"; }

# title TEXT: what comes next.
title() { printf '\n# %s\n' "$1"; }

# typed COMMAND…: prints the command as it would be typed.
typed() {
  line=
  for word; do
    case $word in
    '&' | '>'*) line="$line $word" ;;
    *\'*) line="$line \"$word\"" ;;
    *[!a-zA-Z0-9_./:,=@%+-]* | '') line="$line '$word'" ;;
    *) line="$line $word" ;;
    esac
  done
  printf '$%s\n' "$line"
}

# show COMMAND…: prints the command, and runs it.
show() {
  typed "$@"
  "$@" 2>&1
}

# meanwhile minirun …: a second terminal, in which a command goes on until second_terminal waits for its end. Returns when
# the command listens.
meanwhile() {
  typed "$@" '&'
  shift
  rm -f second-terminal
  # Not the function minirun: a signal to $! must reach the command. What runs in the background has no standard input but
  # when it is told.
  { "${MINIRUN:-minirun}" "$@" <&3 >second-terminal 2>&1 & } 3<&0
  second=$!
  until_true 'grep -q -i listening second-terminal'
}

# second_terminal: what it has printed in the end.
second_terminal() {
  wait "$second" || echo "(exit code $?)"
  second=
  cat second-terminal
}

# until_true SCRIPT: waits until it succeeds, 20 seconds at most.
until_true() {
  tries=0
  until eval "$1" >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 400 ] || { echo "never came true: $1" >&2; return 1; }
    sleep 0.05
  done
}

# uses NAME…: the containers, networks and links of this demo. When it ends, also by Ctrl-C or an error, they are removed;
# should there be one of that name before, it is somebody else's, and the demo does not begin.
uses() {
  for name; do
    ! { minirun inspect "$name" || minirun link ls -q | grep -qx -e "$name"; } >/dev/null 2>&1 ||
      { echo "there is a \"$name\" already, which this demo would remove" >&2; exit 1; }
  done
  used=$* second=
  temporary=$(mktemp -d)
  cd "$temporary"
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

clean_up() {
  trap '' INT TERM HUP
  # shellcheck disable=SC2086 # names without blanks
  {
    [ -z "$second" ] || kill "$second"
    minirun rm -f $used
    minirun network rm -f $used
    minirun link rm $used
  } >/dev/null 2>&1 || true
  cd /
  rm -rf "$temporary"
}

# The address that the host has on the way to everybody else.
host_address() { ip -4 route get 192.0.2.1 | sed -n 's/.* src \([0-9.]*\).*/\1/p'; }
