// Package ledgertest is the suite that every ledger tier passes. It holds a
// tier to the contract in package ledger, from the outside.
package ledgertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/ledger"
)

// Factory opens tiers over one store that is empty at first.
type Factory struct {
	// Open opens the store, the first time and again after Close or Crash.
	Open func() (ledger.Tier, error)
	// Peer opens a second tier on the store beside the one that is open, as
	// another process would; nil if only one at a time can be open, in which
	// case the suite recovers through the one that wrote.
	Peer func() (ledger.Tier, error)
	// Crash ends the open tier as the death of its process would, keeping what
	// it had made durable; nil if the tier cannot be crashed in a test.
	Crash func(ledger.Tier)
}

// patience bounds waits for what must happen; it fails a test, it never decides one.
const patience = 30 * time.Second

// Run runs the suite. makeFactory is called once per test.
func Run(t *testing.T, makeFactory func(t *testing.T) Factory) {
	for _, tc := range []struct {
		name string
		run  func(*suite)
	}{
		{"EmptyLedger", (*suite).emptyLedger},
		{"EntriesAreDenseAndInOrder", (*suite).dense},
		{"HeadAndBodyAreJoined", (*suite).headAndBody},
		{"EmptyAndBigEntries", (*suite).sizes},
		{"ReadBounds", (*suite).readBounds},
		{"ReadAtTheTailWhileAppending", (*suite).tailReads},
		{"ConcurrentAppendsOfManyLedgers", (*suite).concurrent},
		{"AppendedIsCalledInOrderAndNeverFromAppend", (*suite).callOrder},
		{"BuffersAreReleased", (*suite).buffers},
		{"CloseSeals", (*suite).closeSeals},
		{"RecoverKeepsTheAcknowledged", (*suite).recoverKeeps},
		{"RecoverFencesTheWriter", (*suite).fencing},
		{"RecoverTwice", (*suite).recoverTwice},
		{"RecoverOfSealedOnlyOpens", (*suite).recoverSealed},
		{"OpenLeavesTheWriterAlone", (*suite).openReader},
		{"Delete", (*suite).delete},
		{"List", (*suite).list},
		{"IDsAreNeverReused", (*suite).ids},
		{"ReopenAfterClose", (*suite).reopen},
		{"CrashKeepsTheAcknowledged", (*suite).crash},
		{"ClosedTier", (*suite).closedTier},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &suite{t: t, f: makeFactory(t)}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			s.ctx = ctx
			s.open()
			defer func() {
				if s.tier != nil {
					s.ok(s.tier.Close())
				}
			}()
			tc.run(s)
		})
	}
}

type suite struct {
	t    *testing.T
	ctx  context.Context
	f    Factory
	tier ledger.Tier
}

func (s *suite) ok(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *suite) is(err, want error) {
	s.t.Helper()
	if !errors.Is(err, want) {
		s.t.Fatalf("error is %v, want %v", err, want)
	}
}

func (s *suite) open() {
	s.t.Helper()
	tier, err := s.f.Open()
	s.ok(err)
	s.tier = tier
}

// peer returns the tier of another holder, and what ends it.
func (s *suite) peer() (ledger.Tier, func()) {
	s.t.Helper()
	if s.f.Peer == nil {
		return s.tier, func() {}
	}
	p, err := s.f.Peer()
	s.ok(err)
	return p, func() { s.ok(p.Close()) }
}

func (s *suite) create() ledger.Writer {
	s.t.Helper()
	w, err := s.tier.Create(s.ctx, nil)
	s.ok(err)
	return w
}

// Outcome is what became of an append.
type Outcome struct {
	Entry int64
	Err   error
	Body  []byte
}

// Recorder is a Completion that keeps the outcomes in the order they came.
type Recorder struct {
	mu   sync.Mutex
	cond sync.Cond
	got  []Outcome
}

// NewRecorder returns an empty recorder.
func NewRecorder() *Recorder {
	r := &Recorder{}
	r.cond.L = &r.mu
	return r
}

