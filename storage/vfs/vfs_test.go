package vfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"testing"
	"unsafe"
)

// aligned returns memory that direct files take.
func aligned(n int) []byte {
	b := make([]byte, n+BlockBytes)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (BlockBytes - 1)
	return b[skip : skip+n]
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, fsys FS, name string, content string) File {
	t.Helper()
	f, err := fsys.Open(name, Write|Create)
	check(t, err)
	_, err = f.WriteAt([]byte(content), 0)
	check(t, err)
	return f
}

func content(t *testing.T, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return "(none)"
	}
	check(t, err)
	defer f.Close()
	size, err := f.Size()
	check(t, err)
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	if size > 0 {
		check(t, err)
	}
	return string(b)
}

// TestFS holds every file system to the contract.
func TestFS(t *testing.T) {
	for name, fsys := range map[string]FS{
		"os": OS, "mem": NewMem(), "inject": Inject(NewMem(), func(Op, string) error { return nil }),
	} {
		t.Run(name, func(t *testing.T) {
			dir := "base"
			if name == "os" {
				dir = t.TempDir()
			}
			dir = path.Join(dir, "a/b")
			check(t, fsys.MkdirAll(dir))
			check(t, fsys.MkdirAll(dir))
			file := path.Join(dir, "file")
			_, err := fsys.Open(file, 0)
			if !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("open of a missing file: %v", err)
			}
			f := create(t, fsys, file, "hello")
			if _, err := fsys.Open(file, Write|Create|Exclusive); !errors.Is(err, fs.ErrExist) {
				t.Fatalf("exclusive create of a file that exists: %v", err)
			}
			var bufs [][]byte
			want := []byte("hello")
			for i := range 3000 { // more than one writev takes
				b := bytes.Repeat([]byte{byte('a' + i%26)}, i%4)
				bufs = append(bufs, b)
				want = append(want, b...)
			}
			check(t, f.WriteVec(bufs, 5))
			check(t, f.SyncData())
			check(t, fsys.SyncDir(dir))
			if got := content(t, fsys, file); got != string(want) {
				t.Fatalf("file has %d bytes, want %d, or others", len(got), len(want))
			}
			b := make([]byte, 10)
			if n, err := f.ReadAt(b, int64(len(want))-4); n != 4 || !errors.Is(err, io.EOF) {
				t.Fatalf("read across the end: %d bytes, error %v", n, err)
			}
			check(t, f.Truncate(3))
			check(t, f.Truncate(6))
			if got := content(t, fsys, file); got != "hel\x00\x00\x00" {
				t.Fatalf("after truncation: %q", got)
			}
			if err := f.Preallocate(0, 8192); err != nil && !errors.Is(err, ErrUnsupported) {
				t.Fatal(err)
			}
			f.StartWriteback(0, 4096)
			f.Advise(0, 4096, WillNeed)
			f.Advise(0, 4096, DontNeed)
			check(t, f.Close())

			check(t, create(t, fsys, path.Join(dir, "other"), "x").Close())
			check(t, fsys.Rename(path.Join(dir, "other"), file))
			names, err := fsys.List(dir)
			check(t, err)
			if !slices.Equal(names, []string{"file"}) || content(t, fsys, file) != "x" {
				t.Fatalf("after the rename: %v", names)
			}
			check(t, fsys.Remove(file))
			if err := fsys.Remove(file); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("remove of a missing file: %v", err)
			}
			if _, err := fsys.List(path.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
				t.Fatalf("list of a missing folder: %v", err)
			}

			lock, err := fsys.Lock(path.Join(dir, "LOCK"))
			check(t, err)
			if _, err := fsys.Lock(path.Join(dir, "LOCK")); !errors.Is(err, ErrLocked) {
				t.Fatalf("second lock: %v", err)
			}
			check(t, lock.Close())
			lock, err = fsys.Lock(path.Join(dir, "LOCK"))
			check(t, err)
			check(t, lock.Close())

			if free, err := fsys.FreeBytes(dir); err != nil || free <= 0 {
				t.Fatalf("%d bytes free, error %v", free, err)
			}
			s, err := fsys.Syncer(dir)
			if !errors.Is(err, ErrUnsupported) {
				check(t, err)
				check(t, s.SyncAll())
				check(t, s.Close())
			}

			d, err := fsys.Open(path.Join(dir, "direct"), Write|Create|Direct)
			if errors.Is(err, ErrUnsupported) {
				return
			}
			check(t, err)
			p := aligned(2 * BlockBytes)
			copy(p, "direct")
			_, err = d.WriteAt(p, BlockBytes)
			check(t, err)
			check(t, d.SyncData())
			clear(p)
			_, err = d.ReadAt(p, BlockBytes)
			check(t, err)
			if !bytes.HasPrefix(p, []byte("direct")) {
				t.Fatal("direct file lost its bytes")
			}
			if _, err := d.WriteAt(p[:100], 0); err == nil {
				t.Fatal("a direct file took a short write")
			}
			check(t, d.Close())
		})
	}
}

