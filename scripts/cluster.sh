#!/bin/bash
# make run-cluster: two nodes and a witness on this one machine, a service that only one of them runs, and a client that asks it
# each millisecond. As root each node has a network namespace and two networks of its own, and the service an address that moves
# with it; else all are on loopback addresses. DEMO_SECONDS=20 ends it by itself.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD/.run-cluster
if [ ${#root} -gt 60 ]; then # a socket's path has at most 107 bytes
	root=$(mktemp -d /tmp/gemel-cluster.XXXXXX)
fi
nodes=(alpha beta witness)
own=$$ spaces=() pids=()
[ "$(id -u)" = 0 ] && command -v ip >/dev/null && ip netns add "gm$own-switch" 2>/dev/null && spaces=("gm$own-switch")

at() { # NODE COMMAND...: runs it where the node is
	local n=$1
	shift
	if [ ${#spaces[@]} -gt 0 ]; then ip netns exec "gm$own-$n" "$@"; else "$@"; fi
}

gemel() { # NODE ARGS...
	local n=$1
	shift
	at "$n" "$PWD/bin/gemel" --data-dir "$root/$n/data" --run-dir "$root/$n/run" "$@"
}

finish() {
	trap - EXIT INT TERM HUP
	echo
	echo "stopping both nodes, the witness and the client"
	local n p
	for p in "${pids[@]}"; do kill -TERM "$p" 2>/dev/null || true; done
	for n in "${nodes[@]}"; do gemel "$n" shutdown >/dev/null 2>&1 || true; done
	for n in "${nodes[@]}"; do
		for ((i = 0; i < 100; i++)); do
			[ -S "$root/$n/run/api.sock" ] && gemel "$n" version >/dev/null 2>&1 || break
			sleep 0.1
		done
	done
	for p in "${pids[@]}"; do
		for ((i = 0; i < 100; i++)); do
			kill -0 "$p" 2>/dev/null || break
			sleep 0.1
		done
	done
	for n in "${spaces[@]}"; do ip netns del "$n" 2>/dev/null || true; done
	rm -rf "$root"
	exit "${1:-0}"
}
trap 'finish $?' EXIT
trap 'finish 0' INT TERM HUP

rm -rf "$root"
for n in "${nodes[@]}"; do
	mkdir -p "$root/$n/data" "$root/$n/run"
	chmod 700 "$root/$n/data" "$root/$n/run"
done

# The networks: blue and red between the nodes, and one on which the service is.
declare -A blue red
i=1
for n in "${nodes[@]}"; do
	if [ ${#spaces[@]} -gt 0 ]; then
		blue[$n]=10.91.1.$i red[$n]=10.91.2.$i
	else
		blue[$n]=127.91.1.$i red[$n]=127.91.2.$i
	fi
	i=$((i + 1))
done
service=127.0.0.1:18080 address=''
if [ ${#spaces[@]} -gt 0 ]; then
	service=10.91.3.100:8080 address='addresses: [10.91.3.100/24]'
	for net in blue red svc; do
		ip -n "gm$own-switch" link add "$net" type bridge
		ip -n "gm$own-switch" link set "$net" up
	done
	i=1
	for n in "${nodes[@]}" client; do
		ip netns add "gm$own-$n"
		spaces+=("gm$own-$n")
		ip -n "gm$own-$n" link set lo up
		k=1
		for net in blue red svc; do
			ip link add "g$own$i$k" netns "gm$own-$n" type veth peer name "$n-$k" netns "gm$own-switch"
			ip -n "gm$own-$n" link set "g$own$i$k" name "$net"
			ip -n "gm$own-switch" link set "$n-$k" master "$net" up
			ip -n "gm$own-$n" link set "$net" up
			ip -n "gm$own-$n" addr add "10.91.$k.$i/24" dev "$net"
			k=$((k + 1))
		done
		i=$((i + 1))
	done
fi

cat >"$root/cluster.yaml" <<MANIFEST
processes:
  hello:
    command: [$PWD/bin/hello, serve, "$service"]
    inherit-environment: true
groups:
  web:
    nodes: [alpha, beta]
    run: [hello]
    $address
MANIFEST

start() { # NODE: runs its daemon
	local file=$root/cluster.yaml
	[ "$1" = witness ] && file=$root/witness/data/gemel.yaml
	# A host name of its own only for what the service answers.
	HELLO_NODE=$1 setsid $(at_words "$1") "$PWD/bin/gemel" --data-dir "$root/$1/data" --run-dir "$root/$1/run" run "$file" >"$root/$1.log" 2>&1 &
	pids+=($!)
	disown "$!"
	local i
	for ((i = 0; i < 100; i++)); do
		if gemel "$1" status >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	echo "the daemon of $1 does not answer; its log:" >&2
	cat "$root/$1.log" >&2
	exit 1
}

at_words() { if [ ${#spaces[@]} -gt 0 ]; then echo "ip netns exec gm$own-$1"; fi; }

token() { # WORDS...: a token, as soon as alpha gives one
	local i t
	for ((i = 0; i < 100; i++)); do
		t=$(gemel alpha token "$@" 2>/dev/null | grep -o 'gj1[a-z0-9]*' | head -n 1) || true
		if [ -n "$t" ]; then
			echo "$t"
			return
		fi
		sleep 0.1
	done
	echo "alpha gives no token" >&2
	exit 1
}

echo "gemel init on alpha"
gemel alpha init --name alpha --cluster-name demo --address "blue=${blue[alpha]}" --address "red=${red[alpha]}" >/dev/null 2>"$root/init.err" || { cat "$root/init.err" >&2; exit 1; }
start alpha
door=${blue[alpha]}:5314,${red[alpha]}:5314
echo "gemel join on beta"
gemel beta join "$door" "$(token)" --name beta --address "blue=${blue[beta]}" --address "red=${red[beta]}" >/dev/null 2>"$root/join.err" || { cat "$root/join.err" >&2; exit 1; }
start beta
echo "gemel join --witness on witness"
gemel witness join "$door" "$(token --witness)" --witness --name witness --address "blue=${blue[witness]}" --address "red=${red[witness]}" >/dev/null 2>"$root/join.err" || { cat "$root/join.err" >&2; exit 1; }
start witness

echo "waiting until all three vote and the service answers"
calm=0
for ((i = 0; i < 600 && calm < 5; i++)); do # a monitor that is being replaced says less
	all=$(gemel alpha status 2>/dev/null || true)
	case $all in
	*missing* | *"no vote"* | '') calm=0 ;;
	*" votes "*" active "*) calm=$((calm + 1)) ;;
	esac
	sleep 0.1
done
gemel alpha status
inside=''
if [ ${#spaces[@]} -gt 0 ]; then inside="ip netns exec gm$own-\$n "; fi
line="cd $PWD; g() { n=\$1; shift; ${inside}bin/gemel --data-dir $root/\$n/data --run-dir $root/\$n/run \"\$@\"; }"
cat <<HINTS

In a second terminal:

  $line
HINTS
try() { printf '  %-44s # %s\n' "$1" "$2"; }
try "g beta status" "the nodes, the networks, the group"
try "g alpha move web" "the group goes to the other node"
try "kill -9 \$(g alpha status --json | grep -o '\"name\":\"hello\"[^{}]*\"pid\":[1-9][0-9]*' | sed 's/.*://')" "the program: it is started again where it is"
if [ ${#spaces[@]} -gt 0 ]; then
	try "kill -9 \$(ip netns pids gm$own-alpha)" "all of alpha at once, as if its power was cut"
	try "for k in 1 2 3; do ip -n gm$own-switch link set alpha-\$k down; done" "alpha is cut off: it stops what it has before beta begins"
	try "for k in 1 2 3; do ip -n gm$own-switch link set alpha-\$k up; done" "and comes back"
fi
try "g alpha drain alpha; g alpha resume alpha" "empty a node, and let it take groups again"
try "g beta events -f" "what is decided, and why: g beta why"
cat <<HINTS

What a client sees that asks each millisecond; Ctrl-C ends everything:

HINTS
words=''
if [ ${#spaces[@]} -gt 0 ]; then words="ip netns exec gm$own-client"; fi
$words "$PWD/bin/hello" ask "$service" &
client=$!
pids+=("$client")
disown "$client"
if [ -n "${DEMO_SECONDS:-}" ]; then
	sleep 2
	echo "gemel move web"
	gemel alpha move web
	sleep "$DEMO_SECONDS"
	where=$(gemel beta status --json | grep -o '"name":"web"[^{}]*"node":"[a-z]*"' | sed 's/.*"node":"//; s/"//')
	if [ "$where" != beta ]; then
		echo "the group is on ${where:-no node} and not on beta" >&2
		exit 1
	fi
	exit 0
fi
while kill -0 "$client" 2>/dev/null; do sleep 1; done