// Appended implements ledger.Completion.
func (r *Recorder) Appended(a *ledger.Append, err error) {
	r.mu.Lock()
	r.got = append(r.got, Outcome{a.Entry, err, append(bytes.Clone(a.Head), a.Body...)})
	r.cond.Broadcast()
	r.mu.Unlock()
}

// Outcomes returns what came so far.
func (r *Recorder) Outcomes() []Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[:len(r.got):len(r.got)]
}

// Wait waits until n outcomes came and returns all.
func (r *Recorder) Wait(n int) []Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.got) < n {
		r.cond.Wait()
	}
	return r.got[:len(r.got):len(r.got)]
}

// Entry returns the body that the suite gives to the i-th entry of a ledger:
// 0 to 300 bytes that only this entry has.
func Entry(id ledger.ID, i int) []byte {
	rng := rand.New(rand.NewPCG(uint64(id), uint64(i)))
	b := make([]byte, 16+rng.IntN(300))
	copy(b, fmt.Sprintf("%d/%d/", id, i))
	return b
}

// Append appends bodies n to n+count and waits for them to be acknowledged.
func (s *suite) append(w ledger.Writer, n, count int) {
	s.t.Helper()
	rec := NewRecorder()
	for i := n; i < n+count; i++ {
		w.Append(&ledger.Append{Body: Entry(w.ID(), i), Done: rec})
	}
	for i, o := range rec.Wait(count) {
		if o.Err != nil || o.Entry != int64(n+i) {
			s.t.Fatalf("append %d became entry %d, error %v", n+i, o.Entry, o.Err)
		}
	}
}

// ReadAll reads entries first to last, copying them.
func ReadAll(ctx context.Context, r ledger.Reader, first, last int64, maxBytes int) ([][]byte, error) {
	var all [][]byte
	for first <= last {
		e, err := r.Read(ctx, first, last, maxBytes)
		if err != nil {
			return all, err
		}
		if len(e.Data) == 0 {
			return all, fmt.Errorf("read from %d to %d of ledger %d returned nothing", first, last, r.ID())
		}
		if e.First != first {
			return all, fmt.Errorf("read from %d of ledger %d returned entry %d", first, r.ID(), e.First)
		}
		for _, d := range e.Data {
			all = append(all, bytes.Clone(d))
		}
		first += int64(len(e.Data))
		e.Release()
	}
	return all, nil
}

// check reads the ledger and compares it with the bodies 0 to count.
func (s *suite) check(r ledger.Reader, count int) {
	s.t.Helper()
	if last, _ := r.Last(); last != int64(count)-1 {
		s.t.Fatalf("last entry of ledger %d is %d, want %d", r.ID(), last, count-1)
	}
	for _, maxBytes := range []int{1, 1000, 1 << 20} {
		all, err := ReadAll(s.ctx, r, 0, int64(count)-1, maxBytes)
		s.ok(err)
		if len(all) != count {
			s.t.Fatalf("read %d entries of ledger %d, want %d", len(all), r.ID(), count)
		}
		for i, d := range all {
			if !bytes.Equal(d, Entry(r.ID(), i)) {
				s.t.Fatalf("entry %d of ledger %d has other bytes than were appended", i, r.ID())
			}
		}
	}
}

func (s *suite) emptyLedger() {
	w := s.create()
	if w.ID() <= 0 {
		s.t.Fatalf("ledger id is %d, must be positive", w.ID())
	}
	r := w.Reader()
	s.check(r, 0)
	e, err := r.Read(s.ctx, 0, 10, 100)
	s.ok(err)
	if len(e.Data) != 0 {
		s.t.Fatal("an empty ledger gave an entry")
	}
	e.Release()
	got, err := w.Close(s.ctx)
	s.ok(err)
	if want := (ledger.Sealed{ID: w.ID(), LastEntry: ledger.NoEntry}); got != want {
		s.t.Fatalf("sealed %+v, want %+v", got, want)
	}
	if last, sealed := r.Last(); last != ledger.NoEntry || !sealed {
		s.t.Fatalf("last is %d, sealed %v", last, sealed)
	}
	s.ok(r.Close())
}

