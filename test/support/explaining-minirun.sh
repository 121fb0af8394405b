#!/bin/sh
# Stands in for minirun while a demo runs: keeps what --explain says about each command that changes the network, then
# runs it. REAL_MINIRUN is the program, EXPLAIN_DIR a directory for the scripts: one file each, in order, the first line
# being the command.
case "$1 ${2:-}" in
*' --explain') ;;
'run '*) words=1 ;;
'network create' | 'network connect' | 'link add' | 'route add') words=2 ;;
esac
case " $* " in *' --explain '*) words= ;; esac
if [ -n "${words:-}" ]; then
  number=$(ls "$EXPLAIN_DIR" | wc -l)
  file=$EXPLAIN_DIR/$((100 + number))
  echo "minirun $*" >"$file"
  if [ "$words" = 1 ]; then
    (shift && exec "$REAL_MINIRUN" run --explain "$@") >>"$file" 2>&1
  else
    (first=$1 second=$2 && shift 2 && exec "$REAL_MINIRUN" "$first" "$second" --explain "$@") >>"$file" 2>&1
  fi || rm "$file"
fi
exec "$REAL_MINIRUN" "$@"
