package zookeeper

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// rereadDelay is how long a reading of the registrations that failed, or a folder
// of them that nobody has made yet, waits before the next.
const rereadDelay = 500 * time.Millisecond

// folder is a node below which bookies register, and what was last read of it.
// A bookie that registers anew deletes its old node, so that names tell all changes.
type folder struct {
	path     string
	readOnly bool
	names    []string
	bookies  []metadata.Registration
	changed  <-chan zk.Event // a watch of names, which fires once; nil: there is none
	complete bool            // bookies are those of names
}

// Bookies implements metadata.Store.
func (s *Store) Bookies(ctx context.Context) (*metadata.Registry, error) {
	if err := s.sync(ctx, "registered bookies"); err != nil {
		return nil, err
	}
	writable := &folder{path: metadata.AvailablePath}
	readOnly := &folder{path: metadata.AvailablePath + "/" + metadata.ReadOnlyName, readOnly: true}
	for _, f := range []*folder{writable, readOnly} {
		if err := s.read(ctx, f); err != nil {
			return nil, err
		}
	}
	all := func() []metadata.Registration { return slices.Concat(writable.bookies, readOnly.bookies) }
	return metadata.Follow(all(), func(ctx context.Context, set func([]metadata.Registration)) {
		for {
			var again <-chan time.Time
			if !writable.complete || !readOnly.complete || writable.changed == nil || readOnly.changed == nil {
				again = time.After(rereadDelay)
			}
			select {
			case <-writable.changed:
				writable.changed = nil
			case <-readOnly.changed:
				readOnly.changed = nil
			case <-again:
			case <-s.closed:
				return
			case <-ctx.Done():
				return
			}
			// What fails stays as it was, and is read again.
			if s.read(ctx, writable) == nil && s.read(ctx, readOnly) == nil {
				set(all())
			}
		}
	}), nil
}

// read brings a folder up to date. A folder that does not exist is empty.
func (s *Store) read(ctx context.Context, f *folder) error {
	if f.changed != nil && f.complete {
		return nil
	}
	f.complete = false
	if f.changed == nil {
		type listing struct {
			names   []string
			changed <-chan zk.Event
		}
		l, err := call(ctx, s, f.path, false, func() (listing, error) {
			names, _, changed, err := s.conn.ChildrenW(s.root + f.path)
			return listing{names, changed}, err
		})
		if errors.Is(err, zk.ErrNoNode) {
			f.names, f.bookies, f.complete = nil, nil, true
			return nil
		}
		if err != nil {
			return err
		}
		f.names, f.changed = l.names, l.changed
	}
	var bookies []metadata.Registration
	for _, n := range s.readAll(ctx, f.path, f.names) {
		name := n.path[len(f.path)+1:]
		id := metadata.BookieID(name)
		switch {
		case errors.Is(n.err, zk.ErrNoNode) || !id.Valid():
			continue // it went, or is the other folder
		case n.err != nil:
			return n.err
		}
		// One whose data is damaged is still registered: its id is its address,
		// unless its operator chose it.
		info, err := metadata.ParseServiceInfo(n.node.data)
		if err != nil {
			info = metadata.ServiceInfo{}
		}
		bookies = append(bookies, metadata.Registration{ID: id, ReadOnly: f.readOnly, Info: info})
	}
	f.bookies, f.complete = bookies, true
	return nil
}
