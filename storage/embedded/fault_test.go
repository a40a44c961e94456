package embedded

import (
	"bytes"
	"context"
	"errors"
	"path"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
	"github.com/quirelog/quire/storage/vfs"
)

// rig is a store in memory with faults that can be switched on.
type rig struct {
	t      *testing.T
	mem    *vfs.Mem
	faults *vfs.Faults
	tier   *Tier
	ctx    context.Context
}

func newRig(t *testing.T, change func(*Config)) *rig {
	r := &rig{t: t, mem: vfs.NewMem(), faults: &vfs.Faults{}, ctx: t.Context()}
	r.open(change)
	t.Cleanup(func() {
		if err := r.tier.Close(); err != nil && r.faults.Hits() == 0 {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) open(change func(*Config)) {
	r.t.Helper()
	c := small(vfs.Inject(r.mem, r.faults.Check))
	if change != nil {
		change(&c)
	}
	tier, err := Open(c)
	if err != nil {
		r.t.Fatal(err)
	}
	r.tier = tier
}

// crash replaces the store by what a power cut leaves of it.
func (r *rig) crash(seed uint64) {
	r.t.Helper()
	clone := r.mem.CrashClone(seed)
	_ = r.tier.Close()
	r.mem, r.faults = clone, &vfs.Faults{}
	r.open(nil)
}

func (r *rig) create() ledger.Writer {
	r.t.Helper()
	w, err := r.tier.Create(r.ctx, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

// append appends entries from first on and returns their outcomes.
func (r *rig) append(w ledger.Writer, first, n int) []ledgertest.Outcome {
	rec := ledgertest.NewRecorder()
	for i := range n {
		w.Append(&ledger.Append{Body: body(w.ID(), first+i), Done: rec})
	}
	return rec.Wait(n)
}

func (r *rig) mustAppend(w ledger.Writer, first, n int) {
	r.t.Helper()
	for _, o := range r.append(w, first, n) {
		if o.Err != nil {
			r.t.Fatal(o.Err)
		}
	}
}

// holds checks that a ledger has n entries, the right ones.
func (r *rig) holds(rd ledger.Reader, n int) {
	r.t.Helper()
	if last, _ := rd.Last(); last != int64(n)-1 {
		r.t.Fatalf("ledger %d has %d entries, want %d", rd.ID(), last+1, n)
	}
	all, err := ledgertest.ReadAll(r.ctx, rd, 0, int64(n)-1, 3000)
	if err != nil {
		r.t.Fatal(err)
	}
	for i, b := range all {
		if !bytes.Equal(b, body(rd.ID(), i)) {
			r.t.Fatalf("entry %d of ledger %d has other bytes than were appended", i, rd.ID())
		}
	}
}

func (r *rig) recovered(id ledger.ID, n int) {
	r.t.Helper()
	rd, err := r.tier.Recover(r.ctx, id)
	if err != nil {
		r.t.Fatal(err)
	}
	r.holds(rd, n)
	if err := rd.Close(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) checkpoint() {
	r.t.Helper()
	r.tier.behind.demandCheckpoint()
	r.until("a checkpoint", func() bool {
		r.tier.behind.mu.Lock()
		defer r.tier.behind.mu.Unlock()
		return !r.tier.behind.demanded && r.tier.behind.bytes == 0
	})
}

// until makes appends to a ledger of its own until ok: something goes on all the while.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	for !ok() {
		if r.ctx.Err() != nil {
			r.t.Fatalf("%s did not come", what)
		}
		_, _ = r.tier.fs.List("store")
	}
}

func TestFailedSyncEndsTheLedgersOfTheGroup(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpWrite} {
		t.Run(string(op), func(t *testing.T) {
			r := newRig(t, nil)
			hurt, idle := r.create(), r.create()
			r.mustAppend(hurt, 0, 20)
			r.mustAppend(idle, 0, 5)
			r.faults.Add(vfs.Fault{Op: op, Path: "*.journal", Times: 1, Err: syscall.EIO})
			for _, o := range r.append(hurt, 20, 3) {
				if !errors.Is(o.Err, ledger.ErrFailed) || !errors.Is(o.Err, syscall.EIO) {
					t.Fatalf("append after a failed %s: %v", op, o.Err)
				}
			}
			if n := r.faults.Hits(); n != 1 {
				t.Fatalf("%d faults hit, want 1", n)
			}
			// Never retried as success, nor anything after it.
			for _, o := range r.append(hurt, 20, 1) {
				if !errors.Is(o.Err, ledger.ErrFailed) {
					t.Fatalf("append to a failed ledger: %v", o.Err)
				}
			}
			if _, err := hurt.Close(r.ctx); !errors.Is(err, ledger.ErrFailed) {
				t.Fatalf("close of a failed ledger: %v", err)
			}
			// Others go on, in another journal file.
			r.mustAppend(idle, 5, 30)
			rd := hurt.Reader()
			r.holds(rd, 20)
			_ = rd.Close()
			r.recovered(hurt.ID(), 20)
			for _, seed := range []uint64{vfs.KeepSynced, vfs.KeepEverything} {
				r.crash(seed)
				r.recovered(hurt.ID(), 20)
				r.recovered(idle.ID(), 35)
			}
		})
	}
}

// TestFailedFirstGroupOfAFile fails the sync that would have made the header of a
// journal file durable, too: the file after it must not need that file.
func TestFailedFirstGroupOfAFile(t *testing.T) {
	for _, seed := range []uint64{vfs.KeepSynced, vfs.KeepEverything} {
		r := newRig(t, func(c *Config) { c.CheckpointBytes, c.CheckpointInterval = 1<<30, time.Hour })
		w, hurt := r.create(), r.create()
		files := r.tier.journal.files
		next := ""
		r.until("a prepared journal file", func() bool {
			files.mu.Lock()
			defer files.mu.Unlock()
			if len(files.free) > 0 {
				next = files.free[0].name
			}
			return next != ""
		})
		r.faults.Add(vfs.Fault{Op: vfs.OpSync, Path: next, Times: 1, Err: syscall.EIO})
		n := 0
		for ; r.faults.Hits() == 0; n++ {
			if o := r.append(hurt, n, 1)[0]; o.Err != nil && !errors.Is(o.Err, ledger.ErrFailed) {
				t.Fatal(o.Err)
			}
		}
		r.mustAppend(w, 0, 20)
		r.crash(seed)
		r.recovered(w.ID(), 20)
		r.recovered(hurt.ID(), n-1)
	}
}

func TestSecondFailureInARowStopsTheJournal(t *testing.T) {
	told := make(chan error, 2)
	r := newRig(t, func(c *Config) { c.OnFailure = func(err error) { told <- err } })
	w, other := r.create(), r.create()
	r.mustAppend(w, 0, 20)
	r.faults.Add(vfs.Fault{Op: vfs.OpSync, Path: "*.journal", Err: syscall.EIO})
	for _, l := range []ledger.Writer{w, other} {
		if o := r.append(l, 20, 1)[0]; !errors.Is(o.Err, ledger.ErrFailed) {
			t.Fatalf("append: %v", o.Err)
		}
	}
	if err := r.tier.Err(); !errors.Is(err, ledger.ErrFailed) {
		t.Fatalf("the store reports %v", err)
	}
	if err := <-told; !errors.Is(err, ledger.ErrFailed) || !errors.Is(err, syscall.EIO) || len(told) > 0 {
		t.Fatalf("the owner was told of %v, and %d times more", err, len(told))
	}
	r.faults.Clear()
	if _, err := r.tier.Create(r.ctx, nil); !errors.Is(err, ledger.ErrFailed) {
		t.Fatalf("create in a store that failed: %v", err)
	}
	rd := w.Reader()
	r.holds(rd, 20)
	_ = rd.Close()
	r.crash(vfs.KeepSynced)
	r.recovered(w.ID(), 20)
}

func TestFailedSyncOfLedgerFilesStopsTheStoreAndLosesNothing(t *testing.T) {
	for _, pattern := range []string{"*.ledger", checkpointFile} {
		r := newRig(t, nil)
		w := r.create()
		r.mustAppend(w, 0, 50)
		r.faults.Add(vfs.Fault{Op: vfs.OpSync, Path: pattern, Times: 1, Err: syscall.EIO})
		r.tier.behind.demandCheckpoint()
		r.until("the failure", func() bool { return r.tier.Err() != nil })
		if o := r.append(w, 50, 1)[0]; !errors.Is(o.Err, ledger.ErrFailed) {
			t.Fatalf("append: %v", o.Err)
		}
		rd := w.Reader()
		r.holds(rd, 50)
		_ = rd.Close()
		r.crash(vfs.KeepSynced)
		r.recovered(w.ID(), 50)
	}
}

func TestFullDiskRefusesAndHeals(t *testing.T) {
	const reserve = 300 << 10
	r := newRig(t, func(c *Config) { c.MinFreeBytes = reserve })
	r.mem.SetCapacity(2 << 20)
	w, sealed := r.create(), r.create()
	r.mustAppend(sealed, 0, 10)
	n := 0
	for {
		out := r.append(w, n, 1)
		if out[0].Err != nil {
			if !errors.Is(out[0].Err, ledger.ErrNoSpace) {
				t.Fatal(out[0].Err)
			}
			break
		}
		n++
	}
	if free, _ := r.mem.FreeBytes(""); free < reserve/2 {
		t.Fatalf("appends were refused with %d bytes free, the reserve is %d", free, reserve)
	}
	// Reads, seals, checkpoints and deletions go on.
	rd := w.Reader()
	r.holds(rd, n)
	_ = rd.Close()
	r.checkpoint()
	if _, err := sealed.Close(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.mem.SetCapacity(r.mem.Used() + reserve - 1)
	r.until("the refusal", func() bool {
		_, err := r.tier.Create(r.ctx, nil)
		return errors.Is(err, ledger.ErrNoSpace)
	})
	if o := r.append(w, n, 1)[0]; !errors.Is(o.Err, ledger.ErrNoSpace) {
		t.Fatalf("append on a full disk: %v", o.Err)
	}
	if err := r.tier.Refusing(); !errors.Is(err, ledger.ErrNoSpace) {
		t.Fatalf("on a full disk the store says %v", err)
	}
	if err := r.tier.Delete(r.ctx, sealed.ID()); err != nil {
		t.Fatal(err)
	}
	r.mem.SetCapacity(8 << 20)
	r.until("space", func() bool { return r.append(w, n, 1)[0].Err == nil })
	if err := r.tier.Refusing(); err != nil {
		t.Fatalf("with space again the store says %v", err)
	}
	r.mustAppend(w, n+1, 20)
	r.crash(vfs.KeepSynced)
	r.recovered(w.ID(), n+21)
}

// TestNoSpaceInTheJournalLeavesNothingBehind queues appends behind one that the
// journal has no space for: none of them may be stored.
func TestNoSpaceInTheJournalLeavesNothingBehind(t *testing.T) {
	for _, err := range []error{syscall.ENOSPC, &vfs.ShortWrite{N: 4096, Err: syscall.ENOSPC}} {
		mem := vfs.NewMem()
		var armed atomic.Pointer[string]
		reached, queued := make(chan struct{}), make(chan struct{})
		tier, openErr := Open(small(vfs.Inject(mem, func(op vfs.Op, name string) error {
			if op == vfs.OpWrite && armed.Load() != nil && path.Base(name) == *armed.Load() {
				armed.Store(nil)
				close(reached)
				<-queued
				return err
			}
			return nil
		})))
		if openErr != nil {
			t.Fatal(openErr)
		}
		r := &rig{t: t, mem: mem, faults: &vfs.Faults{}, tier: tier, ctx: t.Context()}
		w, other := r.create(), r.create()
		r.mustAppend(w, 0, 10)
		tier.journal.files.mu.Lock()
		armed.Store(&tier.journal.files.live[0].name)
		tier.journal.files.mu.Unlock()
		rec := ledgertest.NewRecorder()
		const asked = 400
		for i := range asked {
			w.Append(&ledger.Append{Body: body(w.ID(), 10+i), Done: rec})
			if i == 0 {
				<-reached
			}
		}
		close(queued)
		for i, o := range rec.Wait(asked) {
			if !errors.Is(o.Err, ledger.ErrNoSpace) {
				t.Fatalf("append %d of those behind a refused one: entry %d, error %v", i, o.Entry, o.Err)
			}
		}
		for _, seed := range []uint64{vfs.KeepSynced, vfs.KeepEverything} {
			if err := keeps(mem.CrashClone(seed), map[ledger.ID]promise{w.ID(): {acked: 10, asked: 10}}); err != nil {
				t.Fatal(err)
			}
		}
		// The ledgers go on with the next entry.
		r.until("an end of the refusal", func() bool { return r.append(w, 10, 1)[0].Err == nil })
		r.mustAppend(w, 11, 30)
		r.mustAppend(other, 0, 1)
		r.crash(vfs.KeepSynced)
		r.recovered(w.ID(), 41)
		if err := r.tier.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNoSpaceForLedgerFilesHealsWithoutLoss(t *testing.T) {
	r := newRig(t, nil)
	w := r.create()
	r.mustAppend(w, 0, 5)
	r.faults.Add(vfs.Fault{Op: vfs.OpWrite, Path: "*.ledger", Err: syscall.ENOSPC})
	n := 5
	for r.append(w, n, 1)[0].Err == nil {
		n++
	}
	rd := w.Reader()
	r.holds(rd, n)
	if err := keeps(r.mem.CrashClone(vfs.KeepSynced), map[ledger.ID]promise{w.ID(): {acked: n, asked: n}}); err != nil {
		t.Fatal(err)
	}
	r.faults.Clear()
	r.until("space", func() bool { return r.append(w, n, 1)[0].Err == nil })
	r.mustAppend(w, n+1, 10)
	r.holds(rd, n+11)
	_ = rd.Close()
}

// TestNoDescriptorsRefusesAndHeals takes away what files are opened with, as clients do
// that open connections without end.
func TestNoDescriptorsRefusesAndHeals(t *testing.T) {
	r := newRig(t, nil)
	w := r.create()
	r.mustAppend(w, 0, 5)
	for _, f := range []vfs.Fault{{Op: vfs.OpOpen}, {Op: vfs.OpCreate}, {Op: vfs.OpSyncDir}} {
		f.Err = syscall.EMFILE
		r.faults.Add(f)
	}
	n := 5
	for {
		if _, err := r.tier.Create(r.ctx, nil); err != nil && !errors.Is(err, ledger.ErrNoSpace) {
			t.Fatal(err)
		}
		o := r.append(w, n, 1)[0]
		if errors.Is(o.Err, ledger.ErrNoSpace) {
			break
		}
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		n++
	}
	if err := r.tier.Err(); err != nil {
		t.Fatalf("the store has failed: %v", err)
	}
	if err := keeps(r.mem.CrashClone(vfs.KeepSynced), map[ledger.ID]promise{w.ID(): {acked: n, asked: n}}); err != nil {
		t.Fatal(err)
	}
	r.faults.Clear()
	r.until("descriptors", func() bool { return r.append(w, n, 1)[0].Err == nil })
	r.mustAppend(w, n+1, 200)
	r.checkpoint()
	r.crash(vfs.KeepSynced)
	r.recovered(w.ID(), n+201)
}

func TestQueueIsBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxQueueBytes = 10000 })
	w := r.create()
	// The journal stands still until all is queued.
	gate := make(chan struct{})
	r.tier.journal.files.mu.Lock()
	go func() { <-gate; r.tier.journal.files.mu.Unlock() }()
	rec := ledgertest.NewRecorder()
	const asked = 5000
	for range asked {
		w.Append(&ledger.Append{Body: make([]byte, 1000), Done: rec})
	}
	close(gate)
	ok, refused := 0, 0
	for _, o := range rec.Wait(asked) {
		if o.Err == nil {
			ok++
			continue
		}
		if !errors.Is(o.Err, ledger.ErrNoSpace) {
			t.Fatal(o.Err)
		}
		refused++
	}
	if ok == 0 || refused == 0 {
		t.Fatalf("%d appends stored, %d refused", ok, refused)
	}
	if n := r.tier.journal.queueBytes.Load(); n != 0 {
		t.Fatalf("%d bytes are said to be queued, none are", n)
	}
	if o := r.append(w, 0, 1)[0]; o.Err != nil || o.Entry != int64(ok) {
		t.Fatalf("entry %d after the queue was full: %v, want entry %d", o.Entry, o.Err, ok)
	}
}

// TestLongGroupsCountInTheJournal writes groups longer than journal files.
func TestLongGroupsCountInTheJournal(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxBacklogBytes = 1 << 20 })
	w := r.create()
	for range 20 {
		rec := ledgertest.NewRecorder()
		w.Append(&ledger.Append{Body: make([]byte, 3*minFileBytes), Done: rec})
		if o := rec.Wait(1)[0]; o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	r.checkpoint()
	files := r.tier.journal.files
	files.mu.Lock()
	defer files.mu.Unlock()
	var size int64
	for _, f := range files.live {
		size += f.size
	}
	if size != files.liveBytes {
		t.Fatalf("journal files of %d bytes in all count as %d", size, files.liveBytes)
	}
}

func TestFlippedBitIsCorruptAndNeverSkipped(t *testing.T) {
	r := newRig(t, nil)
	w := r.create()
	const n = 60
	r.mustAppend(w, 0, n)
	if _, err := w.Close(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.tier.Close(); err != nil {
		t.Fatal(err)
	}
	name := r.tier.ledgerName(w.ID())
	f, err := r.mem.Open(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	size, _ := f.Size()
	_ = f.Close()
	clean := r.mem
	for off := int64(0); off < size; off += 101 {
		r.mem = clean.CrashClone(vfs.KeepEverything)
		if err := r.mem.Flip(name, off, uint(off%8)); err != nil {
			t.Fatal(err)
		}
		if rep, err := Verify(r.mem, "store", nil); err != nil || len(rep.Problems) == 0 && off >= ledgerFixedBytes {
			t.Fatalf("bit at %d: Verify reports %v, error %v", off, rep.Problems, err)
		}
		r.open(nil)
		rd, err := r.tier.Recover(r.ctx, w.ID())
		if err != nil {
			if !errors.Is(err, ledger.ErrCorrupt) {
				t.Fatalf("bit at %d: %v", off, err)
			}
			_ = r.tier.Close()
			continue
		}
		if last, _ := rd.Last(); last != n-1 {
			t.Fatalf("bit at %d moved the end to %d", off, last)
		}
		bad := 0
		for i := int64(0); i < n; i++ {
			e, err := rd.Read(r.ctx, i, i, 1)
			switch {
			case err == nil && (e.First != i || len(e.Data) != 1 || !bytes.Equal(e.Data[0], body(w.ID(), int(i)))):
				t.Fatalf("bit at %d: entry %d has wrong bytes", off, i)
			case err != nil && !errors.Is(err, ledger.ErrCorrupt):
				t.Fatalf("bit at %d: entry %d: %v", off, i, err)
			case err != nil:
				bad++
			}
			e.Release()
		}
		// A read that runs into the bad entry returns those before it.
		if all, err := ledgertest.ReadAll(r.ctx, rd, 0, n-1, 1<<20); (err != nil) != (bad > 0) || bad == 0 && len(all) != n {
			t.Fatalf("bit at %d: %d entries are bad, a read of all gave %d, error %v", off, bad, len(all), err)
		}
		_ = rd.Close()
		_ = r.tier.Close()
	}
}

func TestDamagedJournal(t *testing.T) {
	// Groups of known places: each append waits for its own.
	r := newRig(t, func(c *Config) { c.CheckpointInterval = 1 << 40 })
	w := r.create()
	var ends []int64
	for i := range 10 {
		r.mustAppend(w, i, 1)
		ends = append(ends, r.tier.behind.at.pos)
	}
	name := "store/journal/" + r.tier.journal.file.name
	dirty := r.mem.CrashClone(vfs.KeepEverything)

	t.Run("torn tail is cut", func(t *testing.T) {
		m := dirty.CrashClone(vfs.KeepEverything)
		if err := m.Flip(name, ends[8]+100, 1); err != nil {
			t.Fatal(err)
		}
		// That last group is not told apart from one never acknowledged.
		if err := keeps(m, map[ledger.ID]promise{w.ID(): {acked: 9, asked: 9}}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("bad middle is refused", func(t *testing.T) {
		for off := ends[2]; off < ends[3]-vfs.BlockBytes+300; off += 13 {
			m := dirty.CrashClone(vfs.KeepEverything)
			if err := m.Flip(name, off, uint(off%8)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(small(m))
			if err == nil || !errors.Is(err, ledger.ErrCorrupt) {
				t.Fatalf("bit at %d: %v", off-ends[2], err)
			}
			if !strings.Contains(err.Error(), "000001.journal") {
				t.Fatalf("the error does not name the file: %v", err)
			}
		}
	})
	t.Run("lost file is refused", func(t *testing.T) {
		r := newRig(t, func(c *Config) { c.CheckpointInterval = 1 << 40; c.CheckpointBytes = 1 << 40 })
		w := r.create()
		for i := 0; r.tier.journal.files.nextSeq < 5; i++ {
			r.mustAppend(w, i, 1)
		}
		live := r.tier.journal.files.live
		for i := range live[:len(live)-1] {
			m := r.mem.CrashClone(vfs.KeepEverything)
			if err := m.Remove("store/journal/" + live[i].name); err != nil {
				t.Fatal(err)
			}
			if tier, err := Open(small(m)); !errors.Is(err, ledger.ErrCorrupt) {
				if tier != nil {
					tier.Close()
				}
				t.Fatalf("journal file %d of %d is gone: %v", i, len(live), err)
			}
		}
	})
}

func TestStartUpErrors(t *testing.T) {
	mem := vfs.NewMem()
	tier, err := Open(small(mem))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(small(mem)); !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	if err := tier.Close(); err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]error{
		"quire ledger store 2\n": ErrNewerFormat, "quire ledger store 99\n": ErrNewerFormat,
		"quire ledger store x\n": ledger.ErrCorrupt, "": ledger.ErrCorrupt, "something else\n": ledger.ErrCorrupt,
	} {
		m := mem.CrashClone(vfs.KeepEverything)
		f, err := m.Open("store/FORMAT", vfs.Write)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Truncate(0)
		_, _ = f.WriteAt([]byte(content), 0)
		_ = f.Close()
		if _, err := Open(small(m)); !errors.Is(err, want) {
			t.Fatalf("FORMAT %q: %v, want %v", content, err, want)
		}
		if _, err := Verify(m, "store", nil); !errors.Is(err, want) {
			t.Fatalf("FORMAT %q: Verify: %v, want %v", content, err, want)
		}
	}
	if _, err := Open(Config{FS: mem}); err == nil {
		t.Fatal("a store without a folder was opened")
	}
	reg := prometheus.NewRegistry()
	c := small(mem)
	c.Registerer = reg
	for range 2 { // a closed store leaves no metric behind
		tier, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		families, err := reg.Gather()
		if err != nil || len(families) == 0 {
			t.Fatalf("%d metrics, error %v", len(families), err)
		}
		if err := tier.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 40 { // every failed operation of a start is reported and leaves the folder usable
		m := vfs.NewMem()
		faults := &vfs.Faults{}
		faults.Add(vfs.Fault{Skip: n, Times: 1, Err: syscall.EIO})
		tier, err := Open(small(vfs.Inject(m, faults.Check)))
		if err == nil {
			_ = tier.Close()
		} else if !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		tier, err = Open(small(m))
		if err != nil {
			t.Fatalf("after a start that failed at operation %d: %v", n, err)
		}
		if err := tier.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReservedIds(t *testing.T) {
	r := newRig(t, nil)
	r.tier.Reserve(100)
	r.tier.Reserve(7)
	w := r.create()
	if w.ID() != 101 {
		t.Errorf("the ledger after those up to 100 is %d", w.ID())
	}
	r.crash(vfs.KeepSynced)
	if w := r.create(); w.ID() <= 101 {
		t.Errorf("after a crash the next ledger is %d", w.ID())
	}
}

func TestManyIdleLedgersHoldNothing(t *testing.T) {
	r := newRig(t, nil)
	var ws []ledger.Writer
	for i := range 500 {
		w := r.create()
		r.mustAppend(w, 0, 1+i%2)
		ws = append(ws, w)
	}
	r.checkpoint()
	r.tier.cache.mu.Lock()
	open := len(r.tier.cache.m)
	r.tier.cache.mu.Unlock()
	if open > r.tier.c.MaxOpenFiles {
		t.Fatalf("%d files are open, the limit is %d", open, r.tier.c.MaxOpenFiles)
	}
	for i, w := range ws {
		r.mustAppend(w, 1+i%2, 1)
		rd := w.Reader()
		r.holds(rd, 2+i%2)
		_ = rd.Close()
	}
	r.crash(vfs.KeepSynced)
	for i, w := range ws {
		r.recovered(w.ID(), 2+i%2)
	}
}