func (s *suite) dense() {
	w := s.create()
	s.append(w, 0, 100)
	s.append(w, 100, 1)
	s.append(w, 101, 200)
	r := w.Reader()
	s.check(r, 301)
	s.ok(r.Close())
}

func (s *suite) headAndBody() {
	w := s.create()
	rec := NewRecorder()
	head := make([]byte, ledger.MaxHead)
	for i := range head {
		head[i] = byte(i)
	}
	for _, n := range []int{0, 1, ledger.MaxHead} {
		w.Append(&ledger.Append{Head: head[:n], Body: []byte("body"), Done: rec})
	}
	rec.Wait(3)
	r := w.Reader()
	all, err := ReadAll(s.ctx, r, 0, 2, 1<<20)
	s.ok(err)
	for i, n := range []int{0, 1, ledger.MaxHead} {
		if want := append(bytes.Clone(head[:n]), "body"...); !bytes.Equal(all[i], want) {
			s.t.Fatalf("entry %d is %q, want %q", i, all[i], want)
		}
	}
	s.ok(r.Close())
}

func (s *suite) sizes() {
	w := s.create()
	rec := NewRecorder()
	sizes := []int{0, 1, 4095, 4096, 0, 65536, 3 << 20, 1, min(5<<20, s.tier.MaxEntryBytes()), 0, 100}
	body := make([]byte, 5<<20+len(sizes))
	for i := range body {
		body[i] = byte(i * 7)
	}
	for i, n := range sizes {
		w.Append(&ledger.Append{Body: body[i : i+n : i+n], Done: rec})
	}
	for i, o := range rec.Wait(len(sizes)) {
		if o.Err != nil || o.Entry != int64(i) {
			s.t.Fatalf("append %d became entry %d, error %v", i, o.Entry, o.Err)
		}
	}
	sealed, err := w.Close(s.ctx)
	s.ok(err)
	var sum int64
	r := w.Reader()
	for _, maxBytes := range []int{0, 5000, 16 << 20} {
		all, err := ReadAll(s.ctx, r, 0, int64(len(sizes))-1, maxBytes)
		s.ok(err)
		sum = 0
		for i, d := range all {
			if !bytes.Equal(d, body[i:i+len(d)]) || len(d) != sizes[i] {
				s.t.Fatalf("entry %d has %d bytes or wrong ones, want %d", i, len(d), sizes[i])
			}
			sum += int64(len(d))
		}
	}
	if sealed.Bytes != sum {
		s.t.Fatalf("sealed with %d bytes, want %d", sealed.Bytes, sum)
	}
	s.ok(r.Close())
}

func (s *suite) readBounds() {
	w := s.create()
	rec := NewRecorder()
	for range 10 {
		w.Append(&ledger.Append{Body: make([]byte, 100), Done: rec})
	}
	rec.Wait(10)
	r := w.Reader()
	for _, tc := range []struct {
		first, last int64
		maxBytes    int
		want        int
	}{
		{0, 9, 1000, 10}, {0, 9, 999, 9}, {0, 9, 100, 1}, {0, 9, 99, 1}, {0, 9, 0, 1}, {3, 5, 1000, 3}, {3, 3, 1000, 1},
		{9, 100, 1000, 1}, {10, 100, 1000, 0}, {5, 4, 1000, 0}, {1 << 40, 1 << 41, 1000, 0},
	} {
		e, err := r.Read(s.ctx, tc.first, tc.last, tc.maxBytes)
		s.ok(err)
		if len(e.Data) != tc.want {
			s.t.Fatalf("read %d to %d with %d bytes gave %d entries, want %d", tc.first, tc.last, tc.maxBytes, len(e.Data), tc.want)
		}
		e.Release()
	}
	s.ok(r.Close())
	_, err := r.Read(s.ctx, 0, 0, 1)
	s.is(err, ledger.ErrClosed)
	s.ok(r.Close())
}

