# Everything here works from a bare checkout with Go alone, but for race tests,
# which need a C compiler.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo development)
LDFLAGS  = -s -w -X main.version=$(VERSION)

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0

FUZZTIME ?= 30s
SOAK     ?= 5m
SEED     ?= 0

.PHONY: help build demo test check fmt vet staticcheck race tidy cross bench bench-latency soak longest overload keyring services browser network clients downloads fuzz vuln cover clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/defender-proxy, static
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/defender-proxy ./cmd/defender-proxy

demo: ## run the proxy against a simulator; no account needed
	$(GO) run ./cmd/defender-proxy demo

test: ## run all tests
	$(GO) test -timeout 30m ./...

check: fmt vet staticcheck tidy race cross ## what CI runs

fmt: ## fail on files that gofmt would change
	@out=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$out" || { echo "gofmt would change:"; echo "$$out"; exit 1; }

vet: ## go vet
	$(GO) vet ./...
	$(GO) vet -tags "browser clients keyring network services" ./...

staticcheck: ## staticcheck
	$(GO) run $(STATICCHECK) ./...

tidy: ## fail when go.mod or go.sum are not tidy
	$(GO) mod tidy -diff
	$(GO) mod verify

race: ## run all tests with the race detector
	$(GO) test -race -count=1 -timeout 30m ./...

cross: ## build for every platform that is promised, and vet for the two other systems
	@for p in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do \
		echo "build $$p"; \
		CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -o /dev/null ./cmd/defender-proxy || exit 1; \
	done
	@for os in darwin windows; do \
		echo "vet $$os"; \
		CGO_ENABLED=0 GOOS=$$os $(GO) vet ./... || exit 1; \
	done

bench: ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./policy ./proxy ./regions ./internal/...
	$(GO) test -run '^$$' -bench . -skip Latency -benchtime 8x ./integration/bench

bench-latency: ## measure what a caller waits, over a network as wide as the world; takes some minutes
	$(GO) test -run '^$$' -bench Latency -benchtime 1x ./integration/bench

soak: ## let Entra ID misbehave for SOAK (5m) under 64 callers; SEED=n repeats a run
	$(GO) test -race -count=1 -v -timeout 2h -run Soak ./integration -args -soak=$(SOAK) -soak.seed=$(SEED)

longest: ## let a hunting query take the 200 s that are documented at most
	$(GO) test -count=1 -timeout 10m -run LongestQuery ./integration -args -longest=200s

downloads: ## let a download of 5 GiB through, and resume it
	$(GO) test -count=1 -timeout 20m -run ALargeFileIsDownloaded ./integration -args -downloads.size=5368709120

overload: ## measure an honest caller beside 10,000 idle and 2,000 slow ones, on a machine that does nothing else
	$(GO) test -count=1 -v -run Overload ./integration -args -overload

keyring: ## test against the real Secret Service (Debian: dbus, gnome-keyring)
	XDG_DATA_HOME=$$(mktemp -d) timeout 300 dbus-run-session -- sh -c \
		'printf "\n" | gnome-keyring-daemon --unlock --components=secrets >/dev/null; exec $(GO) test -count=1 -tags keyring -run KeyringOfTheSystem ./internal/credential'

services: ## test against real log servers (Debian: rsyslog, rsyslog-openssl)
	$(GO) vet -tags services ./internal/audit
	$(GO) run $(STATICCHECK) -tags services ./internal/audit
	$(GO) test -race -count=1 -tags services -timeout 5m -run '^TestService' ./internal/audit

browser: ## test with a real browser (Debian: chromium)
	$(GO) vet -tags browser ./integration
	$(GO) run $(STATICCHECK) -tags browser ./integration
	$(GO) test -race -count=1 -tags browser -timeout 10m -run '^TestBrowser' ./integration

network: ## test over a real network and with real proxies; root on Linux (Debian: iproute2, microsocks, squid-openssl)
	$(GO) vet -tags network ./integration
	$(GO) run $(STATICCHECK) -tags network ./integration
	$(GO) test -race -count=1 -tags network -timeout 10m -run '^TestNetwork' ./integration

clients: ## test with real clients (Debian: curl, nodejs and npm for Node 20 or newer, python3-msal, python3-requests)
	cd integration/clients/node && npm ci
	cd integration/clients/newman && npm ci
	$(GO) vet -tags clients ./integration/clients
	$(GO) run $(STATICCHECK) -tags clients ./integration/clients
	$(GO) test -race -count=1 -tags clients -timeout 20m ./integration/clients

fuzz: ## fuzz each target for FUZZTIME (30s)
	@for f in $$(git ls-files '*_test.go' | xargs grep -l '^func Fuzz'); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' $$f); do \
			echo "fuzz $$t in $$(dirname $$f)"; \
			$(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x ./$$(dirname $$f) || exit 1; \
		done; \
	done

vuln: ## look for known vulnerabilities; needs the Go vulnerability database
	$(GO) run $(GOVULNCHECK) ./...

cover: ## write coverage.html
	$(GO) test -coverpkg=./... -coverprofile=coverage.out ./...
	$(GO) tool cover -html=coverage.out -o coverage.html

clean: ## remove what was built
	rm -rf bin coverage.out coverage.html
