package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// ErrUnknownNode: no live node has the id.
var ErrUnknownNode = errors.New("no such node is live")

// drainLook is how often Drain looks by itself.
const drainLook = 50 * time.Millisecond

// Drain marks this node as draining and returns when it owns no slot any more,
// or when there is no other node that takes slots: then it keeps them. It fails
// with ErrUnavailable if the metadata store cannot be asked, or when ctx ends; the
// node goes on to drain then. It blocks.
func (c *Coordinator) Drain(ctx context.Context) error {
	if err := c.SetDraining(ctx, c.self.ID, true); err != nil {
		return err
	}
	tick := time.NewTicker(drainLook)
	defer tick.Stop()
	for {
		changed := c.RoutesChanged()
		left := c.slots.owned()
		if left == 0 || c.Self().Draining && c.slots.keeps() {
			return nil
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return unavailable(fmt.Sprintf("node %d draining, %d slots left", c.self.ID, left), ctx.Err())
		case <-c.ctx.Done():
			return unavailable("draining", meta.ErrClosed)
		}
	}
}

// keeps says whether nobody else takes this node's slots.
func (s *slots) keeps() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.abandoned {
		return true
	}
	return s.memberLocked(s.c.self.ID) || len(s.members) == 0
}

// SetDraining says whether a node is to give its slots to others and take none.
// It stays so until the node's process ends. It fails with ErrUnknownNode or
// ErrUnavailable. It blocks.
func (c *Coordinator) SetDraining(ctx context.Context, id int32, draining bool) error {
	subject := fmt.Sprintf("node %d", id)
	for {
		kv, err := c.meta.Get(ctx, c.keys.node(id))
		if errors.Is(err, meta.ErrNotFound) {
			return fmt.Errorf("%s: %w", subject, ErrUnknownNode)
		}
		if err != nil {
			return unavailable(subject, err)
		}
		var r nodeRecord
		if err := json.Unmarshal(kv.Value, &r); err != nil {
			return fmt.Errorf("metadata key %s: %w", kv.Key, err)
		}
		if r.Draining == draining {
			break
		}
		r.Draining = draining
		_, ok, err := c.meta.Txn(ctx, []meta.Cond{{Key: kv.Key, Modified: kv.Modified}}, []meta.Op{{Key: kv.Key, Value: r.encode(), Lease: kv.Lease}})
		switch {
		case err == nil && ok:
		case err != nil && !retriable(ctx, err) && !errors.Is(err, meta.ErrLeaseNotFound):
			return unavailable(subject, err)
		default:
			continue
		}
		break
	}
	// The caller finds it here at once.
	_, err := c.listNodes(ctx)
	return err
}
