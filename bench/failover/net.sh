#!/bin/bash
# Machines as network namespaces, joined by three switches in a namespace of their own, so that nothing touches the
# machine's network.
# usage: net.sh up PREFIX NODE... | net.sh plug PREFIX NODE | net.sh off PREFIX NODE | net.sh on PREFIX NODE
#      | net.sh pull PREFIX NODE | net.sh push PREFIX NODE | net.sh lose PREFIX NODE PERCENT | net.sh gain PREFIX | net.sh down PREFIX
# Node k has 10.77.1.k on blue, 10.77.2.k on red (between nodes) and 10.77.3.k on svc, where the service address is and
# the client "cl" asks from .254. plug gives a node its own addresses and takes away all others, as a boot does.
# off: the switches drop everything from and to the node, which sees nothing of that; pull: its cables are out, and it sees
# that. on and push end it. lose: so much of what comes from it and goes to it is lost on both networks between nodes, or
# all of it on one, which is "blue" for PERCENT. gain ends it.
set -eu
verb=$1 p=$2
shift 2
nets=(blue red svc)
ports() { local n; for n in "${nets[@]}"; do printf '"%s.%s", ' "$1" "$n"; done; }
number() { if [ "$1" = cl ]; then echo 254; else echo $(($(printf %d "'$1") - 96)); fi; }
plug() { # NODE NETWORK...
	local n=$1 net i=$(number "$1")
	shift
	{
		echo link set lo up
		for net in "$@"; do
			case $net in blue) k=1 ;; red) k=2 ;; *) k=3 ;; esac
			printf 'addr flush dev %s\nlink set %s up\naddr add 10.77.%d.%d/24 dev %s\n' $net $net $k $i $net
		done
	} | ip -n "$p-$n" -batch -
}
case $verb in
up)
	ip netns add "$p-sw"
	for n in "$@" cl; do ip netns add "$p-$n"; done
	{
		echo link set lo up
		for net in "${nets[@]}"; do
			printf 'link add %s type bridge mcast_snooping 0 forward_delay 0\nlink set %s up\n' $net $net
			for n in "$@" cl; do
				[ $n = cl ] && [ $net != svc ] && continue
				printf 'link add %s.%s type veth peer name %s netns %s\nlink set %s.%s master %s up\n' $n $net $net $p-$n $n $net $net
			done
		done
	} | ip -n "$p-sw" -batch -
	for n in "$@"; do plug $n "${nets[@]}"; done
	plug cl svc
	ip netns exec "$p-sw" nft -f - <<-END
		table bridge fo {
			set off { type ifname; }
			chain forward { type filter hook forward priority 0; policy accept; iifname @off drop; oifname @off drop; jump loss; }
			chain loss { }
		}
	END
	;;
plug) plug $1 "${nets[@]}" ;;
off | on)
	w=add
	[ $verb = on ] && w=delete
	exec ip netns exec "$p-sw" nft "$w element bridge fo off { $(ports $1) }"
	;;
lose)
	at="\"$1.blue\", \"$1.red\"" some="numgen random mod 100 < $2"
	[ "$2" != blue ] || at="\"$1.blue\"" some=
	for dir in iifname oifname; do
		ip netns exec "$p-sw" nft "add rule bridge fo loss $dir { $at } $some drop"
	done
	;;
gain) exec ip netns exec "$p-sw" nft flush chain bridge fo loss ;;
pull | push)
	w=down
	[ $verb = push ] && w=up
	for net in "${nets[@]}"; do echo link set $1.$net $w; done | ip -n "$p-sw" -batch -
	;;
down)
	for n in $(ip netns list | awk '{print $1}' | grep "^$p-" || true); do ip netns del "$n"; done
	;;
*) echo "net.sh: $verb?" >&2; exit 2 ;;
esac
