#!/bin/bash
# trial-arm64: the arm64 build is started, on Debian's kernel in an emulated machine (QEMU, no acceleration): a program is run and
# restarted, then gemel init makes keys and certificates. The machine has no disk and no network. LIMIT= seconds (600).
set -euo pipefail
cd "$(dirname "$0")/../.."
bash scripts/setup.sh trial/arm64/packages.txt "the trial on arm64"
for tool in qemu-system-aarch64 cpio dpkg-deb apt-get go; do
	command -v $tool >/dev/null || { echo "There is no $tool: no machine can be emulated." >&2; exit 1; }
done
kernel=linux-image-cloud-arm64
keep=$PWD/.bench/arm64
mkdir -p "$keep"

# Apt is asked in directories of its own: this machine's architectures and lists stay as they are.
if [ ! -s "$keep/vmlinuz" ]; then
	apt=$(mktemp -d)
	trap 'rm -rf "$apt"' EXIT
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
	: >"$apt/status"
	private=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root -o Dir::State="$apt" -o Dir::State::lists="$apt/lists"
		-o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache")
	echo "trial-arm64: fetching Debian's kernel ($kernel), 30 MB"
	for try in 1 2 3; do
		apt-get "${private[@]}" update -qq && break
		[ $try -lt 3 ] || { echo "Debian's list of packages for arm64 was not fetched." >&2; exit 1; }
	done
	name=$(apt-cache "${private[@]}" depends $kernel | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	(cd "$apt" && apt-get "${private[@]}" download -qq "${name:?no kernel is named by $kernel}" && dpkg-deb -x ./*.deb kernel)
	cp "$apt"/kernel/boot/vmlinuz-* "$keep/vmlinuz.new"
	mv "$keep/vmlinuz.new" "$keep/vmlinuz"
fi

make --no-print-directory arm64 >/dev/null
root=$(mktemp -d)
trap 'rm -rf "$root" ${apt:+"$apt"}' EXIT
mkdir -p "$root"/{proc,sys,dev,tmp,run,var,etc,usr/bin}
cp bin/arm64/gemel "$root/usr/bin/gemel"
CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -trimpath -ldflags '-s -w' -o "$root/init" ./trial/arm64
echo "root:x:0:0::/:/init" >"$root/etc/passwd"
(cd "$root" && find . | cpio -o -H newc --quiet) | gzip -1 >"$keep/initrd.gz"

out=$keep/console.log
timeout "${LIMIT:-600}" qemu-system-aarch64 -M virt -cpu max,pauth=off -smp 2 -m 1024 -nodefaults -no-reboot -nographic -serial stdio \
	-kernel "$keep/vmlinuz" -initrd "$keep/initrd.gz" -append "console=ttyAMA0 quiet panic=-1 rdinit=/init" </dev/null | tee "$out" | sed -n 's/^arm64: //p' || true
grep -q '^arm64: ok' "$out" || { echo "trial-arm64: it did not work; the console:" >&2; tail -n 60 "$out" >&2; exit 1; }
