# Everything goes through these targets; `make help` lists them.
# The machine: Debian, root, Go. What else is needed is installed by the targets.

BIN      := $(CURDIR)/bin
VERSION  := $(shell git describe --always --dirty 2>/dev/null || echo dev)
GOFLAGS  := -trimpath
# Packages that building needs (runc's seccomp support is C), and that the tests need beside them.
BUILD_PACKAGES := gcc libc6-dev libseccomp-dev pkg-config debian-archive-keyring ca-certificates
# What the proxies need that the router is measured beside; they are unpacked, not installed, as Debian starts what it installs.
PEER_PACKAGES  := wrk liblua5.3-0 libopentracing-c-wrapper0 libpcre2-8-0
TEST_PACKAGES  := $(BUILD_PACKAGES) rsync skopeo podman buildah python3 softhsm2 opensc xfsprogs iproute2
# The official cosign, which judges what is signed: built once, which takes 6 minutes where nothing is cached.
COSIGN := test -x $(BIN)/cosign || (cd tools/cosign && go build -ldflags "-s -w" -o $(BIN)/cosign github.com/sigstore/cosign/v3/cmd/cosign)

export GOFLAGS

.PHONY: help up down build test lint bench soak

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

up: build ## install what is missing, build, and run the main job on the example site
	go run ./examples/demo -ashlar $(BIN)/ashlar

down: ## end what `make up` started
	-$(BIN)/ashlar down --all --yes

build: ## build bin/ashlar, bin/ashlar-shim, bin/ashlar-judge, bin/ashlar-witness and bin/runc
	@scripts/need $(BUILD_PACKAGES)
	CGO_ENABLED=0 go build -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN)/ashlar ./cmd/ashlar
	CGO_ENABLED=0 go build -ldflags "-s -w" -o $(BIN)/ashlar-shim ./cmd/ashlar-shim
	CGO_ENABLED=0 go build -ldflags "-s -w" -o $(BIN)/ashlar-judge ./cmd/ashlar-judge
	CGO_ENABLED=0 go build -ldflags "-s -w" -o $(BIN)/ashlar-witness ./cmd/ashlar-witness
	go build -tags seccomp -ldflags "-s -w" -o $(BIN)/runc github.com/opencontainers/runc

test: build ## install what is missing and run every test, as root
	@scripts/need $(TEST_PACKAGES)
	@scripts/unpack prometheus usr/bin/prometheus $(BIN)/prometheus
	$(MAKE) lint
	go test -timeout 20m ./...
	cd tools/conformance && go vet . && go test -count=1 .
	$(COSIGN)
	cd tools/cosign && go vet . && go test -count=1 -short -exec "unshare -n" .

lint: ## gofmt, vet, staticcheck, and the list of linked modules
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go tool staticcheck ./...
	@go list -deps -f '{{with .Module}}{{if .Version}}{{.Path}} {{.Version}}{{end}}{{end}}' ./cmd/ashlar ./cmd/ashlar-shim ./cmd/ashlar-witness \
		| sed '/^$$/d' | LC_ALL=C sort -u | { grep '^#' deps.txt; cat; } | diff deps.txt -
	@go list -deps -f '{{with .Module}}{{if .Version}}{{.Path}} {{.Version}}{{end}}{{end}}' ./cmd/ashlar-judge \
		| sed '/^$$/d' | LC_ALL=C sort -u | { grep '^#' deps-judge.txt; cat; } | diff deps-judge.txt -

bench: build ## measure against the in-place baseline, as docs/benchmarks.md tells
	@scripts/need $(TEST_PACKAGES) $(PEER_PACKAGES)
	@scripts/unpack haproxy usr/sbin/haproxy $(BIN)/haproxy
	@scripts/unpack nginx usr/sbin/nginx $(BIN)/nginx
	go run ./bench -ashlar $(BIN)/ashlar

soak: build ## the slow suites: 100,000 simulated seeds, examples built three times, 200 changes under kills and load, all that the official cosign is asked
	@scripts/need $(TEST_PACKAGES)
	$(BIN)/ashlar simulate --seeds 100000
	d=$$(mktemp -d) && for e in hello site guestbook; do $(BIN)/ashlar build --check --dir $$d --file examples/$$e/ashlar.yaml || exit 1; done && rm -r $$d
	go test -timeout 60m ./test -run TestStrategiesUnderKills -deploys 200
	$(COSIGN)
	cd tools/cosign && go test -count=1 -exec "unshare -n" .
