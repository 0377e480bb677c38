#!/bin/bash
# make run-one: the daemon on an example, in a place of its own (.run), and its events in this terminal.
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

number() { # KEY: a number of the node's status; empty if nobody answers
	bin/gemel status --json 2>/dev/null | grep -o "\"$1\":[0-9]*" | head -n 1 | sed 's/.*://' || true
}

# alive reports whether the daemon runs. Whoever kills the shadow gets another one, with another pid.
alive() {
	if kill -0 "$shadow" 2>/dev/null; then return 0; fi
	local i new
	for ((i = 0; i < 30; i++)); do
		new=$(number shadow)
		if [ "${new:-0}" != 0 ] && kill -0 "$new" 2>/dev/null; then
			shadow=$new
			return 0
		fi
		sleep 0.1
	done
	return 1
}

finish() {
	trap - EXIT INT TERM HUP
	if [ -n "$events" ]; then kill "$events" 2>/dev/null || true; fi
	if [ -n "$shadow" ] && alive; then
		echo
		echo "stopping the daemon and its programs"
		kill -TERM "$shadow" 2>/dev/null || true
		while kill -0 "$shadow" 2>/dev/null; do sleep 0.1; done
	fi
	exit "${1:-0}"
}
trap 'finish $?' EXIT
trap 'finish 0' INT TERM HUP

# A session of its own, so that Ctrl-C comes here alone and the order of stopping is kept.
setsid bin/gemel run "$file" >"$log" 2>&1 &
shadow=$!
disown "$shadow" # the shell need not tell when somebody kills it

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
try() { printf '  %-32s # %s\n' "$1" "$2"; }
if [ "$file" = examples/one-machine.yaml ]; then
	try "bin/gemel status" "what runs"
	try "kill -9 $(pid ticker)" "the ticker dies and is back before you look"
	try "bin/gemel why ticker" "what happened, and by which rule"
	try "kill -STOP $(pid scribe)" "the scribe hangs: its check fails three times, then it is restarted"
	try "bin/gemel start crasher" "dies until its restarts are used up: an alarm stands"
	try "bin/gemel alarms" "and the way back: bin/gemel lock crasher; bin/gemel unlock crasher"
	try "bin/gemel logs -f ticker" "what it prints"
	try "kill -9 $(number monitor)" "Gemel's own monitor: no program notices"
	try "kill -9 $shadow" "and its other half, the shadow"
else
	try "bin/gemel status" "what runs; then kill one of the pids"
	try "bin/gemel why NAME" "what happened, and by which rule"
fi
cat <<HINTS

Events as they happen; Ctrl-C stops Gemel and its programs:

HINTS

# The stream ends with the monitor that sends it; whoever kills the monitor wants to see the next one.
since=()
began=$SECONDS
while alive; do
	bin/gemel events -f "${since[@]}" 2>"$root/events.err" &
	events=$!
	while kill -0 "$events" 2>/dev/null; do
		if [ -z "${DEMO_SECONDS:-}" ]; then
			wait "$events" || true
		elif [ $((SECONDS - began)) -ge "$DEMO_SECONDS" ]; then
			finish 0
		else
			sleep 0.2
		fi
	done
	events=
	since=(--since "$(date -u +%Y-%m-%dT%H:%M:%SZ)")
	for ((i = 0; i < 100; i++)); do
		if bin/gemel status >/dev/null 2>&1; then break; fi
		sleep 0.1
	done
done
echo "the daemon is gone; its log:" >&2
cat "$log" >&2
shadow=
finish 1
