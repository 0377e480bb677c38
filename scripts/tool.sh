#!/bin/bash
# tool.sh NAME ARGS: runs a development tool at the version pinned in tools/lint/go.mod, built once into bin/tools.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1
shift
bin=$PWD/bin/tools/$name
stamp=$PWD/bin/tools/.$name.sum
# A tool must be built by the Go that checks the tree, else it cannot read its export data.
sum=$(cat tools/lint/go.mod tools/lint/go.sum <(go env GOVERSION) | sha256sum)
if [ ! -x "$bin" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]; then
	path=$(awk -v n="$name" '$1 ~ "/cmd/"n"$" {print $1}' tools/lint/go.mod)
	if [ -z "$path" ]; then
		echo "tool.sh: tools/lint/go.mod has no tool $name" >&2
		exit 2
	fi
	mkdir -p bin/tools
	echo "building $name (once)" >&2
	(cd tools/lint && go build -o "$bin" "$path")
	echo "$sum" >"$stamp"
fi
exec "$bin" "$@"