func (s *suite) tailReads() {
	const count = 2000
	w := s.create()
	r := w.Reader()
	rec := NewRecorder()
	go func() {
		for i := range count {
			w.Append(&ledger.Append{Body: Entry(w.ID(), i), Done: rec})
		}
	}()
	for n := int64(0); n < count; {
		// What is acknowledged is visible, and complete.
		n = int64(len(rec.Wait(int(n) + 1)))
		last, _ := r.Last()
		if last < n-1 {
			s.t.Fatalf("%d entries are acknowledged, the reader knows %d", n, last+1)
		}
		from := max(0, n-50)
		all, err := ReadAll(s.ctx, r, from, last, 4000)
		s.ok(err)
		for i, d := range all {
			if !bytes.Equal(d, Entry(w.ID(), int(from)+i)) {
				s.t.Fatalf("entry %d has other bytes than were appended", int(from)+i)
			}
		}
	}
	s.check(r, count)
	s.ok(r.Close())
}

func (s *suite) concurrent() {
	const ledgers, count = 20, 300
	var wg sync.WaitGroup
	ws := make([]ledger.Writer, ledgers)
	for i := range ws {
		ws[i] = s.create()
	}
	recs := make([]*Recorder, ledgers)
	for i, w := range ws {
		recs[i] = NewRecorder()
		wg.Go(func() {
			for n := range count {
				w.Append(&ledger.Append{Body: Entry(w.ID(), n), Done: recs[i]})
			}
		})
	}
	// Appends of one ledger from several goroutines get every id once.
	shared := s.create()
	rec := NewRecorder()
	for range 4 {
		wg.Go(func() {
			for range count {
				shared.Append(&ledger.Append{Body: []byte("x"), Done: rec})
			}
		})
	}
	wg.Wait()
	for i, o := range rec.Wait(4 * count) {
		if o.Err != nil || o.Entry != int64(i) {
			s.t.Fatalf("outcome %d of the shared ledger is entry %d, error %v", i, o.Entry, o.Err)
		}
	}
	for i, w := range ws {
		recs[i].Wait(count)
		r := w.Reader()
		s.check(r, count)
		s.ok(r.Close())
	}
}

// inAppend notices calls from within Append by the stack they come on.
type inAppend struct {
	*Recorder
	bad atomic.Bool
}

func (c *inAppend) Appended(a *ledger.Append, err error) {
	if bytes.Contains(debug.Stack(), []byte("callOrder")) {
		c.bad.Store(true)
	}
	c.Recorder.Appended(a, err)
}

func (s *suite) callOrder() {
	w := s.create()
	c := &inAppend{Recorder: NewRecorder()}
	for i := range 50 {
		w.Append(&ledger.Append{Body: Entry(w.ID(), i), Done: c})
	}
	_, err := w.Close(s.ctx)
	s.ok(err)
	w.Append(&ledger.Append{Done: c})
	for i, o := range c.Wait(51) {
		if i < 50 && (o.Err != nil || o.Entry != int64(i)) {
			s.t.Fatalf("outcome %d is entry %d, error %v", i, o.Entry, o.Err)
		}
		if i == 50 {
			s.is(o.Err, ledger.ErrSealed)
		}
	}
	if c.bad.Load() {
		s.t.Fatal("Appended was called from within Append")
	}
}

// counted is a Buffer that counts its holders.
type counted struct {
	mu sync.Mutex
	n  int
}

func (c *counted) Retain() {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
}

func (c *counted) Release() {
	c.mu.Lock()
	c.n--
	c.mu.Unlock()
}

func (s *suite) buffers() {
	w := s.create()
	rec := NewRecorder()
	bufs := make([]counted, 100)
	for i := range bufs {
		bufs[i].n = 1
		w.Append(&ledger.Append{Body: Entry(w.ID(), i), Buf: &bufs[i], Done: rec})
	}
	rec.Wait(len(bufs))
	_, err := w.Close(s.ctx)
	s.ok(err)
	s.ok(s.tier.Close())
	s.tier = nil
	for i := range bufs {
		if n := bufs[i].n; n != 1 {
			s.t.Fatalf("buffer %d has %d holders after the tier was closed, want the caller alone", i, n)
		}
	}
}

