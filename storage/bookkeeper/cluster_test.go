package bookkeeper

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/bookie"
	"github.com/quirelog/quire/storage/bookkeeper/bookietest"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/mem"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is a metadata store and bookies, all in this process.
type cluster struct {
	t       testing.TB
	store   *mem.Store
	bookies map[metadata.BookieID]*bookietest.Bookie
	ids     []metadata.BookieID
}

// testFrameBytes leaves room for the suite's largest entry.
const testFrameBytes = 8 << 20

func newCluster(t testing.TB, n int) *cluster {
	c := &cluster{t: t, store: mem.New("cluster"), bookies: make(map[metadata.BookieID]*bookietest.Bookie)}
	before := buffer.InUseBytes()
	t.Cleanup(func() {
		if !t.Failed() && buffer.InUseBytes() != before {
			t.Errorf("%d bytes of buffers are held after the test, %d before", buffer.InUseBytes(), before)
		}
	})
	for range n {
		c.add(bookietest.Config{MaxFrameBytes: testFrameBytes})
	}
	return c
}

// add starts one more bookie.
func (c *cluster) add(config bookietest.Config) metadata.BookieID {
	c.t.Helper()
	b, err := bookietest.Listen(config)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(b.Close)
	id := metadata.BookieID(b.Address())
	c.bookies[id] = b
	c.ids = append(c.ids, id)
	c.register(id)
	return id
}

func (c *cluster) register(id metadata.BookieID) {
	host, port, err := net.SplitHostPort(string(id))
	if err != nil {
		c.t.Fatal(err)
	}
	n, _ := strconv.Atoi(port)
	c.store.RegisterAddr(id, host, n)
}

// logger writes to the test.
func logger(t testing.TB) *zap.Logger {
	return zaptest.NewLogger(t, zaptest.Level(zapcore.WarnLevel))
}

// open opens a tier that the test need not close.
func (c *cluster) open(change func(*Config)) *Tier {
	c.t.Helper()
	config := Config{Store: c.store, MaxFrameBytes: testFrameBytes, JanitorInterval: -1, AddTimeout: 20 * time.Second, StallAfter: 20 * time.Second, ReadTimeout: 20 * time.Second, connectGrace: -1, storeDelay: time.Hour, Logger: logger(c.t)}
	if change != nil {
		change(&config)
	}
	tier, err := Open(c.t.Context(), config)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.ok(tier.Close()) })
	return tier
}

func (c *cluster) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) create(tier *Tier) *writer {
	c.t.Helper()
	w, err := tier.Create(c.t.Context(), nil)
	c.ok(err)
	return w.(*writer)
}

// body is the i-th entry of a test's ledger.
func body(i int) []byte { return fmt.Appendf(nil, "entry %d of a ledger", i) }

// append appends entries n to n+count and waits for all outcomes.
func (c *cluster) append(w ledger.Writer, n, count int) []ledgertest.Outcome {
	c.t.Helper()
	rec := ledgertest.NewRecorder()
	for i := n; i < n+count; i++ {
		w.Append(&ledger.Append{Body: body(i), Done: rec})
	}
	return rec.Wait(count)
}

// acknowledged appends entries that must all be acknowledged.
func (c *cluster) acknowledged(w ledger.Writer, n, count int) {
	c.t.Helper()
	for i, o := range c.append(w, n, count) {
		if o.Err != nil || o.Entry != int64(n+i) {
			c.t.Fatalf("append %d became entry %d, error %v", n+i, o.Entry, o.Err)
		}
	}
}

// reads reads entries 0 to count of r one way and another.
func (c *cluster) reads(r ledger.Reader, count int) {
	c.t.Helper()
	for _, maxBytes := range []int{1, 100, 1 << 20} {
		all, err := ledgertest.ReadAll(c.t.Context(), r, 0, int64(count)-1, maxBytes)
		c.ok(err)
		if len(all) != count {
			c.t.Fatalf("read %d entries, want %d", len(all), count)
		}
		for i := range all {
			if !bytes.Equal(all[i], body(i)) {
				c.t.Fatalf("entry %d is %q", i, all[i])
			}
		}
	}
}

// recovered recovers a ledger and checks that it has count entries.
func (c *cluster) recovered(tier *Tier, id ledger.ID, count int) {
	c.t.Helper()
	r, err := tier.Recover(c.t.Context(), id)
	c.ok(err)
	if last, sealed := r.Last(); last != int64(count)-1 || !sealed {
		c.t.Fatalf("recovered up to %d, sealed %v, want %d", last, sealed, count-1)
	}
	c.reads(r, count)
	c.ok(r.Close())
}

// await waits until f says yes; it fails the test if that never comes.
func (c *cluster) await(what string, f func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for !f() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			c.t.Fatalf("%s: never", what)
		}
	}
}

func TestSuite(t *testing.T) {
	for _, q := range []struct{ bookies, ensemble, write, ack int }{{3, 3, 3, 2}, {1, 1, 1, 1}, {4, 4, 2, 2}} {
		t.Run(fmt.Sprintf("%d-%d-%d of %d", q.ensemble, q.write, q.ack, q.bookies), func(t *testing.T) {
			ledgertest.Run(t, func(t *testing.T) ledgertest.Factory {
				c := newCluster(t, q.bookies)
				open := func() (ledger.Tier, error) {
					return c.open(func(config *Config) {
						config.Ensemble, config.WriteQuorum, config.AckQuorum = q.ensemble, q.write, q.ack
					}), nil
				}
				return ledgertest.Factory{Open: open, Peer: open}
			})
		})
	}
}

// failing returns a fault of the metadata store: op fails with err until the
// channel is closed, and says each time that it was tried.
func failing(until <-chan struct{}, tried chan<- struct{}, op mem.Op, err error) func(context.Context, mem.Op, int64) error {
	return func(_ context.Context, got mem.Op, id int64) error {
		if got != op {
			return nil
		}
		select {
		case <-until:
			return nil
		default:
		}
		select {
		case tried <- struct{}{}:
		default:
		}
		return fmt.Errorf("ledger %d: %w", id, err)
	}
}

// copyEntry copies an entry to the first bookie of its segment, as a replication
// worker does.
func (c *cluster) copyEntry(tier *Tier, l *metadata.Ledger, entry int64) {
	c.t.Helper()
	codec, err := wire.NewCodec(l.ID, l.Digest, l.Password)
	c.ok(err)
	p := bookie.NewPacket(codec, wire.RecoveryAdd, entry, entry-1, 1000*(entry+1), nil, body(int(entry)), nil)
	defer p.Release()
	done := make(added, 1)
	c.ok(tier.members.get(l.EnsembleAt(entry).Bookies[0]).client.Add(p, 0, done, 0))
	c.ok(<-done)
}

// added implements bookie.AddHandler.
type added chan error

func (a added) Added(_ metadata.BookieID, replies []bookie.AddReply) {
	for _, r := range replies {
		a <- r.Err
	}
}
