#!/bin/bash
# bench-beat: 10,000 threads in ten programs that beat each second through the page, and one beat by itself.
# N= seconds of each of the five samples (10); GEMEL_SHORT=1: three of five seconds.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${N:-10} samples=5
if [ -n "${GEMEL_SHORT:-}" ]; then
	seconds=${N:-5} samples=3
fi
. bench/supervise/ready.sh
cc -O2 -pthread -Iinclude -o "$BENCH_BIN/threads" bench/beat/threads.c
cc -O2 -Iinclude -o "$BENCH_BIN/beatcost" bench/beat/cost.c
CGO_ENABLED=0 go build -o "$BENCH_BIN/beatcost-go" ./bench/beat/cost
exec python3 bench/beat/beat.py -n "$seconds" -s "$samples" -o ".bench/raw/beat-$(date -u +%Y%m%dT%H%M%SZ).json"
