#!/bin/bash
# vet.sh [TOOL...]: go vet, or another tool that reads the files of packages, over all of them in both forms of the build. The slim
# form needs what scripts/build.sh makes; an empty file stands in for it.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then set -- go vet; fi
"$@" ./...
dir=$(mktemp -d "${TMPDIR:-/tmp}/gemel-vet.XXXXXX")
trap 'rm -rf "$dir"' EXIT
: >"$dir/gemel-store.gz"
quote() { printf '"%s"' "$(sed 's/[\\"]/\\&/g' <<<"$1")"; }
printf '{"Replace": {%s: %s}}\n' "$(quote "$PWD/cmd/gemel/gemel-store.gz")" "$(quote "$dir/gemel-store.gz")" >"$dir/overlay.json"
# A flag with a quote or a space in it is quoted as a whole.
GOFLAGS="${GOFLAGS-} -tags=slim '-overlay=$dir/overlay.json'" "$@" ./cmd/gemel
