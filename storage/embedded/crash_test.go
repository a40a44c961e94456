package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
	"github.com/quirelog/quire/storage/vfs"
)

// promise is what a tier has said about a ledger.
type promise struct {
	acked   int // entries
	asked   int // entries appended
	sealed  bool
	last    int64
	deleted bool // acknowledged
	doomed  bool // deletion was asked for
}

// promises is what a tier has said up to some moment.
type promises struct {
	mu sync.Mutex
	m  map[ledger.ID]*promise
}

func (p *promises) on(id ledger.ID, f func(*promise)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.m[id] == nil {
		p.m[id] = &promise{}
	}
	f(p.m[id])
}

func (p *promises) snapshot() map[ledger.ID]promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := make(map[ledger.ID]promise, len(p.m))
	for id, v := range p.m {
		s[id] = *v
	}
	return s
}

// tracked is the writer of a ledger whose outcomes go into promises.
type tracked struct {
	w ledger.Writer
	p *promises
	*ledgertest.Recorder
	n int
}

func (p *promises) create(ctx context.Context, t *Tier) (*tracked, error) {
	w, err := t.Create(ctx, ledger.Properties{"made": "by a test"})
	if err != nil {
		return nil, err
	}
	p.on(w.ID(), func(*promise) {})
	return &tracked{w: w, p: p, Recorder: ledgertest.NewRecorder()}, nil
}

func (l *tracked) Appended(a *ledger.Append, err error) {
	if err == nil {
		l.p.on(l.w.ID(), func(p *promise) { p.acked = int(a.Entry) + 1 })
	}
	l.Recorder.Appended(a, err)
}

// body is what entry i of a ledger holds: some of them are long.
func body(id ledger.ID, i int) []byte {
	b := ledgertest.Entry(id, i)
	if i%7 == 3 {
		b = bytes.Repeat(b, 20)
	}
	return b
}

func (l *tracked) append(n int) {
	for range n {
		l.p.on(l.w.ID(), func(p *promise) { p.asked++ })
		l.w.Append(&ledger.Append{Body: body(l.w.ID(), l.n), Done: l})
		l.n++
	}
}

func (l *tracked) seal(ctx context.Context) error {
	s, err := l.w.Close(ctx)
	if err == nil {
		l.p.on(l.w.ID(), func(p *promise) { p.sealed, p.last = true, s.LastEntry })
	}
	return err
}

func (p *promises) delete(ctx context.Context, t *Tier, id ledger.ID) error {
	p.on(id, func(p *promise) { p.doomed = true })
	err := t.Delete(ctx, id)
	if err == nil {
		p.on(id, func(p *promise) { p.deleted = true })
	}
	return err
}

func (p *promises) recover(ctx context.Context, t *Tier, id ledger.ID) error {
	r, err := t.Recover(ctx, id)
	if err != nil {
		return err
	}
	last, _ := r.Last()
	p.on(id, func(p *promise) { p.sealed, p.last = true, last })
	return r.Close()
}

// keeps opens the store in mem and compares it with what was promised.
func keeps(mem *vfs.Mem, want map[ledger.ID]promise) error {
	ctx := context.Background()
	t, err := Open(small(mem))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer t.Close()
	highest := ledger.ID(0)
	for id, p := range want {
		highest = max(highest, id)
		r, err := t.Open(ctx, id)
		if errors.Is(err, ledger.ErrNotFound) && p.doomed {
			continue
		}
		if err != nil {
			return err
		}
		last, sealed := r.Last()
		_ = r.Close()
		if p.deleted {
			return fmt.Errorf("ledger %d was deleted and is there", id)
		}
		if p.sealed && (!sealed || last != p.last) {
			return fmt.Errorf("ledger %d was sealed at %d, is at %d, sealed %v", id, p.last, last, sealed)
		}
		if r, err = t.Recover(ctx, id); err != nil {
			return err
		}
		last, _ = r.Last()
		if last+1 < int64(p.acked) || last+1 > int64(p.asked) {
			return fmt.Errorf("ledger %d has %d entries, %d were acknowledged and %d appended", id, last+1, p.acked, p.asked)
		}
		all, err := ledgertest.ReadAll(ctx, r, 0, last, 5000)
		if err != nil {
			return err
		}
		for i, b := range all {
			if !bytes.Equal(b, body(id, i)) {
				return fmt.Errorf("entry %d of ledger %d has other bytes than were appended", i, id)
			}
		}
		if err := r.Close(); err != nil {
			return err
		}
	}
	w, err := t.Create(ctx, nil)
	if err != nil {
		return err
	}
	if w.ID() <= highest {
		return fmt.Errorf("ledger id %d was given again, ids up to %d were given before", w.ID(), highest)
	}
	if _, err := w.Close(ctx); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	rep, err := Verify(mem, "store", nil)
	if err != nil {
		return err
	}
	return errors.Join(rep.Problems...)
}

