package bookies

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
)

// digests are the Java client's names of the kinds of digest, by the number less
// one that a ledger's metadata hold.
var digests = []string{"CRC32", "MAC", "CRC32C", "DUMMY"}

// goTest runs tests of Quire's own client, in the module above this one, against
// the cluster. A test that is skipped, or that is not there, is a failure.
func goTest(t *testing.T, cluster *peer.BookKeeper, exchange, test string) {
	t.Helper()
	root, err := peer.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-tags=bookies", "-count=1", "-v", "-timeout=5m", "-run", "^"+test+"$", "./storage/bookkeeper")
	cmd.Dir = filepath.Dir(root)
	cmd.Env = append(os.Environ(), "QUIRE_BOOKIES="+cluster.Etcd.Endpoints(), "QUIRE_BOOKIES_EXCHANGE="+exchange)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+test+" ") || strings.Contains(string(out), "--- SKIP") {
		t.Errorf("go test of %s: %v\n%s", test, err, out)
	}
}

// Quire's client passes the suite of all ledger tiers on real bookies.
func TestSuiteOfTiers(t *testing.T) {
	goTest(t, shared(t), "", "TestRealBookies")
}

// What the Java client writes, in all its forms, Quire's client reads, recovers
// and fences; and the other way round.
func TestInterop(t *testing.T) {
	cluster := shared(t)
	writers := map[string]*javaClient{"v2": java(t, cluster, "v2")}
	if full {
		writers["v3"] = java(t, cluster, "v3")
	}
	const last, size = 24, 700
	var lines []string
	var live []string
	for protocol, writer := range writers {
		for i, digest := range digests {
			for _, password := range []string{"-", "secret"} {
				for _, state := range []string{"closed", "open"} {
					id := writer.do("create", digest, password, "3 3 2")
					if got := writer.do("add", id, last+1, size); got != fmt.Sprint(last) {
						t.Fatalf("the last entry is %s", got)
					}
					if state == "closed" {
						writer.do("close", id)
					} else {
						live = append(live, protocol+" "+id)
					}
					lines = append(lines, fmt.Sprintln(id, i+1, password, last, size, state))
				}
			}
		}
	}
	// Striped: no bookie has all entries.
	id := writers["v2"].do("create CRC32C - 3 2 2")
	writers["v2"].do("add", id, last+1, size)
	lines = append(lines, fmt.Sprintln(id, 3, "-", last, size, "open"))

	exchange := t.TempDir()
	if err := os.WriteFile(filepath.Join(exchange, "java"), []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	goTest(t, cluster, exchange, "TestForeignLedgers")
	for _, of := range live {
		protocol, id, _ := strings.Cut(of, " ")
		const fencedException = "-101 "
		if got := writers[protocol].refused("add", id, 1, size); !strings.Contains(got, fencedException) {
			t.Errorf("ledger %s was recovered, and its writer over %s is refused with %s", id, protocol, got)
		}
	}

	ours, err := os.ReadFile(filepath.Join(exchange, "go"))
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for line := range strings.Lines(string(ours)) {
		f := strings.Fields(line)
		id, digest, password, wantLast, state := f[0], f[1], f[2], f[3], f[5]
		number, err := strconv.Atoi(digest)
		if err != nil {
			t.Fatal(err)
		}
		name := digests[number-1]
		for protocol, reader := range writers {
			how := "look"
			if state == "open" {
				how = "recover" // the second of the two finds it closed
			}
			if got := reader.do("open", id, name, password, how); got != wantLast+" 20000" {
				t.Errorf("%s, read by Java over %s: last entry and length %s, want %s 20000", strings.TrimSpace(line), protocol, got, wantLast)
				continue
			}
			if got, want := reader.do("read", id, 0, wantLast), sumOf(20, 1000); got != want {
				t.Errorf("%s, read by Java over %s: %s, want %s", strings.TrimSpace(line), protocol, got, want)
			}
			read++
		}
	}
	if want := len(writers) * 2 * 2 * len(digests); read != want {
		t.Errorf("the Java client read %d times, want %d", read, want)
	}
	first := strings.Fields(string(ours))[0]
	out, err := cluster.Shell(step(t), "readledger", "-ledgerid", first)
	if err != nil || strings.Count(out, "Lid="+first+",") != 20 {
		t.Errorf("readledger of ledger %s: %v, want 20 entries in\n%s", first, err, out)
	}
}

// sumOf is what the Java client says of count entries of n bytes.
func sumOf(count, n int) string {
	sum := sha256.New()
	for e := range count {
		sum.Write(bytes.Repeat([]byte{byte(e % 251)}, n))
	}
	return fmt.Sprintf("%x %d", sum.Sum(nil), count*n)
}
