#!/bin/bash
# make run: two nodes and a witness on this one machine, a service that only one of them runs, and a client that asks it each
# millisecond. As root each node has a network namespace and two networks of its own, and the service an address that moves with
# it; else all are on loopback addresses. At a terminal keys break things. DEMO_SECONDS=20 ends it by itself, after one move.
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
	shift # its input is not the keys'
	at "$n" "$PWD/bin/gemel" --data-dir "$root/$n/data" --run-dir "$root/$n/run" "$@" </dev/null
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

# active is the node that has the group, as the witness reads it in the store.
active() { gemel witness status --json 2>/dev/null | grep -o '"name":"web"[^{}]*"node":"[a-z]*"' | sed 's/.*"node":"//; s/"//' || true; }

pid_of() { # NODE PROCESS: its pid, empty if it does not run
	gemel "$1" status --json 2>/dev/null | grep -o "\"name\":\"$2\"[^{}]*\"pid\":[1-9][0-9]*" | sed 's/.*://' || true
}

# all_of tells every process of a node: what is in its namespace, or what its daemon knows and what was started with its directories.
all_of() {
	if [ ${#spaces[@]} -gt 0 ]; then
		ip netns pids "gm$own-$1"
		return
	fi
	pid_of "$1" hello
	local p
	for p in /proc/[0-9]*; do
		if tr '\0' ' ' <"$p/cmdline" 2>/dev/null | grep -q -- "--data-dir $root/$1/data"; then echo "${p#/proc/}"; fi
	done
}

link() { # NODE up|down: all its networks
	local k
	for k in 1 2 3; do ip -n "gm$own-switch" link set "$1-$k" "$2"; done
}

cut='' dead=''
press() { # KEY: what it does, and what is to be seen of it
	local n p
	n=$(active)
	case $1 in
	m)
		echo "gemel move web"
		for p in alpha beta; do [ "$p" = "$dead" ] || [ "$p" = "$cut" ] || break; done
		gemel "$p" move web || true
		;;
	p)
		echo "kill -9 of the program on ${n:-no node}: it is started again where it is"
		p=$(pid_of "${n:-alpha}" hello)
		[ -z "$p" ] || kill -9 "$p"
		;;
	d)
		echo "kill -9 of the daemon that decides on ${n:-no node}, its monitor: the program runs on"
		p=$(gemel "${n:-alpha}" status --json | grep -o '"monitor":[1-9][0-9]*' | sed 's/.*://') || true
		[ -z "$p" ] || kill -9 "$p"
		;;
	k)
		if [ -n "$dead$cut" ] || [ -z "$n" ]; then
			echo "one node is away already; b brings it back"
			return
		fi
		echo "all of $n at once, as if its power was cut; b brings it back"
		dead=$n
		# Its links first, so that nothing tells the others.
		if [ ${#spaces[@]} -gt 0 ]; then link "$n" down; fi
		# shellcheck disable=SC2046
		kill -9 $(all_of "$n") 2>/dev/null || true
		;;
	c)
		if [ ${#spaces[@]} = 0 ]; then
			echo "to cut a node off needs root: make run as root"
		elif [ -n "$dead$cut" ] || [ -z "$n" ]; then
			echo "one node is away already; b brings it back"
		else
			echo "$n is cut off from all networks: it stops what it has before the other begins; b heals it"
			cut=$n
			link "$n" down
		fi
		;;
	b)
		if [ -n "$cut" ]; then
			echo "$cut reaches the networks again"
			link "$cut" up
			cut=''
		elif [ -n "$dead" ]; then
			echo "$dead boots"
			if [ ${#spaces[@]} -gt 0 ]; then link "$dead" up; fi
			start "$dead"
			dead=''
		else
			echo "both nodes are there"
		fi
		;;
	s)
		for p in alpha beta; do [ "$p" = "$dead" ] || [ "$p" = "$cut" ] || break; done
		gemel "$p" status || true
		;;
	q) finish 0 ;;
	*) keys ;;
	esac
}

keys() {
	cat <<-KEYS

		  m  move the group to the other node          k  kill the node that has it, all at once
		  p  kill the program                          c  cut that node off from all networks
		  d  kill a daemon (the monitor)               b  bring back what k or c took away
		  s  status                                    q  end everything
	KEYS
}

inside=''
if [ ${#spaces[@]} -gt 0 ]; then inside="ip netns exec gm$own-\$n "; fi
cat <<HINTS

In a second terminal, if you like ("g alpha move web", "g beta why web", "g beta plan --if 'node alpha lost'", "g beta events -f"):

  cd $PWD; g() { n=\$1; shift; ${inside}bin/gemel --data-dir $root/\$n/data --run-dir $root/\$n/run "\$@"; }

What a client sees that asks each millisecond:

HINTS
if [ -t 0 ]; then keys; fi
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
while kill -0 "$client" 2>/dev/null; do
	if [ ! -t 0 ]; then
		sleep 1
	elif read -rsn1 -t 1 key; then
		press "$key"
	fi
done
