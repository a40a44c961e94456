package storage

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// fill appends n batches, each in a ledger of its own.
func (w *world) fill(l *Log, n int) {
	w.t.Helper()
	for range n {
		w.advance(time.Second)
		put(w.t, l, makeBatch(batch.Plain, w.clock.Load(), 2, "v"))
		w.settled(l)
	}
}

func (w *world) retain(l *Log, change func(*LogConfig)) {
	w.t.Helper()
	c := *l.config.Load()
	change(&c)
	l.SetConfig(&c)
	w.store.sweep(time.UnixMilli(w.clock.Load()), true)
	w.settled(l)
}

func tiny() *LogConfig {
	c := plain()
	c.SegmentBytes = 90 // a batch is larger than what a ledger is to hold
	c.MaxMessageBytes = 0
	return c
}

func TestRetention(t *testing.T) {
	size := int64(len(makeBatch(batch.Plain, 1, 2, "v"))) + headBytes
	for _, c := range []struct {
		name   string
		change func(*LogConfig)
		start  int64
	}{
		{"none", func(*LogConfig) {}, 0},
		{"by time", func(c *LogConfig) { c.RetentionAge = 4 * time.Second }, 12},
		{"by time, all: the ledger in use goes too", func(c *LogConfig) { c.RetentionAge = 0 }, 20},
		{"by bytes", func(c *LogConfig) { c.RetentionBytes = 8 * size }, -1},
		{"by bytes, all", func(c *LogConfig) { c.RetentionBytes = 0 }, 20},
		{"compact only", func(c *LogConfig) { c.Delete, c.RetentionAge = false, 0 }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			conf := tiny()
			conf.SegmentBytes = size
			conf.MaxMessageBytes = 1 << 20
			l := w.log(conf)
			w.fill(l, 10)
			w.advance(2 * time.Millisecond) // a batch's last record is 1 ms younger than its first
			woken := make(chan struct{}, 1)
			l.Wait(&Waiter{Wake: func() { woken <- struct{}{} }})
			w.retain(l, c.change)
			start, _, hw := l.Offsets()
			if hw != 20 || c.start >= 0 && start != c.start {
				t.Fatalf("[%d, %d), want [%d, 20)", start, hw, c.start)
			}
			if c.start < 0 && (start == 0 || l.Size() < 8*size || l.Size() > 12*size) {
				t.Fatalf("[%d, %d) of %d bytes", start, hw, l.Size())
			}
			if start > 0 {
				await(t, woken)
				if r := read(l, Read{Offset: start - 1, MaxBytes: 100}); !errors.Is(r.Err, ErrOffsetOutOfRange) {
					t.Fatalf("below the start: %v", r.Err)
				}
			}
			if got := values(t, l, start, ReadUncommitted); len(got) != int(hw-start) {
				t.Fatalf("%d records in [%d, %d)", len(got), start, hw)
			}
			w.checkLinks()
			// Offsets go on where they were, over a crash too.
			w.crash(func(n int) int { return n })
			l = w.log(conf)
			if s, _, h := l.Offsets(); s != start || h != hw {
				t.Fatalf("after a crash [%d, %d), before [%d, %d)", s, h, start, hw)
			}
			if at := put(t, l, makeBatch(batch.Plain, 1, 1, "v")); at != 20 {
				t.Fatalf("offset %d", at)
			}
		})
	}
}

// TestRecordsWithoutTimestamp: they age from the time when they were appended.
func TestRecordsWithoutTimestamp(t *testing.T) {
	w := newWorld(t)
	l := w.log(tiny())
	l.SetConfig(plain())
	put(t, l, makeBatch(batch.Plain, -1, 1, "v"))
	w.advance(time.Minute)
	w.retain(l, func(c *LogConfig) { c.RetentionAge = time.Hour })
	if start, _, _ := l.Offsets(); start != 0 {
		t.Fatalf("start %d after a minute", start)
	}
	w.advance(2 * time.Hour)
	w.retain(l, func(*LogConfig) {}) // closes the idle ledger
	w.retain(l, func(*LogConfig) {})
	if start, _, _ := l.Offsets(); start != 1 {
		t.Fatalf("start %d after two hours", start)
	}
}

