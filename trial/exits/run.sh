#!/bin/bash
# trial-exits: kill -9 of the monitor, of the shadow, and of both at random instants, N times (200), while 50 programs
# end with known codes; then what was recorded is compared with what the programs did. SEED= repeats a schedule: an
# odd one plays a service manager that is announced, an even one a manager that nobody knows of. GEMEL_SHORT=1: N=10.
set -euo pipefail
cd "$(dirname "$0")/../.."
n=${N:-200}
if [ -n "${GEMEL_SHORT:-}" ]; then n=${N:-10}; fi
bin=.bench/trial
mkdir -p "$bin"
export CGO_ENABLED=0
bash scripts/build.sh "$bin"
go build -trimpath -o "$bin/exits" ./trial/exits
exec "$bin/exits" -gemel "$bin/gemel" -n "$n" ${SEED:+-seed "$SEED"} ${DIR:+-dir "$DIR"}
