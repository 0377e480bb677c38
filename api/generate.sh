#!/bin/sh
# Makes the Go code of the published API from its .proto files; needs only Go.
# With --check it writes nothing and fails if the code is not current.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
case "${1-}" in
'') check= ;;
--check) check=-check ;;
*) echo "usage: $0 [--check]" >&2; exit 2 ;;
esac
cd "$root/tools/gen"
exec go run . -root "$root" $check
