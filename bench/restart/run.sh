#!/bin/bash
# bench-restart: from kill -9 of a program to the first instruction of its successor, Gemel beside its peers and
# beside the limits (a bare loop of wait and spawn in C and in Go). N= rounds of four kills (30, at least 8);
# GEMEL_SHORT=1: eight rounds without the peers that wait a second each time.
set -euo pipefail
cd "$(dirname "$0")/../.."
all=(gemel limit-go limit-c limit-c-spare daemontools daemontools-elf runit runit-elf s6 s6-ready systemd pm2
	process-compose supervisord monit)
rounds=${N:-30}
if [ -n "${GEMEL_SHORT:-}" ]; then
	all=(gemel limit-go limit-c daemontools daemontools-elf runit s6-ready systemd)
	rounds=${N:-8}
fi
. bench/supervise/ready.sh "${all[@]}"
raw=.bench/raw/restart-$(date -u +%Y%m%dT%H%M%SZ).json
python3 bench/supervise/restart.py -n "$rounds" -c -u 1.3 -o "$raw" "${peers[@]}"
echo "raw figures: $raw"
exec python3 bench/restart/verdict.py "$raw"
