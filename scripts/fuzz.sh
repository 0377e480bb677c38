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
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Go before 1.27 takes the end of the fuzz time for a failure when the
# coordinator wakes before its workers are told (go.dev/issue/75804): the bare
# error below, and no input that fails. Anything beside that is a failure.
only_out_of_time() {
	grep -qx '    context deadline exceeded' "$out" &&
		! grep -vE '^(fuzz: elapsed: |--- FAIL: |    context deadline exceeded$|FAIL|exit status 1$|=== |PASS$|ok )' "$out" | grep -q .
}

bad=0
n=0
while read -r dir name; do
	if [[ ! $name =~ ${FUZZ:-.} ]] || [[ -n ${FUZZSKIP:-} && $name =~ $FUZZSKIP ]]; then
		continue
	fi
	n=$((n + 1))
	echo "== fuzz $name in $dir, $time"
	if ! go test "./$dir" -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 20x </dev/null 2>&1 | tee "$out"; then
		if only_out_of_time; then
			echo "fuzz: $name ended by its time without an input that fails (go.dev/issue/75804)"
		else
			bad=$((bad + 1))
		fi
	fi
done <<<"$targets"
echo "fuzz: $n targets, $bad failed"
[ "$bad" -eq 0 ]
