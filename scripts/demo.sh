#!/bin/bash
# make run: the daemon on an example, in a place of its own (.run), and its events in this terminal.
# DEMO_SECONDS=10 ends it by itself; DEMO_FILE is another manifest.
set -euo pipefail
cd "$(dirname "$0")/.."
file=${DEMO_FILE:-examples/one-machine.yaml}
root=$PWD/.run
if [ ${#root} -gt 80 ]; then # a socket's path has at most 107 bytes
	root=$(mktemp -d /tmp/gemel.XXXXXX)
fi
mkdir -p "$root"
log=$root/gemel.log
export GEMEL_DATA_DIR=$root/data GEMEL_RUN_DIR=$root/run GEMEL_SOCKET=$root/run/api.sock
shadow='' events=''

finish() {
	trap - EXIT INT TERM HUP
	if [ -n "$events" ]; then kill "$events" 2>/dev/null || true; fi
	if [ -n "$shadow" ] && kill -0 "$shadow" 2>/dev/null; then
		echo
		echo "stopping the daemon and its programs"
		kill -TERM "$shadow" 2>/dev/null || true
		wait "$shadow" 2>/dev/null || true
	fi
	exit "${1:-0}"
}
trap 'finish $?' EXIT
trap 'finish 0' INT TERM HUP

# A session of its own, so that Ctrl-C comes here alone and the order of stopping is kept.
setsid bin/gemel run "$file" >"$log" 2>&1 &
shadow=$!

# The daemon of a run before this one would answer on the same socket: ask for the pid of ours.
for ((i = 0; ; i++)); do
	if ! kill -0 "$shadow" 2>/dev/null; then
		echo "the daemon ended at once:" >&2
		cat "$log" >&2
		shadow=
		finish 1
	fi
	status=$(bin/gemel status --json 2>/dev/null || true)
	case $status in *"\"shadow\":$shadow"[,}]*) break ;; esac
	if [ "$i" -ge 300 ]; then
		echo "the daemon does not answer after 30 s; its log:" >&2
		cat "$log" >&2
		finish 1
	fi
	sleep 0.1
done

pid() { # NAME: its pid, once it runs
	local i p
	for ((i = 0; i < 50; i++)); do
		p=$(bin/gemel status --json | grep -o "\"name\":\"$1\"[^{}]*\"pid\":[1-9][0-9]*" | sed 's/.*://') || true
		if [ -n "$p" ]; then
			echo "$p"
			return
		fi
		sleep 0.1
	done
	echo "PID"
}

bin/gemel status
cat <<HINTS

Gemel runs $file (shadow $shadow, log $log).
In a second terminal:

  cd $PWD; export GEMEL_SOCKET=$GEMEL_SOCKET
HINTS
if [ "$file" = examples/one-machine.yaml ]; then
	cat <<HINTS
  bin/gemel status                 # what runs
  kill -9 $(pid ticker)                   # the ticker dies and is back before you look
  bin/gemel why ticker             # what happened, and by which rule
  kill -STOP $(pid scribe)                # the scribe hangs: its check fails three times, then it is restarted
  bin/gemel start crasher          # dies again and again until its restarts are used up: an alarm stands
  bin/gemel alarms                 # and what to do: bin/gemel lock crasher; bin/gemel unlock crasher
  bin/gemel logs -f ticker         # what it prints
  kill -9 $(bin/gemel status --json | grep -o '"monitor":[0-9]*' | sed 's/.*://')                   # Gemel's own monitor: no program notices
HINTS
else
	echo "  bin/gemel status; bin/gemel why NAME; bin/gemel events"
fi
cat <<HINTS

Events as they happen; Ctrl-C stops Gemel and its programs:

HINTS

bin/gemel events -f &
events=$!
if [ -n "${DEMO_SECONDS:-}" ]; then
	for ((i = 0; i < DEMO_SECONDS; i++)); do
		sleep 1
		kill -0 "$shadow" 2>/dev/null || finish 1
	done
	finish 0
fi
wait "$events" || true
finish 0
