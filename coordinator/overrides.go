package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// overrideRecord is the value of ovr/{slot}.
type overrideRecord struct {
	Version int   `json:"v"`
	Node    int32 `json:"node"`
}

// Overrides returns the nodes that slots are to have in place of the one that
// their hash gives, by slot. An override counts as long as its node is live and
// does not drain.
func (c *Coordinator) Overrides() map[int]int32 {
	c.slots.mu.Lock()
	defer c.slots.mu.Unlock()
	return maps.Clone(c.slots.overrides)
}

// Override makes a node the one to own a slot, to move a hot slot by hand; -1
// leaves it to the hash again. It blocks. The slot moves soon after. It fails with
// ErrUnknownNode or ErrUnavailable.
func (c *Coordinator) Override(ctx context.Context, slot int, node int32) error {
	if slot < 0 || slot >= NumSlots {
		return fmt.Errorf("slot %d: slots are 0 to %d", slot, NumSlots-1)
	}
	key := c.keys.override(slot)
	op := meta.Delete(key)
	if node >= 0 {
		if _, ok := c.Node(node); !ok {
			return fmt.Errorf("node %d: %w", node, ErrUnknownNode)
		}
		value, err := json.Marshal(overrideRecord{Version: 1, Node: node})
		if err != nil {
			return err
		}
		op = meta.Put(key, value)
	}
	for {
		// The change is the same however often it is made.
		_, _, err := c.meta.Txn(ctx, nil, []meta.Op{op})
		if err == nil {
			_, err = c.slots.listOverrides(ctx)
			return err
		}
		if !retriable(ctx, err) {
			return unavailable(fmt.Sprintf("override of slot %d", slot), err)
		}
	}
}

// listOverrides learns all overrides.
func (s *slots) listOverrides(ctx context.Context) (meta.Revision, error) {
	found := make(map[int]int32)
	revision, err := s.c.meta.List(ctx, s.c.keys.overrides(), func(kv meta.KV) bool {
		s.decodeOverride(found, meta.Event{KV: kv})
		return true
	})
	if err != nil {
		return 0, unavailable("overrides of slots", err)
	}
	s.setOverrides(found, revision)
	return revision, nil
}

// overridesChanged applies what a watch saw.
func (s *slots) overridesChanged(e meta.Events) {
	found := s.c.Overrides()
	if found == nil {
		found = make(map[int]int32)
	}
	for _, e := range e.Events {
		s.decodeOverride(found, e)
	}
	s.setOverrides(found, e.Revision)
}

func (s *slots) setOverrides(found map[int]int32, at meta.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if at > s.overridden {
		s.overrides, s.overridden = found, at
		s.look()
	}
}

// decodeOverride applies a key to overrides. One that cannot be read is none.
func (s *slots) decodeOverride(overrides map[int]int32, e meta.Event) {
	slot, ok := s.slotOf(e.Key, s.c.keys.overrides())
	if !ok {
		return
	}
	delete(overrides, slot)
	if e.Deleted {
		return
	}
	var r overrideRecord
	err := json.Unmarshal(e.Value, &r)
	if err == nil && r.Node < 1 {
		err = errors.New("no node is named")
	}
	if err != nil {
		s.c.logger.Error("override of a slot is not readable", zap.String("key", e.Key), zap.Error(err))
		return
	}
	overrides[slot] = r.Node
}
