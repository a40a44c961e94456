//go:build bookies

package bookkeeper_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/quirelog/quire/storage/bookkeeper"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/etcd"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
)

// The tests of this file need real bookies: the conformance suite starts them and
// builds these with the tag bookies, and nothing else does.
const (
	// bookiesEnv names the etcd endpoints of a cluster of at least three bookies
	// that hold no ledgers of value.
	bookiesEnv = "QUIRE_BOOKIES"
	// exchangeEnv names a folder. Its file "java" describes ledgers that the Java
	// client wrote, one a line; TestForeignLedgers writes such a file, "go", of
	// its own.
	exchangeEnv = "QUIRE_BOOKIES_EXCHANGE"
)

// realBookies returns how to open a tier on the cluster, with a client of etcd of
// its own as another process would have.
func realBookies(t testing.TB) func(bookkeeper.Config) *bookkeeper.Tier {
	t.Helper()
	endpoints := os.Getenv(bookiesEnv)
	if endpoints == "" {
		t.Fatal(bookiesEnv + " names no cluster of real bookies")
	}
	return func(c bookkeeper.Config) *bookkeeper.Tier {
		t.Helper()
		client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(endpoints, ","), DialTimeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		c.Store = etcd.New(etcd.Config{Client: client})
		tier, err := bookkeeper.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return tier
	}
}

// TestRealBookies is the suite of all tiers.
func TestRealBookies(t *testing.T) {
	open := realBookies(t)
	ledgertest.Run(t, func(t *testing.T) ledgertest.Factory {
		deleteAll(t, open(bookkeeper.Config{}))
		tier := func() (ledger.Tier, error) { return open(bookkeeper.Config{}), nil }
		return ledgertest.Factory{Open: tier, Peer: tier}
	})
}

