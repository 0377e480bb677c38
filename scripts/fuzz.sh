#!/bin/bash
# Runs the fuzz targets of the tree for FUZZTIME each, one after the other.
# FUZZ and FUZZSKIP are patterns of names to run and to leave out; default all.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-60s}
targets=$({ grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+\(f \*testing\.F\)' . || true; } | sed -E 's/^\.\/(.*)\/[^/]+_test\.go:[0-9]+:func (Fuzz[A-Za-z0-9_]+).*/\1 \2/' | sort -u)
if [ -z "$targets" ]; then
	echo "fuzz: no targets"
	exit 0
fi
bad=0
n=0
while read -r dir name; do
	if [[ ! $name =~ ${FUZZ:-.} ]] || [[ -n ${FUZZSKIP:-} && $name =~ $FUZZSKIP ]]; then
		continue
	fi
	n=$((n + 1))
	echo "== fuzz $name in $dir, $time"
	go test "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 20x </dev/null || bad=$((bad + 1))
done <<<"$targets"
echo "fuzz: $n targets, $bad failed"
[ "$bad" -eq 0 ]
