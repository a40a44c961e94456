package zookeeper

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"
)

// fake is a ZooKeeper in memory with the semantics that the store builds on:
// parents, versions, numbered nodes, watches of children that fire once.
type fake struct {
	mu      sync.Mutex
	nodes   map[string]*znode
	watches map[string][]chan zk.Event
	closed  bool
	synced  int

	// before runs before a request, after behind it, and may fail it. Set with mu held
	// when requests may be under way.
	before, after func(op, path string) error
}

type znode struct {
	data     []byte
	version  int32
	children int32 // numbered so far
}

func newFake() *fake {
	return &fake{nodes: map[string]*znode{"/": {}}, watches: make(map[string][]chan zk.Event)}
}

func parent(path string) string {
	if i := strings.LastIndexByte(path, '/'); i > 0 {
		return path[:i]
	}
	return "/"
}

func (f *fake) do(op, path string, request func() error) error {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(op, path); err != nil {
			return err
		}
	}
	f.mu.Lock()
	err := zk.ErrClosing
	if !f.closed {
		err = request()
	}
	f.mu.Unlock()
	if after != nil {
		if err := after(op, path); err != nil {
			return err
		}
	}
	return err
}

func (f *fake) fireLocked(path string) {
	for _, ch := range f.watches[path] {
		ch <- zk.Event{Type: zk.EventNodeChildrenChanged, Path: path}
		close(ch)
	}
	delete(f.watches, path)
}

// expire ends the watches as the end of a session does.
func (f *fake) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path := range f.watches {
		f.fireLocked(path)
	}
}

func (f *fake) namesLocked(path string) []string {
	names := []string{}
	for p := range f.nodes {
		if p != "/" && parent(p) == path {
			names = append(names, p[strings.LastIndexByte(p, '/')+1:])
		}
	}
	slices.Sort(names)
	slices.Reverse(names) // ZooKeeper promises no order
	return names
}

func (f *fake) Get(path string) (data []byte, stat *zk.Stat, err error) {
	err = f.do("get", path, func() error {
		n := f.nodes[path]
		if n == nil {
			return zk.ErrNoNode
		}
		data, stat = bytes.Clone(n.data), &zk.Stat{Version: n.version}
		return nil
	})
	return data, stat, err
}

func (f *fake) Set(path string, data []byte, version int32) (stat *zk.Stat, err error) {
	err = f.do("set", path, func() error {
		n := f.nodes[path]
		if n == nil {
			return zk.ErrNoNode
		}
		if version != -1 && version != n.version {
			return zk.ErrBadVersion
		}
		n.data, n.version = bytes.Clone(data), n.version+1
		stat = &zk.Stat{Version: n.version}
		return nil
	})
	return stat, err
}

func (f *fake) Create(path string, data []byte, flags int32, acl []zk.ACL) (made string, err error) {
	err = f.do("create", path, func() error {
		p := f.nodes[parent(path)]
		if p == nil {
			return zk.ErrNoNode
		}
		if made = path; flags&zk.FlagSequence != 0 {
			made = fmt.Sprintf("%s%010d", path, p.children)
		}
		if f.nodes[made] != nil {
			return zk.ErrNodeExists
		}
		p.children++
		f.nodes[made] = &znode{data: bytes.Clone(data)}
		f.fireLocked(parent(made))
		return nil
	})
	return made, err
}

func (f *fake) Delete(path string, version int32) error {
	return f.do("delete", path, func() error {
		n := f.nodes[path]
		switch {
		case n == nil:
			return zk.ErrNoNode
		case version != -1 && version != n.version:
			return zk.ErrBadVersion
		case len(f.namesLocked(path)) > 0:
			return zk.ErrNotEmpty
		}
		delete(f.nodes, path)
		f.fireLocked(parent(path))
		return nil
	})
}

func (f *fake) Children(path string) (names []string, stat *zk.Stat, err error) {
	err = f.do("children", path, func() error {
		if f.nodes[path] == nil {
			return zk.ErrNoNode
		}
		names = f.namesLocked(path)
		return nil
	})
	return names, &zk.Stat{}, err
}

func (f *fake) ChildrenW(path string) (names []string, stat *zk.Stat, changed <-chan zk.Event, err error) {
	err = f.do("children", path, func() error {
		if f.nodes[path] == nil {
			return zk.ErrNoNode
		}
		names = f.namesLocked(path)
		ch := make(chan zk.Event, 1)
		f.watches[path] = append(f.watches[path], ch)
		changed = ch
		return nil
	})
	return names, &zk.Stat{}, changed, err
}

func (f *fake) Sync(path string) (string, error) {
	return path, f.do("sync", path, func() error {
		f.synced++
		return nil
	})
}

func (f *fake) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for path := range f.watches {
		f.fireLocked(path)
	}
}
