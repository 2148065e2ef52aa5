# Varvel's targets, the same for people and for CI. `make` lists them.

SHELL        := bash
.SHELLFLAGS  := -euo pipefail -c
.DELETE_ON_ERROR:

GO            ?= go
CLANG         ?= clang-19
LLVM_STRIP    ?= llvm-strip-19
# Space-separated packages for `make test`, for example PKG=./internal/decision
PKG           ?= ./...
FUZZTIME      ?= 10s
# Of chaos: interruptions. Of soak: how long, and how many runs at a time. A seed is drawn if there is none.
N             ?= 500
SOAK          ?= 30m
RUNS          ?= 200
CHAOS          = bin/varvel-chaos -bin bin $(if $(SEED),-seed $(SEED))

# Git refuses to answer in a checkout that belongs to somebody else; then there is no revision to stamp.
BUILDVCS   := $(shell git rev-parse -q --verify HEAD >/dev/null 2>&1 && echo auto || echo false)
BUILDFLAGS := -trimpath -buildvcs=$(BUILDVCS)

.PHONY: help build other-build generate generate-check test lint fuzz demo bench chaos soak clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build the daemon, its init and the command line tool into bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/ ./cmd/varveld ./cmd/varvel-init ./cmd/varvel

generate: ## Compile the BPF programs again (needs the pinned clang)
	@scripts/clang-is $(CLANG)
	BPF2GO_CC=$(CLANG) BPF2GO_STRIP=$(LLVM_STRIP) $(GO) generate ./internal/kernel/...

generate-check: generate ## Prove that the committed BPF objects are what the sources make
	@scripts/unchanged ':(glob)internal/kernel/*_bpfel.*' ':(glob)internal/kernel/*_bpfeb.*'

test: ## Run every test; those that need root are skipped, with the reason, for others
	@GO=$(GO) scripts/gotest $(PKG)

lint: ## gofmt, go vet, staticcheck, govulncheck and the import rules
	@GO=$(GO) scripts/lint

fuzz: ## Run every fuzz test for FUZZTIME (10s each)
	@GO=$(GO) scripts/fuzz $(FUZZTIME)

demo: build ## One governed run against real servers, in about a minute (needs root)
	@CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/ ./cmd/varvel-demo
	@bin/varvel-demo -bin bin

bench: build ## Measure against the bare operation; ONLY=name,… runs some
	@CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/ ./cmd/varvel-bench
	@bin/varvel-bench $(if $(ONLY),-only $(ONLY))

chaos: build ## Interrupt the daemon N times (500) under load; ONLY=kill,… SEED=… QUICK=1 OTHER=DIR (needs root)
	@CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/ ./cmd/varvel-chaos
	@$(CHAOS) -n $(N) $(if $(ONLY),-only $(ONLY)) $(if $(QUICK),-quick) $(if $(OTHER),-other $(OTHER))

other-build: ## Build with another layout of kernel state into build/other, for `make chaos OTHER=build/other`
	@GO=$(GO) CLANG=$(CLANG) LLVM_STRIP=$(LLVM_STRIP) scripts/other-build build/other

soak: build ## Start and end RUNS runs (200) at a time for SOAK (30m); memory and all else stay flat (needs root)
	@CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/ ./cmd/varvel-chaos
	@$(CHAOS) -soak $(SOAK) -runs $(RUNS)

clean: ## Remove what was built
	rm -rf bin build
