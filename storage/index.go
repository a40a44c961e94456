package storage

import (
	"sort"
)

// maxIndexRows bounds the index of one ledger: when it is reached, every second
// row goes and rows are made half as often. 1 GiB has a row per MiB or less.
const maxIndexRows = 1024

// indexRow says where in a ledger an offset lies, and what came before it.
type indexRow struct {
	entry  int64
	offset int64 // of the entry's first record
	before int64 // largest timestamp of all entries before this one, noTimestamp if there is none
}

const noTimestamp = -1

// index is the sparse index of one ledger: offset and time to entry. The zero
// value with every set is ready.
type index struct {
	rows  []indexRow
	every int64 // bytes between two rows
	since int64 // bytes since the last row
	max   int64 // largest timestamp so far
}

func newIndex(intervalBytes int) index {
	if intervalBytes <= 0 {
		intervalBytes = 4096
	}
	return index{every: int64(intervalBytes), max: noTimestamp}
}

// add notes a data entry.
func (x *index) add(entry, offset, bytes, maxTimestamp int64) {
	if len(x.rows) == 0 || x.since >= x.every {
		if len(x.rows) == maxIndexRows {
			for i := range maxIndexRows / 2 {
				x.rows[i] = x.rows[2*i]
			}
			x.rows = x.rows[:maxIndexRows/2]
			x.every *= 2
		}
		x.rows = append(x.rows, indexRow{entry: entry, offset: offset, before: x.max})
		x.since = 0
	}
	x.since += bytes
	x.max = max(x.max, maxTimestamp)
}

// cut forgets the entries from entry on. The largest timestamp may stay too
// large, which costs a longer search and nothing else.
func (x *index) cut(entry int64) {
	for n := len(x.rows); n > 0 && x.rows[n-1].entry >= entry; n-- {
		x.rows = x.rows[:n-1]
	}
}

// entryOf returns an entry at or before the one that holds offset.
func (x *index) entryOf(offset int64) int64 {
	i := sort.Search(len(x.rows), func(i int) bool { return x.rows[i].offset > offset })
	if i == 0 {
		return 0
	}
	return x.rows[i-1].entry
}

// entryOfTime returns an entry at or before the first one with a timestamp of
// at least t.
func (x *index) entryOfTime(t int64) int64 {
	i := sort.Search(len(x.rows), func(i int) bool { return x.rows[i].before >= t })
	if i == 0 {
		return 0
	}
	return x.rows[i-1].entry
}