func TestCrashCloneKeepsWhatWasSynced(t *testing.T) {
	m := NewMem()
	check(t, m.MkdirAll("d"))
	f := create(t, m, "d/f", "old")
	check(t, f.SyncData())
	if got := content(t, m.CrashClone(KeepSynced), "d/f"); got != "(none)" {
		t.Fatalf("a file whose folder was not synced survived: %q", got)
	}
	if got := content(t, m.CrashClone(KeepEverything), "d/f"); got != "old" {
		t.Fatalf("when everything survives: %q", got)
	}
	check(t, m.SyncDir("d"))
	_, err := f.WriteAt([]byte("new!"), 0)
	check(t, err)
	if got := content(t, m.CrashClone(KeepSynced), "d/f"); got != "old" {
		t.Fatalf("a write that was not synced survived: %q", got)
	}
	if got := content(t, m, "d/f"); got != "new!" {
		t.Fatalf("the program reads %q", got)
	}
	check(t, f.SyncData())
	check(t, m.Rename("d/f", "d/g"))
	c := m.CrashClone(KeepSynced)
	if content(t, c, "d/f") != "new!" || content(t, c, "d/g") != "(none)" {
		t.Fatal("a rename survived without a sync of the folder")
	}
	check(t, m.SyncDir("d"))
	c = m.CrashClone(KeepSynced)
	if content(t, c, "d/f") != "(none)" || content(t, c, "d/g") != "new!" {
		t.Fatal("a synced rename was lost")
	}
	check(t, m.Remove("d/g"))
	if got := content(t, m.CrashClone(KeepSynced), "d/g"); got != "new!" {
		t.Fatalf("a removal survived without a sync of the folder: %q", got)
	}
	check(t, f.Close())
}

func TestCrashCloneTearsBetweenSectors(t *testing.T) {
	m := NewMem()
	f := create(t, m, "f", "")
	check(t, m.SyncDir("."))
	_, err := f.WriteAt(bytes.Repeat([]byte{1}, 8*sectorBytes), 0)
	check(t, err)
	none, all, torn := 0, 0, 0
	for seed := uint64(2); seed < 200; seed++ {
		got := []byte(content(t, m.CrashClone(seed), "f"))
		for s := 0; s+sectorBytes <= len(got); s += sectorBytes {
			if n := bytes.Count(got[s:s+sectorBytes], []byte{1}); n != 0 && n != sectorBytes {
				t.Fatalf("seed %d tears within a sector", seed)
			}
		}
		switch n := bytes.Count(got, []byte{1}); n {
		case 0:
			none++
		case 8 * sectorBytes:
			all++
		default:
			torn++
		}
		if again := content(t, m.CrashClone(seed), "f"); again != string(got) {
			t.Fatalf("seed %d gives two clones", seed)
		}
	}
	if none == 0 || all == 0 || torn == 0 {
		t.Fatalf("of 198 clones %d lack the write, %d have it, %d have it in part", none, all, torn)
	}
	check(t, f.Close())
}

func TestMemCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(100)
	f := create(t, m, "f", string(make([]byte, 60)))
	n, err := f.WriteAt(make([]byte, 60), 60)
	if n != 40 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write beyond the capacity: %d bytes, error %v", n, err)
	}
	_, err = f.WriteAt(make([]byte, 100), 0)
	check(t, err)
	check(t, f.Truncate(10))
	if m.Used() != 10 {
		t.Fatalf("%d bytes used after truncation to 10", m.Used())
	}
	check(t, m.Remove("f"))
	if m.Used() != 10 {
		t.Fatal("an open file gave its bytes back")
	}
	check(t, f.Close())
	if m.Used() != 0 {
		t.Fatalf("%d bytes used by nothing", m.Used())
	}
}

func TestFaults(t *testing.T) {
	faults := &Faults{}
	fsys := Inject(NewMem(), faults.Check)
	f := create(t, fsys, "a.x", "")
	g := create(t, fsys, "b.y", "")
	faults.Add(Fault{Op: OpSync, Path: "*.x", Skip: 1, Times: 2, Err: syscall.EIO})
	for i, want := range []error{nil, syscall.EIO, syscall.EIO, nil} {
		check(t, g.SyncData())
		if err := f.SyncData(); !errors.Is(err, want) {
			t.Fatalf("sync %d: %v, want %v", i, err, want)
		}
	}
	faults.Add(Fault{Op: OpWrite, Err: &ShortWrite{N: BlockBytes + 1, Err: syscall.ENOSPC}})
	n, err := f.WriteAt(make([]byte, 3*BlockBytes), 0)
	if size, _ := f.Size(); n != BlockBytes || size != BlockBytes || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("short write: %d bytes, size %d, error %v", n, size, err)
	}
	if faults.Hits() != 3 {
		t.Fatalf("%d hits, want 3", faults.Hits())
	}
	faults.Clear()
	check(t, f.WriteVec([][]byte{[]byte("x")}, 0))
	check(t, f.Close())
	check(t, g.Close())
}
