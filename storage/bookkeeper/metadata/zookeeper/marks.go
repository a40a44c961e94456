package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// MarkUnderReplicated implements metadata.Store.
func (s *Store) MarkUnderReplicated(ctx context.Context, id int64, missing []metadata.BookieID) error {
	what, path := fmt.Sprintf("mark of under-replicated ledger %d", id), metadata.MarkPath(id)
	for range 2 * attempts {
		fresh := metadata.Mark{Ledger: id, CreatedMS: time.Now().UnixMilli()}
		fresh.Add(missing)
		_, err := s.create(ctx, what, path, metadata.AppendMark(nil, fresh), 0, true)
		if !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
		there, err := s.get(ctx, what, path)
		if errors.Is(err, zk.ErrNoNode) {
			continue // it was done meanwhile
		}
		if err != nil {
			return err
		}
		m, err := metadata.ParseMark(id, there.data)
		if err != nil || !m.Add(missing) {
			return err
		}
		_, err = call(ctx, s, what, true, func() (*zk.Stat, error) {
			return s.conn.Set(s.root+path, metadata.AppendMark(nil, m), there.version)
		})
		if !errors.Is(err, zk.ErrBadVersion) && !errors.Is(err, zk.ErrNoNode) {
			return err
		}
	}
	return fmt.Errorf("%s: %w", what, metadata.ErrConflict)
}

// ListUnderReplicated implements metadata.Store.
func (s *Store) ListUnderReplicated(ctx context.Context, f func(metadata.Mark) bool) error {
	if err := s.sync(ctx, "under-replicated ledgers"); err != nil {
		return err
	}
	any := func(string, int) bool { return true }
	err := s.walk(ctx, metadata.UnderReplicatedPath, 4, "", any, func(n found) error {
		id, ok := metadata.ParseMarkPath(n.path)
		if !ok {
			return nil
		}
		m, err := metadata.ParseMark(id, n.node.data)
		if err != nil {
			m = metadata.Mark{Ledger: id} // it is work for somebody all the same
		}
		if !f(m) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return nil
	}
	return err
}
