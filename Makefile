# make help lists what there is.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS   += --no-print-directory

VERSION    ?= 0.1.0$(shell git rev-parse --short=12 HEAD 2>/dev/null | sed 's/^/+g/')
PREFIX     ?= /usr/local
DESTDIR    ?=
SYSCONFDIR ?= /etc
BINDIR      = $(PREFIX)/bin
MANDIR      = $(PREFIX)/share/man
UNITDIR     = $(PREFIX)/lib/systemd/system
DATADIR     = /var/lib/gemel
FUZZTIME   ?= 60s
TESTFLAGS  ?=
PURGE      ?=

# The product needs no C; only the race detector does.
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := build
.PHONY: help go build arm64 run run-one test race lint fmt-check vet staticcheck law vuln check fuzz \
        generate generate-check install uninstall setup clean list

help: ## what can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | awk -F'\t' '{printf "  make %-16s %s\n", $$1, $$2}'
	@echo "  make bench-NAME       one comparison, side by side with its peers"
	@echo "  make trial-NAME       one campaign; N= sets its length"
	@bash scripts/dispatch.sh list

go:
	@bash scripts/go-version.sh

build: go ## bin/gemel
	bash scripts/build.sh bin '$(VERSION)'

arm64: go ## cross build of the same, in bin/arm64
	GOOS=linux GOARCH=arm64 bash scripts/build.sh bin/arm64 '$(VERSION)'

run: build ## two nodes and a witness on this machine, and a client that asks their service each millisecond
	@go build -trimpath -ldflags '-s -w' -o bin/hello ./examples/hello
	@bash scripts/cluster.sh

run-one: build ## one machine: the daemon on a shipped example, with events as they happen
	@bash scripts/demo.sh

setup: ## what the tests need from the distribution; NO_INSTALL=1 only tells
	@bash scripts/setup.sh

test: go ## all tests, with their own set-up; NO_INSTALL=1 installs nothing
	@bash scripts/test.sh $(TESTFLAGS)

race: go ## the tests again under the race detector, in their short form
	@bash scripts/race.sh

lint: fmt-check vet generate-check staticcheck law vuln ## all but the tests

fmt-check:
	@out=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); \
	 if [ -n "$$out" ]; then echo "gofmt: these files are not formatted (gofmt -w FILE):"; echo "$$out"; exit 1; fi; \
	 echo "gofmt: ok"

vet: go
	@bash scripts/vet.sh && echo "vet: ok"

staticcheck: go
	@bash scripts/vet.sh bash scripts/tool.sh staticcheck && echo "staticcheck: ok"

law: go ## imports, budgets, comments, links
	@go test -count=1 ./internal

vuln: go ## known vulnerabilities, where the database can be reached
	@bash scripts/vuln.sh

check: lint race ## what a change must pass
	@echo "check: ok"

fuzz: go ## the fuzz targets that match FUZZ and not FUZZSKIP (default all), FUZZTIME (60s) each
	@FUZZTIME='$(FUZZTIME)' FUZZ='$(FUZZ)' FUZZSKIP='$(FUZZSKIP)' bash scripts/fuzz.sh

generate: go ## the API's generated code
	@bash api/generate.sh

generate-check: go
	@if [ -f api/generate.sh ]; then bash api/generate.sh --check && echo "generate-check: ok"; fi

bench-%: go
	@bash scripts/dispatch.sh bench $*

trial-%: go
	@bash scripts/dispatch.sh trial $*

install: ## PREFIX (/usr/local), DESTDIR
	@test -x bin/gemel || $(MAKE) build
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' BINDIR='$(BINDIR)' MANDIR='$(MANDIR)' UNITDIR='$(UNITDIR)' \
	 bash scripts/install.sh install

uninstall: ## stops nothing, keeps the data unless PURGE=1
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' SYSCONFDIR='$(SYSCONFDIR)' BINDIR='$(BINDIR)' MANDIR='$(MANDIR)' UNITDIR='$(UNITDIR)' \
	 DATADIR='$(DATADIR)' PURGE='$(PURGE)' bash scripts/install.sh uninstall

clean: ## what was built
	rm -rf bin dist/out
