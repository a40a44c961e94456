package etcd

import (
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

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

// fail ends the service of a store on a cluster: every request is refused with why.
func (s *Store) fail(why error) {
	if s.failed.CompareAndSwap(nil, &why) {
		s.cancel()
		if s.onFailure != nil {
			s.onFailure(why)
		}
	}
}
