package bookie

import (
	"fmt"
	"sync/atomic"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// budget counts the bytes of adds under way to a bookie, from Add until they are
// written and answered or given up, and says when they are many.
type budget struct {
	bookie  metadata.BookieID
	limit   int64
	watched bool
	changed func() // has somebody call pressure; called with locks held

	used atomic.Int64
	high atomic.Bool // what pressure last said
}

// take refuses with ErrOverloaded what would exceed the limit, unless it is alone.
func (b *budget) take(n int64) error {
	used := b.used.Add(n)
	if used > b.limit && used != n {
		b.used.Add(-n)
		return fmt.Errorf("bookie %s: %w: %d of %d", b.bookie, ErrOverloaded, used-n, b.limit)
	}
	if b.watched && used > b.limit/2 && !b.high.Load() {
		b.changed()
	}
	return nil
}

func (b *budget) give(n int64) {
	used := b.used.Add(-n)
	if b.watched && used < b.limit/4 && b.high.Load() {
		b.changed()
	}
}

// pressure says whether there is any, and whether that is news. Only the clock's
// goroutine calls it. It looks at the count again after it has changed high: who
// changed the count in between saw the old high, and poked nobody.
func (b *budget) pressure() (high, news bool) {
	used, high := b.used.Load(), b.high.Load()
	if !high && used > b.limit/2 || high && used < b.limit/4 {
		b.high.Store(!high)
		if used = b.used.Load(); high && used > b.limit/2 || !high && used < b.limit/4 {
			b.changed()
		}
		return !high, true
	}
	return high, false
}
