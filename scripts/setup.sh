#!/bin/bash
# setup.sh [LIST [WHO]]: installs what the tests need (scripts/packages.txt, or LIST for WHO) when it is root on
# Debian or a relative, saying so first.
# No service starts by it: a policy-rc.d stands in the way meanwhile. Quick when everything is there.
# NO_INSTALL=1: never installs. Exit 0 unless an installation that was tried failed.
set -euo pipefail
cd "$(dirname "$0")/.."
list=${1:-scripts/packages.txt} who=${2:-the tests}
PATH=$PATH:/usr/sbin:/sbin

missing=()
while read -r package command _; do
	case $package in '' | '#'*) continue ;; esac
	if [ "$command" = - ]; then
		command -v dpkg-query >/dev/null || continue
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
	elif ! command -v "$command" >/dev/null; then
		missing+=("$package")
	fi
done <"$list"

if [ ${#missing[@]} -eq 0 ]; then
	echo "setup: what $who need from the distribution is there"
	exit 0
fi

line="apt-get install --no-install-recommends ${missing[*]}"
why=
if [ -n "${NO_INSTALL:-}" ]; then
	why="NO_INSTALL is set"
elif [ "$(id -u)" -ne 0 ]; then
	why="not root"
elif ! command -v apt-get >/dev/null; then
	why="no apt-get here"
fi
if [ -n "$why" ]; then
	echo "setup: nothing is installed ($why); $who go without: ${missing[*]}"
	echo "setup: this line installs them on Debian:"
	echo "  sudo $line"
	exit 0
fi

echo "setup: installing for $who, without starting any service: ${missing[*]}"
policy=/usr/sbin/policy-rc.d
mine=
mark="put here by Gemel's scripts/setup.sh while it installs, so that no service starts"
log=$(mktemp)
cleanup() {
	rm -f "$log"
	if [ -n "$mine" ]; then rm -f "$policy"; fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
if [ ! -e "$policy" ] || grep -qF "$mark" "$policy"; then # ours may be left from a run that was killed
	mine=1
	printf '#!/bin/sh\n# %s\nexit 101\n' "$mark" >"$policy"
	chmod 755 "$policy"
elif "$policy" gemel-setup start >/dev/null 2>&1; then
	echo "setup: $policy is there and lets services start; it is left as it is, and nothing is installed:" >&2
	echo "  $line" >&2
	exit 1
fi

export DEBIAN_FRONTEND=noninteractive
apt() { apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" </dev/null >>"$log" 2>&1; }
if ! apt install --no-install-recommends "${missing[@]}"; then
	# A fresh machine has no package lists, or old ones.
	if ! apt update || ! apt install --no-install-recommends "${missing[@]}"; then
		tail -n 30 "$log" >&2
		echo "setup: the installation failed; by hand: $line" >&2
		exit 1
	fi
fi
echo "setup: installed"
