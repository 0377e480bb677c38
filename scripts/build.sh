#!/bin/bash
# build.sh DIR [VERSION]: the product, for GOOS and GOARCH, into DIR. gemel-store is built first and carried, packed, inside gemel:
# DIR/gemel is all there is to install. Its parts stay in DIR/parts.
set -euo pipefail
out=${1:?} version=${2:-}
mkdir -p "$out/parts"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
export CGO_ENABLED="${CGO_ENABLED:-0}"
parts=$out/parts
# No stamp of the commit: a part that is the same is not unpacked anew.
go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$parts/gemel-store" ./cmd/gemel-store
read -r sum _ < <(sha256sum "$parts/gemel-store")
gzip -9nc "$parts/gemel-store" >"$parts/gemel-store.gz"
quote() { printf '"%s"' "$(sed 's/[\\"]/\\&/g' <<<"$1")"; }
printf '{"Replace": {%s: %s}}\n' "$(quote "$PWD/cmd/gemel/gemel-store.gz")" "$(quote "$parts/gemel-store.gz")" >"$parts/overlay.json"
go build -trimpath -tags slim -overlay "$parts/overlay.json" \
	-ldflags "-s -w -X main.packedSum=$sum${version:+ -X main.version=$version}" -o "$out/gemel" ./cmd/gemel