func TestDeleteRecords(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t)
	c := tiny()
	c.SegmentBytes, c.MaxMessageBytes = 130, 1<<20
	l := w.log(c)
	w.fill(l, 6)
	ledgers := len(w.tier.ids())
	for _, s := range []struct{ ask, start int64 }{{0, 0}, {3, 3}, {2, 3}, {9, 9}} {
		if got, err := l.DeleteRecords(ctx, s.ask); err != nil || got != s.start {
			t.Fatalf("up to %d: %d, %v", s.ask, got, err)
		}
	}
	w.settled(l)
	if n := len(w.tier.ids()); n >= ledgers {
		t.Fatalf("%d of %d ledgers are left", n, ledgers)
	}
	// The start may lie within a batch, which is still returned whole.
	r := read(l, Read{Offset: 9, MaxBytes: 1 << 20})
	if r.Err != nil || batch.Batch(r.Records[0]).BaseOffset() != 8 || r.LogStartOffset != 9 {
		t.Fatalf("%+v", r)
	}
	for _, at := range []int64{13, -2} {
		_, err := l.DeleteRecords(ctx, at)
		wantErr(t, err, ErrOffsetOutOfRange)
	}
	keep := *c
	keep.Delete, keep.Compact = false, true
	l.SetConfig(&keep)
	_, err := l.DeleteRecords(ctx, 10)
	wantErr(t, err, ErrPolicy)
	l.SetConfig(c)
	if got, err := l.DeleteRecords(ctx, -1); err != nil || got != 12 {
		t.Fatalf("up to the high watermark: %d, %v", got, err)
	}
	w.settled(l)
	w.checkLinks()
	w.crash(func(n int) int { return n })
	if start, _, hw := w.log(c).Offsets(); start != 12 || hw != 12 {
		t.Fatalf("[%d, %d)", start, hw)
	}
}

// TestJanitorTouchesNothingElse: ledgers of others and linked ones stay, whatever time they
// claim to be from.
func TestJanitorTouchesNothingElse(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.ClusterID = "this" })
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "v"))
	props := func(change func(ledger.Properties)) {
		p := ledger.Properties{propApplication: application, propCluster: w.conf.Prefix, propClusterID: "this", propLog: logName(testLog), propEpoch: "0", propCreated: "5"}
		change(p)
		if _, err := w.tier.Create(context.Background(), p); err != nil {
			t.Fatal(err)
		}
	}
	// 8 lies in a page, which the listing of chains does not show.
	paged := LogID{Topic: [16]byte{9}, Partition: 1}
	c := &chain{pages: []page{{links: 1}}, nextPage: 1, links: []link{{id: 8, sealed: true}}}
	if _, _, err := w.meta.Txn(context.Background(), nil, []meta.Op{
		meta.Put(w.store.pageKey(paged, 0), appendLinks(nil, c.links)), meta.Put(w.store.chainKey(paged), c.encode()),
	}); err != nil {
		t.Fatal(err)
	}
	props(func(p ledger.Properties) {})                                    // 2: the orphan
	props(func(p ledger.Properties) { p[propApplication] = "pulsar" })     // 3
	props(func(p ledger.Properties) { p[propCluster] = "quire/other/" })   // 4
	props(func(p ledger.Properties) { p[propLog] = "nonsense" })           // 5
	props(func(p ledger.Properties) { delete(p, propCreated) })            // 6
	props(func(p ledger.Properties) { p[propCreated] = "99999999999999" }) // 7: an orphan of a clock that is ahead
	props(func(p ledger.Properties) { p[propLog] = logName(paged) })
	// A log of a cluster of the same name, whose chains are in another metadata store.
	props(func(p ledger.Properties) {
		p[propClusterID], p[propLog] = "another", logName(LogID{Topic: [16]byte{8}})
	}) // 9
	props(func(p ledger.Properties) { delete(p, propClusterID) }) // 10: nobody knows whose
	w.removeOrphans()
	want := []ledger.ID{1, 3, 4, 5, 6, 8, 9, 10}
	got := w.tier.ids()
	if len(got) != len(want) {
		t.Fatalf("ledgers %v are left, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("ledgers %v are left, want %v", got, want)
		}
	}
}

