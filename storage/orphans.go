package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

// orphansInterval is the time between two looks for orphans while there are none.
const orphansInterval = time.Hour

// janitor deletes the ledgers of this cluster that no chain has. A ledger becomes
// one if a crash comes between its creation and the swap that links it, or between
// the swap that drops it and its deletion. It belongs to one goroutine.
type janitor struct {
	store *Store
	// seen are the ledgers that the last look found in no chain, and when a look
	// first did, by this process's clock, which no other clock is compared with.
	seen map[ledger.ID]time.Time
	next time.Time // of the next look
}

// look looks if it is time to and this node is the one to do it.
func (j *janitor) look(ctx context.Context) {
	s := j.store
	if s.c.Housekeeper != nil && !s.c.Housekeeper() {
		j.seen, j.next = nil, time.Time{}
		return
	}
	now := s.c.Now()
	if now.Before(j.next) {
		return
	}
	j.sweep(ctx, now)
	j.next = now.Add(orphansInterval)
	if len(j.seen) > 0 {
		j.next = now.Add(s.c.OrphanAge)
	}
}

// sweep deletes the ledgers that were in no chain OrphanAge ago and are in none now.
func (j *janitor) sweep(ctx context.Context, now time.Time) {
	s := j.store
	unlinked, err := s.unlinked(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.c.Logger.Warn("orphans are not looked for now", zap.Error(err))
		}
		return
	}
	seen := make(map[ledger.ID]time.Time)
	for id, ids := range unlinked {
		var due []ledger.ID
		for _, orphan := range ids {
			first, ok := j.seen[orphan]
			switch {
			case !ok:
				seen[orphan] = now
			case now.Sub(first) < s.c.OrphanAge:
				seen[orphan] = first
			default:
				due = append(due, orphan)
			}
		}
		if len(due) == 0 {
			continue
		}
		if err := s.purge(ctx, id, due); err != nil {
			s.c.Logger.Warn("orphans are kept for now", zap.String("log", logName(id)), zap.Error(err))
			for _, orphan := range due {
				seen[orphan] = j.seen[orphan]
			}
		}
	}
	j.seen = seen
}

// unlinked returns the ledgers of this cluster that were in no chain when it looked:
// orphans, and ledgers about to be linked, here or on another node.
func (s *Store) unlinked(ctx context.Context) (map[LogID][]ledger.ID, error) {
	linked := make(map[ledger.ID]struct{})
	// All chains in one listing. Ledgers in pages are sorted out by purge.
	_, err := s.c.Meta.List(ctx, s.c.Prefix+"log/", func(kv meta.KV) bool {
		if c, err := decodeChain(kv); err == nil {
			for i := range c.links {
				linked[c.links[i].id] = struct{}{}
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	found := make(map[LogID][]ledger.ID)
	err = s.c.Tier.List(ctx, func(i ledger.Info) bool {
		p := i.Properties
		id, ok := parseLogName(p[propLog])
		if _, created := strconv.ParseInt(p[propCreated], 10, 64); p[propApplication] != application || p[propCluster] != s.c.Prefix || !ok || created != nil {
			return true // not ours
		}
		if p[propClusterID] != s.c.ClusterID {
			return true // of a cluster of the same name, whose chains are elsewhere
		}
		if _, ok := linked[i.ID]; !ok {
			found[id] = append(found[id], i.ID)
		}
		return true
	})
	return found, err
}

// purge deletes those of ids that are not in the chain of a log. Somebody may
// have made one of them and be about to link it, however long ago that was: the record
// is written first, with another count of purges, so that no swap that was prepared
// before succeeds after it; see doc.go.
func (s *Store) purge(ctx context.Context, id LogID, ids []ledger.ID) error {
	c, err := s.loadChain(ctx, id)
	if err != nil {
		return err
	}
	linked := make(map[ledger.ID]struct{}, len(c.links))
	for i := range c.links {
		linked[c.links[i].id] = struct{}{}
	}
	var orphans []ledger.ID
	for _, orphan := range ids {
		if _, ok := linked[orphan]; !ok {
			orphans = append(orphans, orphan)
		}
	}
	if len(orphans) == 0 {
		return nil
	}
	cond := []meta.Cond{{Key: s.chainKey(id), Modified: c.rev}}
	exists := error(nil)
	if c.rev == 0 {
		var conds []meta.Cond
		conds, exists = s.topicExists(ctx, id.Topic)
		if exists != nil && !errors.Is(exists, errTopicDeleted) {
			return exists
		}
		cond = append(cond, conds...)
		c.owner = rand.Uint64()
	}
	if exists == nil { // else nobody can link anything any more
		c.purges++
		_, ok, err := s.c.Meta.Txn(ctx, cond, []meta.Op{meta.Put(s.chainKey(id), c.encode())})
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: its chain changes", errConflict)
		}
	}
	for _, orphan := range orphans {
		s.c.Logger.Info("orphan deleted", zap.String("log", logName(id)), zap.Int64("ledger", int64(orphan)))
		s.handles.drop(orphan)
		if err := s.c.Tier.Delete(ctx, orphan); err != nil {
			return err
		}
	}
	return nil
}
