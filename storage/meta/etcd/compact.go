package etcd

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

const (
	// compactEvery bounds how much dead history etcd carries. Without compaction
	// 10,000 commits/s would fill the quota within hours.
	compactEvery = 30 * time.Second
	// keepRevisions of history remain for watches that resume and listings that page.
	keepRevisions = 10_000
)

// startCompaction runs the compaction loop. Several nodes may run it on one
// cluster: whoever comes later finds the revision compacted already.
func (s *Store) startCompaction() {
	s.background.Add(1)
	go func() {
		defer s.background.Done()
		tick := time.NewTicker(compactEvery)
		defer tick.Stop()
		var previous, done int64
		for {
			select {
			case <-tick.C:
			case <-s.ctx.Done():
				return
			}
			previous, done = s.compactOnce(previous, done)
		}
	}()
}

// compactOnce compacts up to previous, the revision of the last look, so that at
// least compactEvery of history remains however fast revisions go by; and never
// the last keepRevisions. It returns the present revision and the one compacted.
func (s *Store) compactOnce(previous, done int64) (present, compacted int64) {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	resp, err := s.kv.KV.Get(ctx, "quire/")
	if err != nil {
		return previous, done
	}
	present = resp.Header.Revision
	to := min(previous, present-keepRevisions)
	if to <= done {
		return present, done
	}
	if err := s.Compact(ctx, meta.Revision(to)); err != nil && classify(err, false) != meta.ErrCompacted && s.ctx.Err() == nil {
		s.logger.Warn("metadata history was not compacted", zap.Int64("revision", to), zap.Error(err))
		return present, done
	}
	return present, to
}

// Compact forgets the history before revision: a watch that would begin there
// gets ErrCompacted. The store does this by itself too.
func (s *Store) Compact(ctx context.Context, revision meta.Revision) error {
	if _, err := s.kv.KV.Compact(ctx, int64(revision)); err != nil {
		return fmt.Errorf("compact to revision %d: %w: %s", revision, classify(err, false), err)
	}
	return nil
}
