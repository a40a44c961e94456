package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// The model knows what clients were told and nothing of ledgers. Idempotent
// producers behave like real ones: five batches in flight, and after an error all that
// were not acknowledged are sent again, in order.
type model struct {
	w    *world
	conf *LogConfig

	acked     map[int64]string // by offset, as clients were told
	known     map[string]bool  // values ever sent
	producers []*modelProducer
	loose     []*modelBatch // of no idempotent producer
	n         int
	epoch     int32
	start     int64
	held      bool
}

type modelProducer struct {
	id    int64
	next  int32
	queue []*modelBatch // not acknowledged, in order
	done  []string
}

type modelBatch struct {
	value string
	seq   int32
	r     *result // nil: has to be sent
	log   *Log    // it was sent to
}

type checker interface {
	Fatalf(format string, args ...any)
}

func newModel(t testing.TB, change ...func(*StoreConfig)) *model {
	m := &model{w: newWorld(t, change...), conf: plain(), acked: make(map[int64]string), known: make(map[string]bool)}
	m.conf.SegmentBytes = 1500
	for i := range 3 {
		// One begins just before its sequence numbers wrap.
		m.producers = append(m.producers, &modelProducer{id: int64(i), next: []int32{0, 0, math.MaxInt32 - 3}[i]})
	}
	return m
}

func (m *model) log() *Log {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	announced := m.w.store.Epoch(testLog)
	l, err := m.w.store.OpenLog(ctx, testLog, m.conf)
	if err != nil {
		return nil
	}
	if l.Epoch() < announced || l.Epoch() < m.epoch {
		panic(fmt.Sprintf("epoch %d after %d was announced and %d was seen", l.Epoch(), announced, m.epoch))
	}
	m.epoch = l.Epoch()
	return l
}

func (m *model) settle() {
	if m.held {
		return
	}
	if l := m.w.store.Log(testLog); l != nil {
		m.w.settled(l)
	}
}

func (m *model) value() string {
	m.n++
	v := fmt.Sprintf("v%d", m.n)
	m.known[v] = true
	return v
}

func (m *model) sendLoose() {
	if l := m.log(); l != nil {
		b := &modelBatch{value: m.value()}
		b.r = send(l, makeBatch(batch.Plain, m.w.clock.Load(), 2, b.value))
		m.loose = append(m.loose, b)
	}
}

func (m *model) sendIdempotent(p *modelProducer) {
	l := m.log()
	if l == nil {
		return
	}
	for _, b := range p.queue {
		// Of a producer that nothing is known of any sequence is taken, so what
		// follows a batch goes to another leader only when its fate is known.
		if b.r != nil && !b.r.decided() && b.log != l {
			return
		}
	}
	if len(p.queue) < batchesKept {
		p.queue = append(p.queue, &modelBatch{value: m.value(), seq: p.next})
		p.next = int32((int64(p.next) + 2) & math.MaxInt32)
	}
	// After an error nothing is sent before everything in flight is decided.
	for _, b := range p.queue {
		if b.r != nil && b.r.decided() && b.r.Err != nil {
			for _, b := range p.queue {
				if b.r != nil && !b.r.decided() {
					return
				}
			}
			for _, b := range p.queue {
				if b.r.retriable() {
					b.r = nil
				}
			}
			break
		}
	}
	for _, b := range p.queue {
		if b.r == nil {
			b.log = l
			b.r = send(l, makeBatch(idempotent(p.id, 0, b.seq), m.w.clock.Load(), 2, b.value))
		}
	}
}

func (r *result) retriable() bool { return r != nil && r.Err != nil }

