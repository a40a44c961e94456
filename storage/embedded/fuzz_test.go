package embedded

import (
	"context"
	"errors"
	"testing"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/ledger/ledgertest"
	"github.com/quirelog/quire/storage/vfs"
)

// used returns a store with something in each kind of file, as a crash leaves it.
func used(t testing.TB) (mem *vfs.Mem, files []string, ids []ledger.ID) {
	mem = vfs.NewMem()
	tier, err := Open(small(mem))
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	for i := range 4 {
		w, err := tier.Create(ctx, ledger.Properties{"n": "x"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, w.ID())
		rec := ledgertest.NewRecorder()
		for k := range 40 {
			w.Append(&ledger.Append{Body: body(w.ID(), k), Done: rec})
		}
		rec.Wait(40)
		if i%2 == 0 {
			if _, err := w.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	clone := mem.CrashClone(vfs.KeepEverything)
	if err := tier.Close(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"store/journal", "store/ledgers"} {
		names, err := clone.List(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			files = append(files, dir+"/"+name)
		}
	}
	return clone, append(files, "store/"+checkpointFile, "store/"+formatFile), ids
}

// FuzzOpen puts arbitrary bytes somewhere into a file of a store. Opening and
// reading it must give an error or the right entries.
func FuzzOpen(f *testing.F) {
	mem, files, ids := used(f)
	f.Add(uint8(0), uint32(0), []byte{1})
	for i := range files {
		f.Add(uint8(i), uint32(0), make([]byte, 100))
		f.Add(uint8(i), uint32(8192+40), []byte{0xff, 0xff, 0xff, 0xff})
		f.Add(uint8(i), uint32(130), []byte{0xff, 0xff, 0xff, 0x1f})
		f.Add(uint8(i), uint32(1<<31), []byte("cut"))
	}
	f.Fuzz(func(t *testing.T, file uint8, off uint32, b []byte) {
		m := mem.CrashClone(vfs.KeepEverything)
		h, err := m.Open(files[int(file)%len(files)], vfs.Write)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := h.Size()
		if size == 0 {
			return
		}
		if off >= 1<<31 {
			err = h.Truncate(int64(off) % size)
		} else if _, err = h.WriteAt(b, int64(off)%size); err == nil && len(b) == 0 {
			err = h.Truncate(size - 1)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(m, "store", func(string) {}); err != nil && !known(err) {
			t.Fatalf("Verify: %v", err)
		}
		tier, err := Open(small(m))
		if err != nil {
			if !known(err) {
				t.Fatalf("Open: %v", err)
			}
			return
		}
		defer tier.Close()
		ctx := context.Background()
		for _, id := range ids {
			r, err := tier.Recover(ctx, id)
			if err != nil {
				if !known(err) {
					t.Fatalf("Recover: %v", err)
				}
				continue
			}
			last, _ := r.Last()
			all, err := ledgertest.ReadAll(ctx, r, 0, min(last, 1000), 4000)
			if err != nil && !known(err) {
				t.Fatalf("Read: %v", err)
			}
			for i, got := range all {
				if want := body(id, i); string(got) != string(want) {
					t.Fatalf("entry %d of ledger %d has wrong bytes", i, id)
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func known(err error) bool {
	return errors.Is(err, ledger.ErrCorrupt) || errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ErrNewerFormat)
}

// FuzzGroup walks arbitrary bytes as a group whose header claims to match them.
func FuzzGroup(f *testing.F) {
	g := make([]byte, 300)
	body := make([]byte, 50)
	sealFrame(body, kindEntry, 26, 7, 3)
	(&runHeader{kind: runEntries, n: 50, id: 7, first: 3, pos: 128, count: 1}).put(g[groupHeaderBytes:])
	copy(g[groupHeaderBytes+runHeaderBytes:], body)
	f.Add(g[:groupHeaderBytes+runHeaderBytes+50], uint32(0), 1)
	f.Fuzz(func(t *testing.T, b []byte, chain uint32, runs int) {
		if len(b) < groupHeaderBytes {
			return
		}
		parseGroupHeader(b, 1, 1, 0)
		h := groupHeader{length: len(b), chain: chain, runs: runs}
		if err := walkGroup(h, b, func(runHeader, []byte) error { return nil }); err != nil && !errors.Is(err, errBadGroup) {
			t.Fatal(err)
		}
	})
}
