#!/bin/bash
# All tests, after their set-up, and what was left out of them.
# GEMEL_REQUIRE=all (as .ci/run sets it): nothing may be left out.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
if ! bash scripts/setup.sh; then
	if [ "${GEMEL_REQUIRE:-}" = all ]; then exit 1; fi
	echo "test: going on with what is there"
fi
left=$(mktemp)
trap 'rm -f "$left"' EXIT
export GEMEL_LEFT_OUT=$left
code=0
go test -timeout 20m "$@" ./... || code=$?
if [ -s "$left" ]; then
	echo "test: left out:"
	sort "$left" | uniq -c | sed -E 's/^ *([0-9]+) (.*)/  \2 (\1 tests)/; s/\(1 tests\)/(1 test)/'
fi
[ $code -eq 0 ] && echo "test: ok"
exit $code