// script uses a store in all ways that change it, some of it in parallel with
// the write-behind. It stops at the first error.
func script(fsys vfs.FS, p *promises) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for round := range 2 {
		c := small(fsys)
		c.CheckpointBytes = 40 << 10
		if round == 0 {
			c.MaxOpenFiles = 64 // files are synced one by one; else by one sync of all
		}
		t, err := Open(c)
		if err != nil {
			return err
		}
		defer t.Close()
		var ls []*tracked
		for range 5 {
			l, err := p.create(ctx, t)
			if err != nil {
				return err
			}
			ls = append(ls, l)
		}
		for i := range 12 {
			for k, l := range ls {
				l.append((i + k) % 5)
			}
			switch i {
			case 3:
				if err := ls[0].seal(ctx); err != nil {
					return err
				}
			case 5:
				if err := p.recover(ctx, t, ls[1].w.ID()); err != nil {
					return err
				}
			case 7:
				if err := p.delete(ctx, t, ls[2].w.ID()); err != nil {
					return err
				}
			case 8:
				if err := p.delete(ctx, t, ls[0].w.ID()); err != nil {
					return err
				}
			}
			for _, l := range ls[3:] {
				for _, o := range l.Wait(l.n) {
					if o.Err != nil {
						return o.Err
					}
				}
			}
			if i%4 == 1 {
				t.behind.demandCheckpoint()
			}
		}
		if round == 0 {
			if err := ls[3].seal(ctx); err != nil {
				return err
			}
		}
		if err := t.Close(); err != nil {
			return err
		}
	}
	return nil
}

// crashEverywhere runs the script and, before each operation that changes the
// disk, takes what a power cut would leave. It returns what is wrong with those.
func crashEverywhere(t *testing.T, lie func(vfs.Op, string) bool, seeds ...uint64) []error {
	type crash struct {
		at   string
		mem  *vfs.Mem
		want map[ledger.ID]promise
	}
	var mu sync.Mutex
	var crashes []crash
	mem := vfs.NewMem()
	p := &promises{m: map[ledger.ID]*promise{}}
	n := 0
	err := script(vfs.Inject(mem, func(op vfs.Op, name string) error {
		if op.Changes() {
			mu.Lock()
			n++
			for _, seed := range seeds {
				if seed > vfs.KeepEverything {
					seed += uint64(n)
				}
				// Promises first: what is promised meanwhile need not be in the clone.
				want := p.snapshot()
				c := crash{fmt.Sprintf("crash %d (seed %d) before %s of %s", n, seed, op, name), mem.CrashClone(seed), want}
				// What is asked for meanwhile may be.
				for id, now := range p.snapshot() {
					was := want[id]
					was.asked, was.doomed = now.asked, now.doomed
					if _, known := want[id]; known {
						want[id] = was
					}
				}
				crashes = append(crashes, c)
			}
			mu.Unlock()
		}
		if lie != nil && lie(op, name) {
			return vfs.ErrSkip
		}
		return nil
	}), p)
	if err != nil {
		t.Fatal(err)
	}
	var errs []error
	for _, c := range crashes {
		if err := keeps(c.mem, c.want); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.at, err))
		}
	}
	if err := keeps(mem.CrashClone(vfs.KeepEverything), p.snapshot()); err != nil {
		errs = append(errs, fmt.Errorf("at the end: %w", err))
	}
	t.Logf("%d crashes at %d operations", len(crashes), n)
	return errs
}

func TestCrashAtEveryOperation(t *testing.T) {
	for i, err := range crashEverywhere(t, nil, vfs.KeepSynced, vfs.KeepEverything, 1000) {
		if i < 5 {
			t.Error(err)
		}
	}
}

// TestCrashSuiteSees plants faults that lose data in a power cut and nowhere else.
func TestCrashSuiteSees(t *testing.T) {
	journal := func(name string) bool { return strings.HasSuffix(name, journalSuffix) }
	for name, lie := range map[string]func(vfs.Op, string) bool{
		"acknowledged before the journal is synced": func(op vfs.Op, name string) bool { return op == vfs.OpSync && journal(name) },
		"checkpoint before ledger files are synced": func(op vfs.Op, name string) bool {
			return op == vfs.OpSync && strings.HasSuffix(name, ledgerSuffix)
		},
		"folder of ledgers not synced": func(op vfs.Op, name string) bool { return op == vfs.OpSyncDir && strings.HasSuffix(name, "ledgers") },
		"folder of journal not synced": func(op vfs.Op, name string) bool { return op == vfs.OpSyncDir && strings.HasSuffix(name, "journal") },
		"checkpoint not synced":        func(op vfs.Op, name string) bool { return op == vfs.OpSync && strings.HasSuffix(name, checkpointFile) },
	} {
		t.Run(name, func(t *testing.T) {
			if errs := crashEverywhere(t, lie, vfs.KeepSynced); len(errs) == 0 {
				t.Fatal("no crash shows it")
			}
		})
	}
}
