package vfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"syscall"
	"unsafe"
)

// Mem is a file system in memory that knows what a power cut may take. It
// holds a program to the words of this package: bytes are durable after
// SyncData, names after SyncDir, nothing else is. Direct files must be used
// with aligned memory, offsets and lengths.
type Mem struct {
	mu       sync.Mutex
	names    map[string]*inode // as programs see them
	durable  map[string]*inode // as a power cut leaves them at least
	dirs     map[string]bool
	pending  map[string][]dirOp // of each folder, since its last SyncDir
	locked   map[string]bool
	capacity int64
	used     int64
}

// sectorBytes is what a disk writes whole or not at all.
const sectorBytes = 512

type inode struct {
	data   []byte // as programs see it
	synced []byte // as a power cut leaves it at least
	ops    []writeOp
	open   int
	linked int
}

// writeOp is a write that no sync covers yet, or a change of size if b is nil.
type writeOp struct {
	off int64
	b   []byte
}

type dirOp struct {
	node     *inode // nil: old is removed
	old, new string // new is empty unless it is a rename
}

// NewMem returns an empty file system of unlimited size.
func NewMem() *Mem {
	return &Mem{
		names: make(map[string]*inode), durable: make(map[string]*inode), dirs: map[string]bool{".": true, "/": true},
		pending: make(map[string][]dirOp), locked: make(map[string]bool), capacity: math.MaxInt64,
	}
}

// SetCapacity bounds the bytes that files may hold; writes beyond it fail with
// ENOSPC after what still fits.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	m.capacity = bytes
	m.mu.Unlock()
}

// Used returns the bytes that files hold.
func (m *Mem) Used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Lossy kinds of CrashClone. Any other seed draws for each write and each name.
const (
	KeepSynced     uint64 = 0 // nothing survives that was not synced
	KeepEverything uint64 = 1 // everything survives, as when only the process dies
)

// CrashClone returns the disk as a power cut at this moment may leave it. What
// was not synced is, write by write, there, missing, or there in some of its
// sectors; seed decides.
func (m *Mem) CrashClone(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 1))
	choose := func(n int) int {
		switch seed {
		case KeepSynced:
			return 0
		case KeepEverything:
			return 1
		}
		return rng.IntN(n)
	}
	c := NewMem()
	c.capacity = m.capacity
	for d := range m.dirs {
		c.dirs[d] = true
	}
	names := make(map[string]*inode, len(m.durable))
	for name, n := range m.durable {
		names[name] = n
	}
	for _, dir := range slices.Sorted(maps.Keys(m.pending)) {
		for _, op := range m.pending[dir] {
			if choose(2) == 1 {
				op.apply(names)
			}
		}
	}
	clones := make(map[*inode]*inode)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		if clones[n] == nil {
			d := slices.Clone(n.synced)
			for _, op := range n.ops {
				switch choose(3) {
				case 1:
					d = op.apply(d)
				case 2:
					d = op.tear(d, rng)
				}
			}
			clones[n] = &inode{data: d, synced: slices.Clone(d)}
			c.used += int64(len(d))
		}
		clones[n].linked++
		c.names[name], c.durable[name] = clones[n], clones[n]
	}
	return c
}

func (op dirOp) apply(names map[string]*inode) {
	switch {
	case op.new != "":
		if n := names[op.old]; n != nil {
			delete(names, op.old)
			names[op.new] = n
		}
	case op.node != nil:
		names[op.old] = op.node
	default:
		delete(names, op.old)
	}
}

func (op writeOp) apply(d []byte) []byte {
	if op.b == nil {
		return resize(d, op.off)
	}
	if end := op.off + int64(len(op.b)); end > int64(len(d)) {
		d = resize(d, end)
	}
	copy(d[op.off:], op.b)
	return d
}

// tear applies some of the sectors of a write.
func (op writeOp) tear(d []byte, rng *rand.Rand) []byte {
	for off := op.off; off < op.off+int64(len(op.b)); {
		end := min((off/sectorBytes+1)*sectorBytes, op.off+int64(len(op.b)))
		if rng.IntN(2) == 1 {
			d = writeOp{off, op.b[off-op.off : end-op.off]}.apply(d)
		}
		off = end
	}
	return d
}

func resize(d []byte, n int64) []byte {
	if n <= int64(len(d)) {
		return d[:n]
	}
	// Not append: what was cut off by a truncation must read as zero.
	g := make([]byte, n, max(n, int64(2*len(d))))
	copy(g, d)
	return g
}

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func (m *Mem) note(name string, op dirOp) {
	dir := path.Dir(name)
	m.pending[dir] = append(m.pending[dir], op)
}

// Open implements FS.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	switch {
	case n != nil && mode&Exclusive != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case n == nil && (mode&Create == 0 || !m.dirs[path.Dir(name)]):
		return nil, notExist("open", name)
	case n == nil:
		n = &inode{linked: 1}
		m.names[name] = n
		m.note(name, dirOp{node: n, old: name})
	}
	n.open++
	return &memFile{m: m, n: n, name: name, mode: mode}, nil
}

