package coordinator

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/quirelog/quire/storage/meta"
)

// LiveNodes returns the nodes that are registered under prefix, by id: each serves, or
// has stopped without saying so for less than its lease. It is for those who have no
// Coordinator.
func LiveNodes(ctx context.Context, store meta.Store, prefix string) ([]Node, error) {
	k := keys{prefix}
	var nodes []Node
	_, err := store.List(ctx, k.nodes(), func(kv meta.KV) bool {
		id, err := strconv.ParseInt(strings.TrimPrefix(kv.Key, k.nodes()), 10, 32)
		if err != nil {
			return true
		}
		var r nodeRecord
		_ = json.Unmarshal(kv.Value, &r) // a record that cannot be read is of a node all the same
		nodes = append(nodes, r.node(int32(id)))
		return true
	})
	if err != nil {
		return nil, unavailable("nodes", err)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes, nil
}

// RenameNode gives the id of the node called from to the name to, if that has none
// yet and from has one. The node must not run.
func RenameNode(ctx context.Context, store meta.Store, prefix, from, to string) error {
	k := keys{prefix}
	kv, err := store.Get(ctx, k.nodeID(from))
	if errors.Is(err, meta.ErrNotFound) {
		return nil
	}
	if err == nil {
		_, _, err = store.Txn(ctx,
			[]meta.Cond{{Key: kv.Key, Modified: kv.Modified}, {Key: k.nodeID(to)}},
			[]meta.Op{meta.Put(k.nodeID(to), kv.Value), meta.Delete(kv.Key)})
	}
	// Nobody may know whether it was done: the name is looked up again anyway.
	if err != nil && !retriable(ctx, err) {
		return unavailable("id of node "+from, err)
	}
	return nil
}

// Placement returns the live node that owns a slot, also while it hands the slot over,
// and the node that is to own it; -1: none. Any goroutine. It does not block.
func (c *Coordinator) Placement(slot int) (owner, wanted int32) {
	s := &c.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	owner = -1
	if o := &s.state[slot]; s.mineLocked(o) || s.ownerLives(&o.slotOwner) {
		owner = o.Node
	}
	wanted, ok := s.wantedLocked(slot)
	if !ok {
		wanted = -1
	}
	return owner, wanted
}
