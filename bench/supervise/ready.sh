#!/bin/bash
# ready.sh: to be sourced by the comparisons of supervisors, in the checkout's root. Installs the peers when it may
# (scripts/setup.sh), builds Gemel and the helper programs into .bench/bin, and leaves in the array "peers" those
# of its arguments that are there; the others are named.
set -euo pipefail

export BENCH_BIN=$PWD/.bench/bin PATH=$PATH:/usr/sbin:/sbin
mkdir -p "$BENCH_BIN" .bench/raw
if [ "$(id -u)" -ne 0 ]; then
	echo "This comparison runs each contender in namespaces of its own, and only root can make those." >&2
	exit 1
fi
bash scripts/setup.sh bench/supervise/packages.txt "the comparisons"
for tool in python3 cc go unshare; do
	command -v $tool >/dev/null || { echo "There is no $tool: nothing can be compared." >&2; exit 1; }
done
sh bench/supervise/build.sh
bash scripts/build.sh "$BENCH_BIN"

process_compose() { # from its module, which "go install" does not take: its main package is not where it says
	local dir
	[ -z "${NO_INSTALL:-}" ] || return 1
	dir=$(cd / && go mod download -json github.com/f1bonacc1/process-compose@v1.64.1 2>/dev/null |
		sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	[ -n "$dir" ] || return 1
	echo "building process-compose 1.64.1"
	(cd "$dir" && CGO_ENABLED=0 go build -mod=mod -modfile="$(copy "$dir")" -ldflags '-s -w' -o "$BENCH_BIN/process-compose" ./src)
}

copy() { # the module's own go.mod, where it may be written
	local to=$BENCH_BIN/../process-compose.mod
	install -m 644 "$1/go.mod" "$to"
	install -m 644 "$1/go.sum" "${to%.mod}.sum"
	echo "$to"
}

there() {
	case $1 in
	limit-*) ;;
	gemel*) ;;
	daemontools*) command -v svscan ;;
	runit*) command -v runsvdir ;;
	s6*) command -v s6-svscan && command -v execlineb ;;
	supervisord) command -v supervisord ;;
	monit) command -v monit ;;
	systemd) test -x /lib/systemd/systemd ;;
	process-compose) test -x "$BENCH_BIN/process-compose" || process_compose ;;
	pm2) test -f "${BENCH_PM2:-/tmp/bench/pm2}/node_modules/pm2/bin/pm2-runtime" ;;
	*) return 1 ;;
	esac >/dev/null 2>&1
}

peers=() absent=()
for name in "$@"; do
	if there "$name"; then peers+=("$name"); else absent+=("$name"); fi
done
if [ ${#absent[@]} -gt 0 ]; then
	echo "left out, because they are not installed here: ${absent[*]}"
fi
