#!/bin/bash
# dispatch.sh bench|trial NAME: finds and runs a comparison or a campaign. One is either
#   KIND/NAME/run.sh, a script; KIND/NAME/*.go, a program; or a test func TestTrialName / TestBenchName anywhere
# in the tree, which sees GEMEL_RUN=KIND-NAME. N in the environment sets its length; GEMEL_SHORT=1 asks for the
# form that fits into a minute.
set -euo pipefail
cd "$(dirname "$0")/.."

capital() { local w out=; for w in ${1//-/ }; do out+=${w^}; done; echo "$out"; }

names() { # KIND: the names that can be run
	local d
	for d in "$1"/*/; do
		if [ -f "$d/run.sh" ] || compgen -G "$d*.go" >/dev/null; then basename "$d"; fi
	done
	{ grep -rhoE --include='*_test.go' "^func Test${1^}[A-Z][A-Za-z0-9]*\(" . 2>/dev/null || true; } |
		sed -E "s/^func Test${1^}//; s/\($//; s/([a-z0-9])([A-Z])/\1-\2/g" | tr '[:upper:]' '[:lower:]'
}

list() {
	local kind all
	for kind in bench trial; do
		all=$(names "$kind" | sort -u | sed "s/^/$kind-/" | tr '\n' ' ')
		echo "  $kind: ${all:-none yet}"
	done
}

case ${1:-} in
list)
	list
	exit 0
	;;
names)
	names "${2:?bench or trial}" | sort -u
	exit 0
	;;
bench | trial) ;;
*)
	echo "usage: dispatch.sh bench|trial NAME, dispatch.sh names bench|trial, dispatch.sh list" >&2
	exit 2
	;;
esac
kind=$1 name=${2:?a name is missing}

if [ -f "$kind/$name/run.sh" ]; then
	exec bash "$kind/$name/run.sh"
fi
if compgen -G "$kind/$name/*.go" >/dev/null; then
	exec go run "./$kind/$name"
fi
func=Test${kind^}$(capital "$name")
file=$(grep -rlE --include='*_test.go' "^func $func\(" . | head -n 1 || true)
if [ -n "$file" ]; then
	export GEMEL_RUN="$kind-$name"
	exec go test -count=1 -timeout 0 -v -run "^$func\$" "$(dirname "$file")"
fi
echo "make: there is no $kind-$name." >&2
list >&2
exit 2
