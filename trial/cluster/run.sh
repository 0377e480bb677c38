#!/bin/bash
# trial-cluster: N faults (100), one after the other and in pairs, against a cluster of two nodes and a witness, or of three
# nodes, in network namespaces; an oracle outside of the faults measures double activity in milliseconds, and after each
# fault the group must be active on exactly one node. Manifests are written and read through all nodes meanwhile, and no
# acknowledged one may be lost, no refused one appear (docs/decisions/0251). SEED= repeats a schedule; it also says which cluster. ONLY=NAME,NAME
# takes only these faults. DIR= puts the nodes' data there, as on a slow disk, and leaves the full ones out. GEMEL_SHORT=1: N=10. It needs root.
set -euo pipefail
cd "$(dirname "$0")/../.."
n=${N:-100}
if [ -n "${GEMEL_SHORT:-}" ]; then n=${N:-10}; fi
bin=.bench/trial
mkdir -p "$bin"
export CGO_ENABLED=0
bash scripts/build.sh "$bin" 0.1.0
bash scripts/build.sh "$bin/next" 0.1.1
mv -f "$bin/next/gemel" "$bin/gemel-next"
go build -trimpath -o "$bin/cluster" ./trial/cluster
exec "$bin/cluster" -gemel "$bin/gemel" -next "$bin/gemel-next" -n "$n" ${SEED:+-seed "$SEED"} ${ONLY:+-only "$ONLY"} ${DIR:+-dir "$DIR"}
