package bookietest

import (
	"maps"
	"slices"

	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// store is what a bookie has of its ledgers.
type store map[int64]*ledger

type ledger struct {
	key     wire.MasterKey
	fenced  bool
	entries map[int64][]byte // as stored; a slice is never changed
}

func (s store) get(id int64, key wire.MasterKey) *ledger {
	l := s[id]
	if l == nil {
		l = &ledger{key: key, entries: map[int64][]byte{}}
		s[id] = l
	}
	return l
}

func (s store) ids() []int64 { return slices.Sorted(maps.Keys(s)) }

func (s store) clone() store {
	c := store{}
	for id, l := range s {
		c[id] = &ledger{key: l.key, fenced: l.fenced, entries: maps.Clone(l.entries)}
	}
	return c
}

func (l *ledger) ids() []int64 { return slices.Sorted(maps.Keys(l.entries)) }

// last is the highest entry, wire.LastEntry if there is none.
func (l *ledger) last() int64 {
	last := int64(wire.LastEntry)
	for id := range l.entries {
		last = max(last, id)
	}
	return last
}