// collect hears what is decided.
func (m *model) collect(t checker) {
	var rest []*modelBatch
	for _, b := range m.loose {
		switch {
		case !b.r.decided():
			rest = append(rest, b)
		case b.r.Err == nil:
			m.ack(t, b)
		default:
			m.checkErr(t, b.r.Err)
		}
	}
	m.loose = rest
	for _, p := range m.producers {
		for len(p.queue) > 0 && p.queue[0].r != nil && p.queue[0].r.decided() && p.queue[0].r.Err == nil {
			m.ack(t, p.queue[0])
			p.done = append(p.done, p.queue[0].value)
			p.queue = p.queue[1:]
		}
		failed := false
		for _, b := range p.queue {
			if b.r == nil {
				continue
			}
			if !b.r.decided() {
				// Perhaps it has failed and tells so in a moment: what is behind it is
				// judged when that is known.
				break
			}
			if b.r.Err == nil {
				continue // the one before it may be stored though it failed
			}
			if errors.Is(b.r.Err, ErrOutOfSequence) && failed {
				continue // the one before it was refused
			}
			m.checkErr(t, b.r.Err)
			failed = true
		}
	}
}

func (m *model) checkErr(t checker, err error) {
	for _, ok := range []error{ErrNoSpace, ErrStorage, ErrClosed, ErrLostOwnership} {
		if errors.Is(err, ok) {
			return
		}
	}
	t.Fatalf("an append failed: %v", err)
}

func (m *model) ack(t checker, b *modelBatch) {
	for i := range int64(2) {
		at, v := b.r.BaseOffset+i, fmt.Sprintf("%s-%d", b.value, i)
		if old, ok := m.acked[at]; ok && old != v {
			t.Fatalf("offset %d was given to %s and to %s", at, old, v)
		}
		m.acked[at] = v
	}
}

// check reads the whole log and compares.
func (m *model) check(t checker) {
	l := m.log()
	if l == nil {
		return
	}
	start, _, hw := l.Offsets()
	if start < m.start {
		t.Fatalf("the log starts at %d, it was %d", start, m.start)
	}
	m.start = start
	for at := range m.acked {
		if at >= hw {
			t.Fatalf("offset %d was acknowledged, the high watermark is %d", at, hw)
		}
	}
	all, err := tryValues(m.w.t, l, start, ReadUncommitted)
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.closed == nil {
			t.Fatalf("%v", err)
		}
		return // it failed meanwhile
	}
	seen := make(map[string]int64)
	for i, v := range all {
		at := start + int64(i)
		if want, ok := m.acked[at]; ok && want != v {
			t.Fatalf("offset %d holds %s, acknowledged was %s", at, v, want)
		}
		if !m.known[v[:strings.IndexByte(v, '-')]] {
			t.Fatalf("offset %d holds %s, which nobody sent", at, v)
		}
		if first, ok := seen[v]; ok {
			t.Fatalf("%s lies at %d and at %d", v, first, at)
		}
		seen[v] = at
	}
	for at, v := range m.acked {
		if at >= start && seen[v] != at {
			t.Fatalf("%s was acknowledged at %d and is lost", v, at)
		}
	}
	for _, p := range m.producers {
		last := int64(-1)
		for _, v := range p.done {
			if at, ok := seen[v+"-0"]; ok {
				if at < last {
					t.Fatalf("producer %d: %s lies at %d, before what it sent earlier", p.id, v, at)
				}
				last = at
			}
		}
	}
}

// heal ends all faults and brings every producer to its end.
func (m *model) heal(t checker) {
	m.w.meta.set(nil, nil)
	m.w.tier.setFault(nil)
	m.w.tier.setNoSpace(false)
	m.w.tier.hold(false)
	m.held = false
	deadline := time.Now().Add(time.Minute)
	for {
		m.w.advance(2 * retryPause)
		m.collect(t)
		busy := len(m.loose) > 0
		for _, p := range m.producers {
			if len(p.queue) > 0 {
				busy = true
				m.resend(p)
			}
		}
		if !busy {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log does not heal")
		}
		m.settle()
	}
}

func (m *model) resend(p *modelProducer) {
	for _, b := range p.queue {
		if b.r != nil && !b.r.decided() {
			return
		}
	}
	l := m.log()
	if l == nil {
		return
	}
	for _, b := range p.queue {
		if b.r == nil || b.r.Err != nil {
			b.log = l
			b.r = send(l, makeBatch(idempotent(p.id, 0, b.seq), m.w.clock.Load(), 2, b.value))
		}
	}
}