// unlink forgets an inode's bytes once nothing refers to it. Call it with mu held.
func (m *Mem) unlink(n *inode) {
	if n.open == 0 && n.linked == 0 {
		m.used -= int64(len(n.data))
		n.data = nil
	}
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[name]
	if n == nil {
		return notExist("remove", name)
	}
	delete(m.names, name)
	m.note(name, dirOp{old: name})
	n.linked--
	m.unlink(n)
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	oldName, newName = path.Clean(oldName), path.Clean(newName)
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[oldName]
	if n == nil || !m.dirs[path.Dir(newName)] {
		return notExist("rename", oldName)
	}
	if path.Dir(oldName) != path.Dir(newName) {
		return &fs.PathError{Op: "rename", Path: newName, Err: errors.New("not in the same folder")}
	}
	if was := m.names[newName]; was != nil {
		was.linked--
		m.unlink(was)
	}
	delete(m.names, oldName)
	m.names[newName] = n
	m.note(newName, dirOp{node: n, old: oldName, new: newName})
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for d := path.Clean(name); !m.dirs[d]; d = path.Dir(d) {
		if m.names[d] != nil {
			return &fs.PathError{Op: "mkdir", Path: d, Err: errors.New("not a folder")}
		}
		m.dirs[d] = true
	}
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[dir] {
		return nil, notExist("list", dir)
	}
	var names []string
	for name := range m.names {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	for name := range m.dirs {
		if path.Dir(name) == dir && name != dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	dir = path.Clean(dir)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[dir] {
		return notExist("sync", dir)
	}
	for _, op := range m.pending[dir] {
		op.apply(m.durable)
	}
	delete(m.pending, dir)
	return nil
}

type memSyncer struct{ m *Mem }

// Syncer implements FS.
func (m *Mem) Syncer(string) (Syncer, error) { return memSyncer{m}, nil }

func (s memSyncer) SyncAll() error {
	m := s.m
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, ops := range m.pending {
		for _, op := range ops {
			op.apply(m.durable)
		}
	}
	clear(m.pending)
	for _, n := range m.durable {
		n.sync()
	}
	return nil
}

func (memSyncer) Close() error { return nil }

func (n *inode) sync() {
	for _, op := range n.ops {
		n.synced = op.apply(n.synced)
	}
	n.ops = nil
}

// FreeBytes implements FS.
func (m *Mem) FreeBytes(string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.capacity - m.used, nil
}

type memLock struct {
	m    *Mem
	name string
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	name = path.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locked[name] {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: ErrLocked}
	}
	m.locked[name] = true
	return memLock{m, name}, nil
}

func (l memLock) Close() error {
	l.m.mu.Lock()
	delete(l.m.locked, l.name)
	l.m.mu.Unlock()
	return nil
}

// Flip inverts one bit of a file, on the disk too.
func (m *Mem) Flip(name string, off int64, bit uint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.names[path.Clean(name)]
	if n == nil || off >= int64(len(n.data)) {
		return notExist("flip", name)
	}
	n.sync()
	n.data[off] ^= 1 << bit
	if off < int64(len(n.synced)) {
		n.synced[off] = n.data[off]
	}
	return nil
}

type memFile struct {
	m    *Mem
	n    *inode
	name string
	mode Mode
}

func (f *memFile) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

func (f *memFile) aligned(p []byte, off int64) bool {
	return f.mode&Direct == 0 || len(p) == 0 ||
		off%BlockBytes == 0 && len(p)%BlockBytes == 0 && uintptr(unsafe.Pointer(&p[0]))%sectorBytes == 0
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if !f.aligned(p, off) {
		return 0, f.fail("read", syscall.EINVAL)
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// grow makes room for a file that ends at end; it returns how far there is
// room. Call it with mu held.
func (f *memFile) grow(end int64) int64 {
	size := int64(len(f.n.data))
	if end <= size {
		return end
	}
	end = min(end, size+max(0, f.m.capacity-f.m.used))
	f.m.used += end - size
	return end
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	switch {
	case f.mode&Write == 0:
		return 0, f.fail("write", syscall.EBADF)
	case off < 0 || !f.aligned(p, off):
		return 0, f.fail("write", syscall.EINVAL)
	case len(p) == 0:
		return 0, nil
	}
	want := len(p)
	end := f.grow(off + int64(len(p)))
	if end <= off {
		return 0, f.fail("write", syscall.ENOSPC)
	}
	p = p[:min(int64(want), end-off)]
	op := writeOp{off, slices.Clone(p)}
	f.n.data = op.apply(f.n.data)
	f.n.ops = append(f.n.ops, op)
	if len(p) < want {
		return len(p), f.fail("write", syscall.ENOSPC)
	}
	return want, nil
}

func (f *memFile) WriteVec(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (f *memFile) SyncData() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.n.sync()
	return nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.mode&Write == 0 {
		return f.fail("truncate", syscall.EBADF)
	}
	was := int64(len(f.n.data))
	if size < was {
		f.m.used -= was - size
	} else if f.grow(size) < size {
		return f.fail("truncate", syscall.ENOSPC)
	}
	op := writeOp{off: size}
	f.n.data = op.apply(f.n.data)
	f.n.ops = append(f.n.ops, op)
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.n.open--; f.n.open < 0 {
		panic("vfs: file closed twice: " + f.name)
	}
	f.m.unlink(f.n)
	return nil
}

func (f *memFile) Preallocate(off, n int64) error {
	size, _ := f.Size()
	if off+n <= size {
		return nil
	}
	return f.Truncate(off + n)
}

func (f *memFile) StartWriteback(off, n int64)        {}
func (f *memFile) Advise(off, n int64, advice Advice) {}
