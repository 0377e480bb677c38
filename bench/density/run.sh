#!/bin/bash
# bench-density: 1,000 and 5,000 idle programs, one contender at a time: start all, have all back after killing all,
# memory, idle CPU. N= rounds at 1,000 (3; who needs longer than six seconds takes part in one); GEMEL_SHORT=1: one
# round, the best peers, not 5,000. Monit is left out: it starts its programs one after another and takes minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
all=(gemel gemel-beats limit-go limit-c process-compose systemd daemontools runit s6-ready s6 supervisord pm2)
rounds=${N:-3} idle=20
if [ -n "${GEMEL_SHORT:-}" ]; then
	all=(gemel gemel-beats limit-c process-compose systemd daemontools)
	rounds=${N:-1} idle=10
fi
. bench/supervise/ready.sh "${all[@]}"
raw=.bench/raw/density-$(date -u +%Y%m%dT%H%M%SZ)
python3 bench/supervise/density.py -n 0 -i "$idle" -o "$raw-0.json" gemel-empty
python3 bench/supervise/density.py -n 1000 -r "$rounds" -i "$idle" -o "$raw-1000.json" "${peers[@]}"
if [ -z "${GEMEL_SHORT:-}" ]; then
	python3 bench/supervise/density.py -n 5000 -t 240 -i "$idle" -o "$raw-5000.json" gemel gemel-beats limit-c
else
	python3 bench/supervise/density.py -n 3000 -t 240 -i 1 -o "$raw-5000.json" gemel-beats
fi
echo "raw figures: $raw-{0,1000,5000}.json"
exec python3 bench/density/verdict.py "$raw"