// actions are what may happen to a log.
func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": func(t *rapid.T) {
			m.settle()
			m.collect(t)
		},
		"send": func(t *rapid.T) {
			for range rapid.IntRange(1, 6).Draw(t, "n") {
				m.sendLoose()
			}
		},
		"send idempotent": func(t *rapid.T) {
			p := m.producers[rapid.IntRange(0, len(m.producers)-1).Draw(t, "producer")]
			for range rapid.IntRange(1, 6).Draw(t, "n") {
				m.sendIdempotent(p)
			}
		},
		"check": func(t *rapid.T) { m.check(t) },
		"hold": func(*rapid.T) {
			m.held = true
			m.w.tier.hold(true)
		},
		"step": func(t *rapid.T) {
			for range rapid.IntRange(1, 8).Draw(t, "n") {
				m.w.tier.step()
			}
		},
		"release": func(*rapid.T) {
			m.held = false
			m.w.tier.hold(false)
		},
		"no space": func(t *rapid.T) {
			m.w.tier.setNoSpace(rapid.Bool().Draw(t, "full"))
		},
		"fail": func(t *rapid.T) {
			op := rapid.SampledFrom([]string{"", "", "create", "close", "append", "delete"}).Draw(t, "op")
			err := ledger.ErrFailed
			m.w.tier.setFault(func(o string, _ ledger.ID) error {
				if o == op {
					return err
				}
				return nil
			})
		},
		"meta": func(t *rapid.T) {
			switch rapid.IntRange(0, 3).Draw(t, "fault") {
			case 1:
				m.w.meta.set(func(op, key string) error { return meta.ErrUnavailable }, nil)
			case 2:
				m.w.meta.set(nil, func(string) error { return meta.ErrUnknownOutcome })
			case 3:
				var left atomic.Int32
				left.Store(int32(rapid.IntRange(0, 4).Draw(t, "after")))
				m.w.meta.set(func(string, string) error {
					if left.Add(-1) < 0 {
						return meta.ErrUnavailable
					}
					return nil
				}, func(string) error { return meta.ErrUnknownOutcome })
			default:
				m.w.meta.set(nil, nil)
			}
		},
		"advance": func(t *rapid.T) {
			m.w.advance(time.Duration(rapid.IntRange(1, 7200).Draw(t, "seconds")) * time.Second)
			m.w.store.sweep(time.UnixMilli(m.w.clock.Load()), true)
		},
		"delete records": func(t *rapid.T) {
			if l := m.log(); l != nil {
				start, _, hw := l.Offsets()
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				if m.held {
					return // the worker may hold the chain until it is answered
				}
				_, _ = l.DeleteRecords(ctx, rapid.Int64Range(start, hw).Draw(t, "offset"))
			}
		},
		"crash": func(t *rapid.T) {
			m.w.crash(func(n int) int { return rapid.IntRange(0, n).Draw(t, "kept") })
			m.held = false
		},
		"reopen": func(*rapid.T) {
			if m.held {
				return
			}
			m.w.close()
			m.w.meta.set(nil, nil)
			m.w.open()
		},
		"hand over": func(t *rapid.T) {
			// Another node gets the log in order, on the same tier.
			if m.held {
				return
			}
			old := m.w.store
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := old.ReleaseSlot(ctx, 0); err != nil {
				t.Fatalf("release: %v", err)
			}
			if old.Log(testLog) != nil {
				t.Fatalf("the log is open after its release")
			}
			if !m.w.tryOpen() {
				return
			}
			m.log()
			_ = old.Close(ctx)
		},
		"janitor": func(*rapid.T) { m.w.removeOrphans() },
		"steal": func(*rapid.T) {
			// Another node opens the log, on the same tier.
			if m.held {
				return
			}
			old := m.w.store
			if !m.w.tryOpen() {
				return
			}
			m.log()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = old.Close(ctx)
		},
	}
}

func testModel(t *testing.T, change ...func(*StoreConfig)) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newModel(t, change...)
		rt.Repeat(m.actions())
		m.heal(rt)
		m.check(rt)
		m.w.crash(func(int) int { return 0 })
		m.check(rt)
		m.w.close()
		m.w.tier.Close()
	})
}

func TestModel(t *testing.T) {
	testModel(t, func(c *StoreConfig) { c.SnapshotEveryBytes = 600; c.TailCacheBytes = 2 << 10 })
}
