#!/bin/bash
# Checks that a go command new enough for this tree is there, and says what to do if not.
set -euo pipefail
cd "$(dirname "$0")/.."
want=$(sed -n 's/^go //p' go.mod)
if ! command -v go >/dev/null; then
	echo "go: not found. Gemel is built with Go $want or newer: https://go.dev/dl/ (or put it on PATH)." >&2
	exit 1
fi
have=$(go env GOVERSION 2>/dev/null || GOTOOLCHAIN=local go version | awk '{print $3}')
have=${have#go}
have=${have%% *}
if [ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" != "$want" ]; then
	echo "go: this is Go $have; Gemel needs Go $want or newer: https://go.dev/dl/" >&2
	exit 1
fi
