#!/bin/bash
# The tests under the race detector, which alone needs cgo and a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v "${CC:-gcc}" >/dev/null; then
	if [ "${GEMEL_REQUIRE:-}" = all ]; then
		echo "race: no C compiler, which the race detector needs" >&2
		exit 1
	fi
	echo "race: left out: no C compiler (install gcc)"
	exit 0
fi
CGO_ENABLED=1 go test -race -short -timeout 15m ./...
