# The two to know: `make demo` shows the bus at work, `make test` is what CI runs. `make help` lists the rest.

GO ?= go
STATICCHECK ?= $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
# So many inputs: a duration that ends in the midst of one is a failure.
FUZZTIME ?= 30000x
DEMOFLAGS ?=
BENCHFLAGS ?=
SECONDS ?= 60
SEED ?= 0

# What runs under the race detector: everything that needs no other process. The integration tests start programs that
# are built without it.
RACE = ./wire/... ./shmio/... ./actors/... ./node/... ./cmd/internal/...

.DEFAULT_GOAL := build
.PHONY: build test fmt vet staticcheck race integration demo soak bench compare fuzz generate clean help

build: ## build bin/bhomed and bin/bhctl
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bhomed ./cmd/bhomed
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bhctl ./cmd/bhctl

test: fmt vet staticcheck race integration fuzz soak ## everything that CI checks
test: SEED = 1

fmt: ## fail if a file isn't as gofmt has it
	@out="$$(gofmt -l .)" || exit; if [ -n "$$out" ]; then echo "gofmt -w would change:"; echo "$$out"; exit 1; fi

vet: ## go vet, also for the other platforms that must compile
	$(GO) vet ./...
	CGO_ENABLED=0 GOARCH=arm64 $(GO) build ./...

staticcheck: ## staticcheck
	$(STATICCHECK) ./...

race: ## the unit tests, under the race detector
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 4m $(RACE)

integration: build ## all tests, those across real processes included
	$(GO) test -count=1 -timeout 4m ./...

demo: build ## stream a source tree through a private bus, kill processes on the way, check everything
	bin/bhctl demo $(DEMOFLAGS)

soak: build ## try to break the bus for SECONDS (60): processes and bhomed are stopped and killed; SEED repeats a schedule
	bin/bhctl soak --for $(SECONDS)s --seed $(SEED)

bench: build ## measure the bus, a Unix socket and the bare queue side by side
	bin/bhctl bench suite $(BENCHFLAGS)

compare: build ## measure bhome beside Unix sockets, gRPC, NATS, ZeroMQ, iceoryx and boost::interprocess; writes docs/benchmarks.md
	integration/peers/install.sh
	cd integration/peers && go run . --out ../../docs/benchmarks.md

fuzz: ## run each fuzz test for FUZZTIME (30000x: so many inputs), from the corpus in testdata/fuzz beside it on
	@set -e; grep -roE --include='*_test.go' '^func Fuzz[[:alnum:]_]+' . | sort | while IFS=: read -r file f; do \
		f="$${f#func }"; pkg="$${file%/*}"; echo "$$pkg $$f"; \
		$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null; \
	done

generate: ## make the generated code anew
	$(GO) generate ./...

clean: ## remove what the build made
	rm -rf bin

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