func (s *suite) closeSeals() {
	w := s.create()
	rec := NewRecorder()
	var sum int64
	for i := range 50 {
		w.Append(&ledger.Append{Body: Entry(w.ID(), i), Done: rec})
		sum += int64(len(Entry(w.ID(), i)))
	}
	got, err := w.Close(s.ctx) // waits for the appends
	s.ok(err)
	if n := len(rec.Outcomes()); n != 50 {
		s.t.Fatalf("Close returned after %d of 50 appends", n)
	}
	if want := (ledger.Sealed{ID: w.ID(), LastEntry: 49, Bytes: sum}); got != want {
		s.t.Fatalf("sealed %+v, want %+v", got, want)
	}
	again, err := w.Close(s.ctx)
	s.ok(err)
	if again != got {
		s.t.Fatalf("the second Close returned %+v, the first %+v", again, got)
	}
	w.Append(&ledger.Append{Body: []byte("late"), Done: rec})
	o := rec.Wait(51)[50]
	s.is(o.Err, ledger.ErrSealed)
	r, err := s.tier.Open(s.ctx, w.ID())
	s.ok(err)
	s.check(r, 50)
	if _, sealed := r.Last(); !sealed {
		s.t.Fatal("a closed ledger is not sealed")
	}
	s.ok(r.Close())
}

func (s *suite) recoverKeeps() {
	w := s.create()
	s.append(w, 0, 120)
	p, done := s.peer()
	defer done()
	r, err := p.Recover(s.ctx, w.ID())
	s.ok(err)
	s.check(r, 120)
	if _, sealed := r.Last(); !sealed {
		s.t.Fatal("a recovered ledger is not sealed")
	}
	s.ok(r.Close())
}

// fencing appends without pause while another holder recovers. Whatever the
// writer hears to be durable must be in what the recovery kept.
func (s *suite) fencing() {
	for round := range 20 {
		w := s.create()
		p, done := s.peer()
		rec := NewRecorder()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		count := 0
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				w.Append(&ledger.Append{Body: Entry(w.ID(), count), Done: rec})
				count++
				if count%10 == 0 {
					rec.Wait(count - 5)
				}
			}
		})
		rec.Wait(round + 1)
		r, err := p.Recover(s.ctx, w.ID())
		s.ok(err)
		last, sealed := r.Last()
		if !sealed {
			s.t.Fatal("a recovered ledger is not sealed")
		}
		before := len(rec.Outcomes())
		rec.Wait(before + 1)
		close(stop)
		wg.Wait()
		w.Append(&ledger.Append{Body: []byte("late"), Done: rec})
		count++
		failed := false
		for i, o := range rec.Wait(count) {
			switch {
			case o.Err == nil && failed:
				s.t.Fatalf("append %d was acknowledged after one before it failed", i)
			case o.Err == nil && o.Entry > last:
				s.t.Fatalf("entry %d was acknowledged, the recovery kept up to %d", o.Entry, last)
			case o.Err != nil:
				failed = true
				s.is(o.Err, ledger.ErrFenced)
			}
		}
		if !failed {
			s.t.Fatal("a fenced writer got an acknowledgement for its last append")
		}
		if again, _ := r.Last(); again != last {
			s.t.Fatalf("the end of a recovered ledger moved from %d to %d", last, again)
		}
		s.check(r, int(last)+1)
		s.ok(r.Close())
		if _, err := w.Close(s.ctx); err == nil {
			s.t.Fatal("a fenced writer could close its ledger")
		}
		done()
	}
}

func (s *suite) recoverTwice() {
	w := s.create()
	s.append(w, 0, 30)
	var wg sync.WaitGroup
	rs := make([]ledger.Reader, 4)
	errs := make([]error, len(rs))
	for i := range rs {
		wg.Go(func() { rs[i], errs[i] = s.tier.Recover(s.ctx, w.ID()) })
	}
	wg.Wait()
	for i, r := range rs {
		s.ok(errs[i])
		s.check(r, 30)
		s.ok(r.Close())
	}
	r, err := s.tier.Recover(s.ctx, w.ID())
	s.ok(err)
	s.check(r, 30)
	s.ok(r.Close())
}