func TestStore(t *testing.T) {
	ctx := context.Background()
	registry := prometheus.NewRegistry()
	w := newWorld(t, func(c *StoreConfig) { c.Registerer = registry })
	if _, err := Open(ctx, StoreConfig{}); err == nil {
		t.Fatal("a store without a tier opens")
	}
	a, b := testLog, LogID{Topic: testLog.Topic, Partition: 9}
	if w.store.Log(a) != nil || w.store.Epoch(a) != 0 {
		t.Fatal("a log that nobody opened")
	}
	l := w.log(plain())
	if again := w.log(plain()); again != l {
		t.Fatal("a log was opened twice")
	}
	put(t, l, makeBatch(batch.Plain, 1, 1, "v"))
	if _, err := w.store.OpenLog(ctx, b, plain()); err != nil {
		t.Fatal(err)
	}
	gather := func() (series int, openLogs float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			series += len(f.GetMetric())
			if f.GetName() == "quire_open_logs" {
				openLogs = f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		return series, openLogs
	}
	if series, open := gather(); series != 7 || open != 2 {
		t.Fatalf("%d series, %v logs are open", series, open)
	}
	if err := w.store.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if series, _ := gather(); series != 0 {
		t.Fatalf("%d series after Close", series)
	}
	wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "v")).wait(t).Err, ErrClosed)
	_, err := w.store.OpenLog(ctx, a, plain())
	wantErr(t, err, ErrClosed)
	if err := w.store.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, k := range w.linkedLedgers() {
		if !w.tier.ledgers[k].sealed {
			t.Fatalf("ledger %d was not sealed", k)
		}
	}
	w.open()
	var unopened []LogID
	w.store.Unopened(func(id LogID) bool {
		unopened = append(unopened, id)
		return true
	})
	if len(unopened) != 1 || unopened[0] != a {
		t.Fatalf("%v are not open", unopened)
	}
	if w.store.Epoch(a) != 1 || w.store.Epoch(b) != 0 {
		t.Fatalf("epochs %d and %d are announced", w.store.Epoch(a), w.store.Epoch(b))
	}
}

// TestCloseGivesUp: Close ends when its context does, whatever the tier does.
func TestCloseGivesUp(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.tier.hold(true)
	r := send(l, makeBatch(batch.Plain, 1, 1, "b"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantErr(t, w.store.Close(ctx), context.Canceled)
	w.tier.hold(false)
	r.wait(t)
	w.open()
	if got := values(t, w.log(plain()), 0, ReadUncommitted); len(got) != 2 {
		t.Fatalf("%q", got)
	}
}

func TestOpenLogTogether(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "v"))
	w.close()
	w.open()
	gate := make(chan struct{})
	w.meta.set(func(op, _ string) error {
		if op == "txn" {
			<-gate
		}
		return nil
	}, nil)
	opened := make(chan *Log, 8)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		l, _ := w.store.OpenLog(ctx, testLog, plain())
		opened <- l
	}()
	for range 7 {
		go func() {
			l, err := w.store.OpenLog(context.Background(), testLog, plain())
			if err != nil {
				t.Error(err)
			}
			opened <- l
		}()
	}
	cancel()
	close(gate)
	var first *Log
	for range 8 {
		if l := <-opened; l != nil {
			if first != nil && l != first {
				t.Error("two logs were opened")
			}
			first = l
		}
	}
	if first == nil || w.store.Log(testLog) != first {
		t.Fatal("no log is open")
	}
}
