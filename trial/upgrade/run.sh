#!/bin/bash
# trial-upgrade: N pairs (50) of upgrade and downgrade between two builds while 50 programs end with known codes. In the
# middle of three of four of them the monitor, the shadow or both are killed; then both halves must run one build, and
# what the tool said must be true. At last the same comparison as in trial-exits. SEED= repeats a schedule: an odd one plays
# a service manager that is announced; 2 or 3 modulo 4, one that starts only the first build. GEMEL_SHORT=1: N=10.
set -euo pipefail
cd "$(dirname "$0")/../.."
n=${N:-50}
if [ -n "${GEMEL_SHORT:-}" ]; then n=${N:-10}; fi
bin=.bench/trial
mkdir -p "$bin"
export CGO_ENABLED=0
bash scripts/build.sh "$bin" 0.1.0
bash scripts/build.sh "$bin/next" 0.1.1
mv -f "$bin/next/gemel" "$bin/gemel-next"
go build -trimpath -o "$bin/exits" ./trial/exits
exec "$bin/exits" -gemel "$bin/gemel" -upgrade "$bin/gemel-next" -n "$n" ${SEED:+-seed "$SEED"} ${DIR:+-dir "$DIR"}
