# make help lists the targets; each line below with ## explains one.

GO ?= go

# Arguments: of quire serve for make run, of the programs for make bookies, conformance and bench.
ARGS ?=

# Where the generators of property tests begin. Fixed, so that test and race judge a change by
# the same cases every time; make explore looks for new ones.
RAPID_SEED ?= 1
test race: export RAPID_SEED := $(RAPID_SEED)

# For the tests of one package. The slowest, those of coordinator under the race detector, take
# three minutes on two cores.
TEST_TIMEOUT ?= 20m

# Times as many cases of each property as test tries, for explore.
TIMES ?= 10

# Time that each fuzz target gets.
FUZZTIME ?= 10s

# Set to v1.2.3 to name a release.
VERSION ?=

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help run bookies build test race explore simulate fuzz lint tools conformance bench
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build and start a server on 127.0.0.1:9092 with its data in ./quire-data (ARGS="--data-dir DIR …")
	./bin/quire serve $(ARGS)

bookies: ## start etcd, three bookies with AutoRecovery and a server in front of them (needs a JDK 17 and Maven; ARGS="-bookies 4 …")
	cd conformance && $(GO) run ./bookies/run $(ARGS)

build: ## build bin/quire, a static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.release=$(VERSION)" -o bin/quire ./cmd/quire

test: ## run every test of this module; needs nothing but Go
	$(GO) test -timeout $(TEST_TIMEOUT) ./...

# The packages with property tests: those whose tests import rapid.
PROPERTY_PACKAGES = $$($(GO) list -f '{{range .TestImports}}{{if eq . "pgregory.net/rapid"}}{{$$.ImportPath}}{{end}}{{end}}{{range .XTestImports}}{{if eq . "pgregory.net/rapid"}}{{$$.ImportPath}}{{end}}{{end}}' ./...)

explore: ## try TIMES (10) as many new cases of every property as test does
	RAPID_CHECKS=$$((100 * $(TIMES))) $(GO) test -count=1 -timeout 1h $(PROPERTY_PACKAGES)

# Tests of the command line start many processes, each a program with
# one thing to do: the detector makes them slow and sees little. Whole programs with the
# detector are those of TestAdmin, TestServeTLSBehindProxy and TestBookiesOverTLS.
PROCESS_TESTS = ^(TestEtcdCluster|TestBookKeeperTier|TestMigrateToBookies|TestBookiesRefused|TestNodes|TestRestoredEtcd|TestGroups|TestConsoleTools|TestGroupCommandLine|TestCommandLine|TestStartErrors|TestReadmeGroupCommands|TestFilesNameNoMachine|TestImportActive|TestJournalCannotBeSynced|TestMetadataCannotBeSynced|TestFullDisk|TestTermUnderLoad|TestUnixListener|TestDescriptorLimit|TestSecondSignal)$$

# Tests that compute, on one goroutine: codecs at every level and on every cut of their
# input, and stores opened after every operation of a disk in memory.
COMPUTING_TESTS = ^(TestLevels|TestDecompressRefuses|TestCrashAtEveryOperation|TestCrashSuiteSees)$$

# TestGroupsMove crashes the detector itself: a fault in the sanitizer's store of stacks, with
# a thousand groups in one bubble.
RACE_SKIPS = $(PROCESS_TESTS)|$(COMPUTING_TESTS)|^TestGroupsMove$$

race: ## run the same tests, but those of the command line and those that only compute, with the race detector and poisoned buffers (needs a C compiler)
	$(GO) test -race -timeout $(TEST_TIMEOUT) -skip '$(RACE_SKIPS)' ./...

# Lives of a ledger that make simulate runs.
SEEDS ?= 100000

simulate: ## run the simulation of BookKeeper's replication over SEEDS (100000) lives of a ledger, and see broken rules found
	QUIRE_SEEDS=$(SEEDS) $(GO) test -count=1 ./storage/bookkeeper/quorum

# go test -fuzz reports the end of its own time as a failure now and then, with no input that
# fails: such a run is repeated once.
fuzz: ## run every fuzz target for FUZZTIME (10s), one after another
	@grep -rHoE --include='*_test.go' --exclude-dir=conformance '^func Fuzz[A-Za-z0-9_]*' . | sort | { \
	count=0; \
	while IFS=: read -r file name; do \
		name=$${name#func }; package=$$(dirname "$$file"); count=$$((count + 1)); \
		echo "fuzz $$package $$name"; \
		out=$$($(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" 2>&1) && { echo "$$out"; continue; }; \
		echo "$$out"; \
		case $$out in *"Failing input"*) exit 1 ;; *"context deadline exceeded"*) ;; *) exit 1 ;; esac; \
		echo "again: the end of its time was taken for a failure"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" || exit 1; \
	done; \
	[ $$count -gt 0 ] || { echo "no fuzz target found" >&2; exit 1; }; \
	echo "$$count fuzz targets passed"; }

lint: ## check format, go vet and staticcheck, and that it builds for macOS
	@unformatted=$$(gofmt -l cmd coordinator protocol proxy storage offsets conformance); \
	[ -z "$$unformatted" ] || { echo "not formatted by gofmt:" $$unformatted >&2; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags bookies,zookeeper ./storage/bookkeeper/...
	$(GO) run $(STATICCHECK) ./...
	GOOS=darwin GOARCH=arm64 $(GO) build ./...

tools: ## download what build, test and lint need, for a machine that goes offline
	$(GO) mod download
	$(GO) run $(STATICCHECK) -version

conformance: ## run real clients and faults against the built binary (fetches them; ARGS=full for the long kill loops)
	cd conformance && ./run $(ARGS)

bench: ## measure beside Apache Kafka on this machine and write the README's table
	cd conformance && $(GO) run ./bench $(ARGS)
