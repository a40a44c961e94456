package offsets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/quirelog/quire/storage/meta"
)

// Load reads the groups and offsets of a slot that this node owns: owner is the
// key and revision of the owner record by which it claimed the slot. It reads
// after the claim, so it sees all that earlier owners have committed, and they
// commit nothing more.
//
// f is called for each group of the slot, on the caller's goroutine and in no
// order, with the group's record, or with nil for a group that has only
// offsets. An error of f ends the loading and is returned. After an error of
// any kind what f was told is void.
//
// A key that cannot be read does not keep the others from being used: it is left
// out, and Slot.Unreadable names it. Its group has offsets that are not known.
//
// A Slot that was loaded before for the same slot is released first. One slot is
// loaded by one caller at a time. Errors: ErrUnavailable, ErrQueueFull,
// ErrClosed, those of meta.Store, f's.
func (c *Committer) Load(ctx context.Context, slot int, owner meta.Cond, f func(group string, record []byte) error) (*Slot, error) {
	s := &Slot{committer: c, number: slot, owner: owner, groups: make(map[string]*groupTable)}
	doubts, err := c.settle(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("groups of slot %d: %w", slot, err)
	}
	if err := s.readRecords(ctx, f); err != nil {
		return nil, fmt.Errorf("groups of slot %d: %w", slot, err)
	}
	if err := s.readOffsets(ctx, f); err != nil {
		return nil, fmt.Errorf("offsets of slot %d: %w", slot, err)
	}
	if err := c.slotLoaded(s, doubts); err != nil {
		return nil, fmt.Errorf("groups of slot %d: %w", slot, err)
	}
	return s, nil
}

// Unreadable is a key of a slot that Load could not read.
type Unreadable struct {
	Err      error  // ErrFormat, with the key's name
	Group    string // whose it is, if HasGroup
	HasGroup bool   // else it is no group's
}

// Unreadable returns what Load could not read of the slot. The owner must not
// answer from the offsets of these groups. It does not change.
func (s *Slot) Unreadable() []Unreadable { return s.unreadable }

// skip takes note of a key that cannot be read. escaped is its group as the key has it.
func (s *Slot) skip(escaped string, err error) {
	group, ok := unescape(escaped)
	s.unreadable = append(s.unreadable, Unreadable{Err: err, Group: group, HasGroup: ok})
}

// settle makes sure that nothing is on its way that was committed by an earlier
// Slot of the same number: with the same owner record, it would be written after
// it was read.
func (c *Committer) settle(ctx context.Context, s *Slot) (doubts int, err error) {
	c.mu.Lock()
	before := c.mu.slots[s.number]
	doubts = c.mu.doubts
	c.mu.Unlock()
	if before != nil {
		before.Release()
	}
	done := make(chan error, 1)
	if err := c.queue(item{kind: barrierItem, slot: s, done: func(err error) { done <- err }}); err != nil {
		return 0, err
	}
	select {
	case err := <-done:
		return doubts, err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Flush queues an item that changes nothing: when it is answered with nil, all
// that was queued before it has been answered.
func (s *Slot) Flush(done func(error)) error {
	return s.committer.queue(item{kind: barrierItem, slot: s, done: done})
}

func (s *Slot) readRecords(ctx context.Context, f func(string, []byte) error) error {
	prefix := s.committer.c.Keys.Records(s.number)
	return s.list(ctx, prefix, func(kv meta.KV) error {
		group, ok := unescape(kv.Key[len(prefix):])
		if !ok {
			s.skip(kv.Key[len(prefix):], fmt.Errorf("%w: key %s", ErrFormat, kv.Key))
			return nil
		}
		s.groups[group] = &groupTable{record: kv.Modified}
		return f(group, recordOf(kv))
	})
}

func (s *Slot) readOffsets(ctx context.Context, f func(string, []byte) error) error {
	prefix := s.committer.c.Keys.Offsets(s.number)
	var escaped string
	var g *groupTable
	err := s.list(ctx, prefix, func(kv meta.KV) error {
		name, k, err := readChunk(prefix, kv)
		if err != nil {
			s.skip(name, err)
			return nil
		}
		if g == nil || name != escaped {
			group, ok := unescape(name)
			if !ok {
				s.skip(name, fmt.Errorf("%w: key %s", ErrFormat, kv.Key))
				return nil
			}
			escaped = strings.Clone(name)
			if g = s.groups[group]; g == nil {
				g = s.groupLocked(group)
				if err := f(group, nil); err != nil {
					return err
				}
			}
		}
		g.chunks = append(g.chunks, k)
		return nil
	})
	for _, g := range s.groups {
		g.sort()
	}
	return err
}

// readChunk checks a listed key, and its value, below prefix. escaped is what
// stands in the place of the group, also with an error.
func readChunk(prefix string, kv meta.KV) (escaped string, k tableChunk, err error) {
	escaped, topic, number, ok := parseChunk(kv.Key[len(prefix):])
	if !ok {
		return escaped, k, fmt.Errorf("%w: key %s", ErrFormat, kv.Key)
	}
	if err := checkChunk(kv.Value); err != nil {
		return escaped, k, fmt.Errorf("value of key %s: %w", kv.Key, err)
	}
	return escaped, tableChunk{topic: topic, number: number, value: kv.Value}, nil
}

// sort brings the order of the keys' text into that of the table.
func (g *groupTable) sort() {
	compare := func(a, b tableChunk) int { return a.compare(&b.topic, b.number) }
	if !slices.IsSortedFunc(g.chunks, compare) {
		slices.SortFunc(g.chunks, compare)
	}
	g.chunks = slices.Clip(g.chunks)
}

// list is Store.List with a callback that can fail.
func (s *Slot) list(ctx context.Context, prefix string, f func(meta.KV) error) error {
	var failed error
	_, err := s.committer.c.Store.List(ctx, prefix, func(kv meta.KV) bool {
		failed = f(kv)
		return failed == nil
	})
	if err == nil {
		err = failed
	}
	return err
}

// readGroup reads one group as Load reads all.
func (s *Slot) readGroup(ctx context.Context, group string) (record []byte, g *groupTable, err error) {
	keys := s.committer.c.Keys
	g = &groupTable{}
	kv, err := s.committer.c.Store.Get(ctx, keys.Record(s.number, group))
	switch {
	case err == nil:
		record, g.record = recordOf(kv), kv.Modified
	case !errors.Is(err, meta.ErrNotFound):
		return nil, nil, err
	}
	prefix := keys.Offsets(s.number)
	err = s.list(ctx, keys.GroupOffsets(s.number, group), func(kv meta.KV) error {
		_, k, err := readChunk(prefix, kv)
		g.chunks = append(g.chunks, k)
		return err
	})
	g.sort()
	return record, g, err
}

// recordOf is a record's bytes, not nil: nil says that there is no record.
func recordOf(kv meta.KV) []byte {
	if kv.Value == nil {
		return []byte{}
	}
	return kv.Value
}
