package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// ErrWentBack: the etcd that answers is not the one that answered before, or has
// forgotten what that one had acknowledged: it was restored from a backup.
var ErrWentBack = errors.New("etcd has gone back")

// Position says which etcd cluster has answered, and the newest revision that it told.
type Position struct {
	Cluster  uint64
	Revision meta.Revision
}

// Position returns what the answers so far have told. Any goroutine.
func (s *Store) Position() Position {
	return Position{s.cluster.Load(), meta.Revision(s.newest.Load())}
}

// Answered returns when the store was answered last. Any goroutine.
func (s *Store) Answered() time.Time { return time.Unix(0, s.answered.Load()) }

// learn takes note of the header of an answer that is linearizable: it knows every
// revision that was told before its request was sent. One that does not is of an etcd
// which has lost some, and nothing that it says can be trusted: transactions compare
// revisions, and it gives out those that were given out once already. The store has
// failed then, and the answer must not be used.
func (r *request) learn(h *pb.ResponseHeader) error {
	s := r.s
	s.answered.Store(time.Now().UnixNano())
	if s.server != nil {
		return nil // in this process: nobody can put another one in its place
	}
	revision := h.GetRevision()
	cluster := s.cluster.Load()
	if cluster == 0 && !s.cluster.CompareAndSwap(0, h.GetClusterId()) {
		cluster = s.cluster.Load()
	}
	var why error
	switch {
	case cluster != 0 && h.GetClusterId() != cluster:
		why = fmt.Errorf("%w: cluster %x answers, and it was cluster %x", ErrWentBack, h.GetClusterId(), cluster)
	case revision < r.told:
		if s.knows(r.ctx, r.told) {
			return fmt.Errorf("%w: revision %d, and %d was told before", errBehind, revision, r.told)
		}
		why = fmt.Errorf("%w: it is at revision %d, and was at %d", ErrWentBack, revision, r.told)
	}
	if why != nil {
		s.fail(why)
		return why
	}
	for {
		newest := s.newest.Load()
		if revision <= newest || s.newest.CompareAndSwap(newest, revision) {
			return nil
		}
	}
}

// errBehind: one answer was older than what was told before it was asked for, and
// the etcd that gave it has lost nothing. The answer must not be used either.
var errBehind = errors.New("etcd answered from the past")

// knows says whether etcd knows of a revision, as it does unless it has gone back: a
// node ends for good then, so a single answer is not enough to believe it.
func (s *Store) knows(ctx context.Context, revision int64) bool {
	const again = 3
	for range again {
		resp, err := s.kv.KV.Get(ctx, "quire/", clientv3.WithCountOnly())
		if err != nil {
			// Nobody knows. What is at hand is not used, and whoever asks again comes here again.
			return true
		}
		if resp.Header.GetRevision() >= revision {
			s.logger.Warn("an answer of etcd is older than what it had told before, and is not used", zap.Int64("revision", revision))
			return true
		}
	}
	return false
}

// fail ends the service of a store on a cluster: every request is refused with why.
func (s *Store) fail(why error) {
	if s.failed.CompareAndSwap(nil, &why) {
		s.cancel()
		if s.onFailure != nil {
			s.onFailure(why)
		}
	}
}