func (s *suite) recoverSealed() {
	w := s.create()
	s.append(w, 0, 30)
	_, err := w.Close(s.ctx)
	s.ok(err)
	r, err := s.tier.Recover(s.ctx, w.ID())
	s.ok(err)
	s.check(r, 30)
	s.ok(r.Close())
	_, err = s.tier.Recover(s.ctx, w.ID()+1000)
	s.is(err, ledger.ErrNotFound)
}

func (s *suite) openReader() {
	w := s.create()
	s.append(w, 0, 10)
	r, err := s.tier.Open(s.ctx, w.ID())
	s.ok(err)
	s.check(r, 10)
	if _, sealed := r.Last(); sealed {
		s.t.Fatal("opening sealed the ledger")
	}
	s.append(w, 10, 10)
	s.check(r, 20)
	s.ok(r.Close())
	_, err = s.tier.Open(s.ctx, w.ID()+1000)
	s.is(err, ledger.ErrNotFound)
}

func (s *suite) delete() {
	w := s.create()
	s.append(w, 0, 10)
	other := s.create()
	s.append(other, 0, 10)
	_, err := other.Close(s.ctx)
	s.ok(err)
	for _, l := range []ledger.Writer{w, other} {
		r := l.Reader()
		s.ok(s.tier.Delete(s.ctx, l.ID()))
		s.ok(s.tier.Delete(s.ctx, l.ID()))
		if e, err := r.Read(s.ctx, 0, 9, 1<<20); err != nil {
			s.is(err, ledger.ErrNotFound)
		} else {
			for i, d := range e.Data {
				if !bytes.Equal(d, Entry(l.ID(), i)) {
					s.t.Fatal("a deleted ledger gave wrong bytes")
				}
			}
			e.Release()
		}
		s.ok(r.Close())
		_, err = s.tier.Open(s.ctx, l.ID())
		s.is(err, ledger.ErrNotFound)
		_, err = s.tier.Recover(s.ctx, l.ID())
		s.is(err, ledger.ErrNotFound)
	}
	rec := NewRecorder()
	w.Append(&ledger.Append{Done: rec})
	if o := rec.Wait(1)[0]; o.Err == nil {
		s.t.Fatal("a deleted ledger took an entry")
	}
	s.ok(s.tier.Delete(s.ctx, w.ID()+1000))
	s.ok(s.tier.Close())
	s.open()
	for _, l := range []ledger.Writer{w, other} {
		_, err = s.tier.Open(s.ctx, l.ID())
		s.is(err, ledger.ErrNotFound)
	}
}

func (s *suite) list() {
	props := ledger.Properties{"log": "topic-7", "": "empty key", "epoch": ""}
	a, err := s.tier.Create(s.ctx, props)
	s.ok(err)
	s.append(a, 0, 5)
	sealed, err := a.Close(s.ctx)
	s.ok(err)
	b := s.create()
	s.append(b, 0, 3)
	c := s.create()
	s.ok(s.tier.Delete(s.ctx, c.ID()))
	for range 2 { // before and after a restart
		got := map[ledger.ID]ledger.Info{}
		s.ok(s.tier.List(s.ctx, func(i ledger.Info) bool {
			if _, twice := got[i.ID]; twice {
				s.t.Errorf("ledger %d is listed twice", i.ID)
			}
			got[i.ID] = i
			return true
		}))
		if len(got) != 2 {
			s.t.Fatalf("%d ledgers are listed, want 2: %v", len(got), got)
		}
		ia, ib := got[a.ID()], got[b.ID()]
		if !ia.Sealed || ia.LastEntry != sealed.LastEntry || ia.Bytes != sealed.Bytes {
			s.t.Fatalf("sealed ledger is listed as %+v, want %+v", ia, sealed)
		}
		if len(ia.Properties) != len(props) {
			s.t.Fatalf("properties are %v, want %v", ia.Properties, props)
		}
		for k, v := range props {
			if got, ok := ia.Properties[k]; !ok || got != v {
				s.t.Fatalf("properties are %v, want %v", ia.Properties, props)
			}
		}
		if ib.Sealed {
			s.t.Fatalf("open ledger is listed as %+v", ib)
		}
		s.ok(s.tier.Close())
		s.open()
	}
	n := 0
	s.ok(s.tier.List(s.ctx, func(ledger.Info) bool { n++; return false }))
	if n != 1 {
		s.t.Fatalf("List went on %d times after it was told to stop", n-1)
	}
}

