package zookeeper

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/go-zookeeper/zk"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// readAhead is how many nodes of a listing are read at once.
const readAhead = 32

// children returns the names below a node in order, none if there is no node.
func (s *Store) children(ctx context.Context, path string) ([]string, error) {
	names, err := s.childrenOf(ctx, path)
	if errors.Is(err, zk.ErrNoNode) {
		err = nil
	}
	return names, err
}

func (s *Store) childrenOf(ctx context.Context, path string) ([]string, error) {
	what := path
	if what == "" {
		what = "ledgers"
	}
	names, err := call(ctx, s, what, false, func() ([]string, error) {
		names, _, err := s.conn.Children(strings.TrimSuffix(s.root+path, "/"))
		return names, err
	})
	slices.Sort(names)
	return names, err
}

// found is a node of a listing.
type found struct {
	path string
	node node
	err  error // of reading it; zk.ErrNoNode: it went meanwhile
}

// errStop ends a listing because its caller wants no more.
var errStop = errors.New("enough is listed")

// walk calls f for the nodes at the given depth below a path whose names folder
// and leaf accept, in order, from the path from on.
func (s *Store) walk(ctx context.Context, path string, depth int, from string, accept func(name string, depth int) bool, f func(found) error) error {
	names, err := s.children(ctx, path)
	if err != nil {
		return err
	}
	// Only below the first folders of from has anything to be left out.
	first, rest, _ := strings.Cut(from, "/")
	names = slices.DeleteFunc(names, func(name string) bool { return !accept(name, depth) || name < first })
	if depth == 0 {
		for chunk := range slices.Chunk(names, readAhead) {
			for _, n := range s.readAll(ctx, path, chunk) {
				if errors.Is(n.err, zk.ErrNoNode) {
					continue
				}
				if n.err != nil {
					return n.err
				}
				if err := f(n); err != nil {
					return err
				}
			}
		}
		return nil
	}
	for _, name := range names {
		below := ""
		if name == first {
			below = rest
		}
		if err := s.walk(ctx, join(path, name), depth-1, below, accept, f); err != nil {
			return err
		}
	}
	return nil
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "/" + name
}

// readAll reads nodes beside each other.
func (s *Store) readAll(ctx context.Context, path string, names []string) []found {
	all := make([]found, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			p := join(path, name)
			n, err := s.get(ctx, p, p)
			all[i] = found{p, n, err}
		})
	}
	wg.Wait()
	return all
}

// List implements metadata.Store.
func (s *Store) List(ctx context.Context, from int64, f func(metadata.Listed) bool) error {
	if err := s.sync(ctx, "ledgers"); err != nil {
		return err
	}
	from = max(from, 0)
	visit := func(n found) error {
		id, ok := metadata.ParseLedgerPath(n.path)
		if !ok {
			return nil
		}
		l, err := metadata.ParseLedger(id, n.node.data)
		if !f(metadata.Listed{ID: id, Version: metadata.Version(n.node.version), Ledger: l, Err: err}) {
			return errStop
		}
		return nil
	}
	// Ids of 31 bits lie below names of two digits, those of 63 below names of three.
	short := func(name string, depth int) bool { return ledgerName(name, depth, 2, 2) }
	long := func(name string, depth int) bool { return ledgerName(name, depth, 4, 3) }
	var err error
	if from < metadata.MaxShortID {
		err = s.walk(ctx, "", 2, metadata.LedgerPath(from), short, visit)
	}
	if err == nil {
		err = s.walk(ctx, "", 4, metadata.LedgerPath(max(from, metadata.MaxShortID)), long, visit)
	}
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}

// ledgerName says whether a name belongs to a ledger's path: digits, as many as
// the top has there, else four, behind an L in the leaf.
func ledgerName(name string, depth, topDepth, topDigits int) bool {
	digits := 4
	switch depth {
	case 0:
		if name == "" || name[0] != 'L' {
			return false
		}
		name = name[1:]
	case topDepth:
		digits = topDigits
	}
	return len(name) == digits && strings.Trim(name, "0123456789") == ""
}
