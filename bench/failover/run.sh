#!/bin/bash
# bench-failover: Gemel (profiles normal and fast) beside keepalived and Pacemaker on Corosync, each with its own times and with
# quick ones: the active of two nodes is killed, cut off, frozen, and a client that asks each millisecond tells what
# it saw; then what Gemel's own death costs, a planned move, what must move nothing, and an idle node. N= trials of each fault (15), VISITS= turns of
# each contender (3), FAULTS= and ONLY= take a part (names with commas between; pacemaker:5 has five trials), SEED= repeats an order, DIR= puts data there
# instead of into memory, BUSY= seconds of busy processors (60). GEMEL_SHORT=1: two trials of each, one turn, without Pacemaker's own times.
set -euo pipefail
cd "$(dirname "$0")/../.."
export BENCH_BIN=$PWD/.bench/bin PATH=$PATH:/usr/sbin:/sbin
if [ "$(id -u)" -ne 0 ]; then
	echo "This comparison makes network namespaces and ends all that runs in them, which only root can." >&2
	exit 1
fi
bash scripts/setup.sh bench/failover/packages.txt "the comparison of failovers"
for tool in python3 cc go ip nft unshare nsenter; do
	command -v $tool >/dev/null || { echo "There is no $tool: nothing can be compared." >&2; exit 1; }
done
mkdir -p "$BENCH_BIN" .bench/raw
for f in echo probe; do cc -O2 -static -o "$BENCH_BIN/fo-$f" bench/failover/$f.c; done
bash scripts/build.sh "$BENCH_BIN" # as it is installed

all=(gemel-normal gemel-fast keepalived keepalived-0.1 pacemaker pacemaker-300)
n=${N:-15} visits=${VISITS:-3} idle=60 quiet=10
if [ -n "${GEMEL_SHORT:-}" ]; then
	all=(gemel-normal gemel-fast keepalived keepalived-0.1 pacemaker-300)
	n=${N:-2} visits=1 idle=10 quiet=0
	export BUSY=${BUSY:-10}
fi
[ -z "${ONLY:-}" ] || IFS=, read -ra all <<<"$ONLY"
there=() absent=()
for name in "${all[@]}"; do # a number of trials may follow
	case $name in
	keepalived*) command -v keepalived ;;
	pacemaker*) command -v pacemakerd && command -v corosync && command -v crm_mon && test -x /usr/lib/ocf/resource.d/heartbeat/IPaddr2 ;;
	esac >/dev/null 2>&1 && there+=("$name") || absent+=("$name")
done
if [ ${#absent[@]} -gt 0 ]; then
	echo "left out, because they are not installed here: ${absent[*]}"
fi
raw=.bench/raw/failover-$(date -u +%Y%m%dT%H%M%SZ)
files=("$raw.json")
python3 bench/failover/failover.py -n "$n" -v "$visits" -q "$quiet" ${FAULTS:+-f "$FAULTS"} ${SEED:+-s "$SEED"} -o "$raw.json" "${there[@]}"
if [ "$idle" != 0 ] && [ -z "${ONLY:-}${FAULTS:-}" ]; then
	python3 bench/failover/idle.py -t "$idle" -o "$raw-idle.json"
	files+=("$raw-idle.json")
fi
echo "raw figures: ${files[*]}"
exec python3 bench/failover/verdict.py "${files[@]}"