func (s *suite) ids() {
	seen := map[ledger.ID]bool{}
	for range 3 {
		for range 5 {
			w := s.create()
			if seen[w.ID()] {
				s.t.Fatalf("ledger id %d was given twice", w.ID())
			}
			seen[w.ID()] = true
			s.ok(s.tier.Delete(s.ctx, w.ID()))
		}
		s.ok(s.tier.Close())
		s.open()
	}
}

func (s *suite) reopen() {
	a, b := s.create(), s.create()
	s.append(a, 0, 500)
	s.append(b, 0, 100)
	_, err := a.Close(s.ctx)
	s.ok(err)
	s.ok(s.tier.Close())
	s.open()
	r, err := s.tier.Open(s.ctx, a.ID())
	s.ok(err)
	s.check(r, 500)
	if _, sealed := r.Last(); !sealed {
		s.t.Fatal("a closed ledger is open again")
	}
	s.ok(r.Close())
	r, err = s.tier.Recover(s.ctx, b.ID())
	s.ok(err)
	s.check(r, 100)
	s.ok(r.Close())
}

func (s *suite) crash() {
	if s.f.Crash == nil {
		s.f.Crash = func(t ledger.Tier) { s.ok(t.Close()) }
	}
	gone := s.create()
	s.append(gone, 0, 10)
	sealed := s.create()
	s.append(sealed, 0, 40)
	_, err := sealed.Close(s.ctx)
	s.ok(err)
	var open ledger.Writer
	total := 0
	for round := range 5 {
		open = s.create()
		total = 100 * (round + 1)
		s.append(open, 0, total)
		if round == 2 {
			s.ok(s.tier.Delete(s.ctx, gone.ID()))
		}
		s.f.Crash(s.tier)
		s.open()
		r, err := s.tier.Recover(s.ctx, open.ID())
		s.ok(err)
		s.check(r, total)
		s.ok(r.Close())
		r, err = s.tier.Open(s.ctx, sealed.ID())
		s.ok(err)
		s.check(r, 40)
		s.ok(r.Close())
		r, err = s.tier.Open(s.ctx, gone.ID())
		if round < 2 {
			s.ok(err)
			s.check(r, 10)
			s.ok(r.Close())
		} else {
			s.is(err, ledger.ErrNotFound)
		}
	}
}

func (s *suite) closedTier() {
	w := s.create()
	s.append(w, 0, 3)
	r := w.Reader()
	s.ok(s.tier.Close())
	s.ok(s.tier.Close())
	_, err := s.tier.Create(s.ctx, nil)
	s.is(err, ledger.ErrClosed)
	_, err = s.tier.Open(s.ctx, w.ID())
	s.is(err, ledger.ErrClosed)
	_, err = s.tier.Recover(s.ctx, w.ID())
	s.is(err, ledger.ErrClosed)
	s.is(s.tier.Delete(s.ctx, w.ID()), ledger.ErrClosed)
	s.is(s.tier.List(s.ctx, func(ledger.Info) bool { return true }), ledger.ErrClosed)
	_, err = r.Read(s.ctx, 0, 0, 1)
	s.is(err, ledger.ErrClosed)
	rec := NewRecorder()
	for range 3 {
		w.Append(&ledger.Append{Done: rec})
	}
	for _, o := range rec.Wait(3) {
		s.is(o.Err, ledger.ErrClosed)
	}
	_, err = w.Close(s.ctx)
	s.is(err, ledger.ErrClosed)
	s.ok(r.Close())
	s.tier = nil
}