func deleteAll(t *testing.T, tier *bookkeeper.Tier) {
	t.Helper()
	ctx := t.Context()
	var ids []ledger.ID
	if err := tier.List(ctx, func(i ledger.Info) bool { ids = append(ids, i.ID); return true }); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if err := tier.Delete(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if err := tier.Close(); err != nil {
		t.Fatal(err)
	}
}

// A foreign ledger, as a line of the file "java" or "go" says.
type foreign struct {
	id       ledger.ID
	digest   metadata.Digest
	password string // "-" if empty
	last     int64
	bytes    int // of an entry
	state    string
}

const foreignForm = "%d %d %s %d %d %s"

func (f foreign) String() string {
	return fmt.Sprintf(foreignForm, f.id, int(f.digest), f.password, f.last, f.bytes, f.state)
}

// payload is what both languages write: entry e of n bytes is n times e modulo 251.
func payload(entry int64, n int) []byte { return bytes.Repeat([]byte{byte(entry % 251)}, n) }

// Ledgers of the Java client are read, recovered and fenced here, and ours are
// left behind for it: sealed ones, and one that its writer deserted.
func TestForeignLedgers(t *testing.T) {
	open := realBookies(t)
	exchange := os.Getenv(exchangeEnv)
	file, err := os.Open(filepath.Join(exchange, "java"))
	if err != nil {
		t.Fatalf("%s: %v", exchangeEnv, err)
	}
	defer file.Close()
	tier := open(bookkeeper.Config{})
	read := 0
	for lines := bufio.NewScanner(file); lines.Scan(); read++ {
		var f foreign
		if _, err := fmt.Sscanf(lines.Text(), foreignForm, &f.id, &f.digest, &f.password, &f.last, &f.bytes, &f.state); err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		t.Run(fmt.Sprintf("%v-%s-%s", f.digest, f.password, f.state), func(t *testing.T) { readForeign(t, tier, f) })
	}
	if read == 0 {
		t.Error("no ledger of the Java client is listed")
	}
	if err := tier.Close(); err != nil {
		t.Error(err)
	}

	var ours []string
	for _, digest := range []metadata.Digest{metadata.CRC32, metadata.HMAC, metadata.CRC32C, metadata.Dummy} {
		for _, password := range []string{"-", "secret"} {
			for _, state := range []string{"closed", "open"} {
				ours = append(ours, writeForeign(t, open, foreign{digest: digest, password: password, last: 19, bytes: 1000, state: state}).String())
			}
		}
	}
	if err := os.WriteFile(filepath.Join(exchange, "go"), []byte(strings.Join(ours, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readForeign(t *testing.T, tier *bookkeeper.Tier, f foreign) {
	ctx := t.Context()
	openLedger := tier.Open
	if f.state != "closed" {
		openLedger = tier.Recover
	}
	reader, err := openLedger(ctx, f.id)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if last, sealed := reader.Last(); last != f.last || !sealed {
		t.Fatalf("last entry %d, sealed %t; want %d and sealed", last, sealed, f.last)
	}
	got, err := ledgertest.ReadAll(ctx, reader, 0, f.last, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range got {
		if !bytes.Equal(data, payload(int64(i), f.bytes)) {
			t.Fatalf("entry %d: %.20x… of %d bytes, want %.20x… of %d", i, data, len(data), payload(int64(i), f.bytes), f.bytes)
		}
	}
	if int64(len(got)) != f.last+1 {
		t.Fatalf("%d entries, want %d", len(got), f.last+1)
	}
}

func writeForeign(t *testing.T, open func(bookkeeper.Config) *bookkeeper.Tier, f foreign) foreign {
	t.Helper()
	c := bookkeeper.Config{Digest: f.digest}
	if f.password != "-" {
		c.Password = []byte(f.password)
	}
	tier := open(c)
	writer, err := tier.Create(t.Context(), ledger.Properties{"application": "go"})
	if err != nil {
		t.Fatal(err)
	}
	f.id = writer.ID()
	recorder := ledgertest.NewRecorder()
	for entry := range f.last + 1 {
		body := payload(entry, f.bytes)
		writer.Append(&ledger.Append{Head: body[:ledger.MaxHead], Body: body[ledger.MaxHead:], Done: recorder})
	}
	for _, o := range recorder.Wait(int(f.last + 1)) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	if f.state == "closed" {
		if _, err := writer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := tier.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}

// BenchmarkRealBookies keeps a window of appends going to one ledger, as the Java
// client's loop of the conformance suite does. Its names say ensemble size, write
// quorum and ack quorum, bytes of an entry, and the window.
func BenchmarkRealBookies(b *testing.B) {
	open := realBookies(b)
	for _, q := range [][3]int{{3, 3, 2}, {1, 1, 1}} {
		for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
			for _, window := range []int{1, 5, 40, 64, 256} {
				b.Run(fmt.Sprintf("%d-%d-%d/%d/%d", q[0], q[1], q[2], size, window), func(b *testing.B) {
					tier := open(bookkeeper.Config{Ensemble: q[0], WriteQuorum: q[1], AckQuorum: q[2]})
					addLoop(b, tier, size, window)
					if err := tier.Close(); err != nil {
						b.Fatal(err)
					}
				})
			}
		}
	}
}

// warmUp is left out of a benchmark.
const warmUp = 2 * time.Second

// An appendSlot is one place of a benchmark's window.
type appendSlot struct {
	ledger.Append
	loop *appendLoop
	sent time.Time
}

// Appended implements ledger.Completion.
func (s *appendSlot) Appended(_ *ledger.Append, err error) {
	l := s.loop
	l.took = append(l.took, time.Since(s.sent)) // a ledger's outcomes come one at a time
	if err != nil {
		l.failed.CompareAndSwap(nil, &err)
	}
	l.room <- s
}

type appendLoop struct {
	room   chan *appendSlot
	took   []time.Duration
	failed atomic.Pointer[error]
}

func (l *appendLoop) next(b *testing.B, writer ledger.Writer) {
	s := <-l.room
	if err := l.failed.Load(); err != nil {
		b.Fatal(*err)
	}
	s.sent = time.Now()
	writer.Append(&s.Append)
}

// drain takes all slots out of the window: nothing is under way any more.
func (l *appendLoop) drain() (slots []*appendSlot) {
	for range cap(l.room) {
		slots = append(slots, <-l.room)
	}
	return slots
}

func addLoop(b *testing.B, tier *bookkeeper.Tier, size, window int) {
	writer, err := tier.Create(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	body := payload(7, size)
	loop := &appendLoop{room: make(chan *appendSlot, window)}
	for range window {
		s := &appendSlot{loop: loop}
		s.Append = ledger.Append{Body: body, Done: s}
		loop.room <- s
	}
	for begun := time.Now(); time.Since(begun) < warmUp; {
		loop.next(b, writer)
	}
	slots := loop.drain()
	warm := len(loop.took)
	loop.took = loop.took[:0]
	for _, s := range slots {
		loop.room <- s
	}
	b.ReportAllocs()
	begun, before := time.Now(), processCPU(b)
	for b.Loop() {
		loop.next(b, writer)
	}
	loop.drain()
	took, cpu := time.Since(begun), processCPU(b)-before
	if err := loop.failed.Load(); err != nil {
		b.Fatal(*err)
	}
	if _, err := writer.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := tier.Delete(b.Context(), writer.ID()); err != nil {
		b.Fatal(err)
	}
	slices.Sort(loop.took)
	n := len(loop.took)
	b.ReportMetric(float64(n)/took.Seconds(), "adds/s")
	b.ReportMetric(float64(loop.took[n/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(loop.took[n*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(cpu.Seconds()/(float64(n)*float64(size)/1e9), "CPU-s/GB")
	b.ReportMetric(float64(warm+n)*float64(size)/1e9, "GB")
}

// BenchmarkRealBookiesRecovery opens a ledger of 100,000 entries that its writer
// deserted with a full window under way.
func BenchmarkRealBookiesRecovery(b *testing.B) {
	open := realBookies(b)
	const entries, size, window = 100_000, 1 << 10, 256
	var took []time.Duration
	for b.Loop() {
		b.StopTimer()
		deserted, next := open(bookkeeper.Config{}), open(bookkeeper.Config{})
		writer, err := deserted.Create(b.Context(), nil)
		if err != nil {
			b.Fatal(err)
		}
		body := payload(7, size)
		loop := &appendLoop{room: make(chan *appendSlot, window)}
		for range window {
			s := &appendSlot{loop: loop}
			s.Append = ledger.Append{Body: body, Done: s}
			loop.room <- s
		}
		for range entries {
			loop.next(b, writer)
		}
		acknowledged, _ := writer.Reader().Last()
		b.StartTimer()
		begun := time.Now()
		reader, err := next.Recover(b.Context(), writer.ID())
		took = append(took, time.Since(begun))
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		if last, sealed := reader.Last(); !sealed || last < acknowledged {
			b.Fatalf("recovered to entry %d, sealed %t; entry %d was acknowledged", last, sealed, acknowledged)
		}
		loop.drain()
		for _, close := range []func() error{
			reader.Close, deserted.Close, func() error { return next.Delete(b.Context(), writer.ID()) }, next.Close,
		} {
			if err := close(); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
	}
	b.ReportMetric(slices.Max(took).Seconds(), "recovery-s")
}

// processCPU is the user and system time of this process.
func processCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
