#!/bin/bash
# install.sh install|uninstall, called by make with PREFIX, DESTDIR and the directories under it in the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
case ${PURGE:-} in 0 | no | false) PURGE= ;; esac
: "${DESTDIR=}" "${PREFIX:?}" "${BINDIR:?}" "${MANDIR:?}" "${UNITDIR:?}" "${SYSCONFDIR:?}"
bin=$DESTDIR$BINDIR man=$DESTDIR$MANDIR unit=$DESTDIR$UNITDIR/gemel.service
doc=$DESTDIR$PREFIX/share/doc/gemel examples=$DESTDIR$PREFIX/share/doc/gemel/examples
completions=(
	"bash $DESTDIR$PREFIX/share/bash-completion/completions/gemel"
	"zsh $DESTDIR$PREFIX/share/zsh/site-functions/_gemel"
	"fish $DESTDIR$PREFIX/share/fish/vendor_completions.d/gemel.fish"
)

install_all() {
	local c pages
	install -D -m 755 bin/gemel "$bin/gemel"
	install -d "$(dirname "$unit")"
	sed "s|/usr/local/bin/gemel|$BINDIR/gemel|" dist/gemel.service >"$unit"
	chmod 644 "$unit"
	pages=$(mktemp -d)
	bin/gemel man "$pages"
	install -d "$man/man1" "$man/man5"
	install -m 644 "$pages"/*.1 "$man/man1/"
	install -m 644 "$pages"/*.5 "$man/man5/"
	rm -r "$pages"
	for c in "${completions[@]}"; do
		install -d "$(dirname "${c#* }")"
		bin/gemel completion "${c%% *}" >"${c#* }"
	done
	for c in $(cd examples && { git ls-files 2>/dev/null | grep -v gitignore || find . -type f; }); do
		install -D -m 644 "examples/$c" "$examples/$c"
	done
	install -d "$doc"
	install -m 644 docs/*.md docs/gemel.schema.json "$doc/"
	if [ -f include/gemel.h ]; then install -D -m 644 include/gemel.h "$DESTDIR$PREFIX/include/gemel.h"; fi
	echo "installed $bin/gemel, its man pages, completions, the manual and examples in $doc, and $unit"
	if [ -z "$DESTDIR" ]; then
		cat <<-NEXT
			next:  mkdir -p $SYSCONFDIR/gemel; cp $PREFIX/share/doc/gemel/examples/one-machine.yaml $SYSCONFDIR/gemel/gemel.yaml
			       systemctl daemon-reload; systemctl enable --now gemel
			a daemon that runs already is replaced, without touching a program, by:  gemel upgrade
		NEXT
	fi
}

# running says whether a daemon of this machine runs; it is not asked about a staged tree.
running() { [ -z "$DESTDIR" ] && [ -S /run/gemel/api.sock ] && "$bin/gemel" --socket /run/gemel/api.sock status >/dev/null 2>&1; }

uninstall_all() {
	local c data=$DESTDIR${DATADIR:-/var/lib/gemel} etc=$DESTDIR$SYSCONFDIR/gemel alive=
	if running; then alive=1; fi
	if [ -n "$alive" ] && [ -n "${PURGE:-}" ]; then
		echo "uninstall: Gemel runs and PURGE would take its data away under it; first: systemctl stop gemel (which stops its programs)" >&2
		exit 1
	fi
	rm -f "$bin/gemel" "$unit" "$man"/man1/gemel.1 "$man"/man1/gemel-*.1 "$man"/man5/gemel.yaml.5 "$DESTDIR$PREFIX/include/gemel.h"
	for c in "${completions[@]}"; do rm -f "${c#* }"; done
	rm -rf "$doc"
	if [ -n "${PURGE:-}" ]; then
		rm -rf "$data" "$etc"
		echo "uninstalled, with $data and $etc"
	else
		echo "uninstalled; the data in $data and the manifests in $etc are kept (PURGE=1 removes them)"
	fi
	if [ -n "$alive" ]; then
		echo "Gemel still runs, and so do its programs: nothing was stopped. systemctl stop gemel ends both."
	fi
}

case ${1:-} in
install) install_all ;;
uninstall) uninstall_all ;;
*)
	echo "usage: install.sh install|uninstall" >&2
	exit 2
	;;
esac
