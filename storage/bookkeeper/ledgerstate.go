package bookkeeper

import (
	"fmt"
	"slices"
	"sync"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
	"github.com/quirelog/quire/storage/ledger"
)

// ledgerState is what this process knows of a ledger. It is in Tier.ledgers
// while a writer or a reader of it is open.
type ledgerState struct {
	id    ledger.ID
	t     *Tier
	codec *wire.Codec

	mu      sync.Mutex
	meta    *metadata.Ledger // as last known to be stored; replaced, never changed
	version metadata.Version
	last    int64 // last acknowledged entry
	bytes   int64 // of the payloads up to it; 0 if not known
	sealed  bool
	deleted bool
	writer  *writer // of this process; it may have failed

	refs int // Tier.mu
}

// newLedgerState makes the state of a ledger as its metadata have it.
func newLedgerState(t *Tier, meta *metadata.Ledger, version metadata.Version) (*ledgerState, error) {
	codec, err := wire.NewCodec(meta.ID, meta.Digest, meta.Password)
	if err != nil {
		return nil, err
	}
	l := &ledgerState{id: ledger.ID(meta.ID), t: t, codec: codec, last: ledger.NoEntry}
	l.learn(meta, version)
	return l, nil
}

// learn takes over what the metadata store holds, unless it is older than what is known.
func (l *ledgerState) learn(meta *metadata.Ledger, version metadata.Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.meta != nil && version < l.version {
		return
	}
	l.meta, l.version = meta, version
	if meta.State == metadata.Closed {
		l.sealed, l.last, l.bytes = true, meta.LastEntry, meta.Length
	}
}

// acknowledged moves the end forward.
func (l *ledgerState) acknowledged(last, bytes int64) {
	l.mu.Lock()
	if last > l.last && !l.sealed {
		l.last, l.bytes = last, bytes
	}
	l.mu.Unlock()
}

// view is a consistent look at a ledger.
type view struct {
	meta    *metadata.Ledger
	version metadata.Version
	last    int64
	bytes   int64
	sealed  bool
}

// look returns the ledger as it is known now. ErrNotFound if it was deleted here.
func (l *ledgerState) look() (view, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deleted {
		return view{}, fmt.Errorf("ledger %d: %w", l.id, ledger.ErrNotFound)
	}
	return view{meta: l.meta, version: l.version, last: l.last, bytes: l.bytes, sealed: l.sealed}, nil
}

// payloadBytes guesses the length of an entry of the ledger.
func (v *view) payloadBytes() int64 {
	if v.last < 0 || v.bytes <= 0 {
		return 4 << 10
	}
	return max(1, v.bytes/(v.last+1))
}

// segment returns the ensemble of an entry and the last entry that has the same.
func (v *view) segment(entry int64) (s metadata.Segment, last int64) {
	segments := v.meta.Segments
	i, found := slices.BinarySearchFunc(segments, entry, func(s metadata.Segment, e int64) int {
		switch {
		case s.First < e:
			return -1
		case s.First > e:
			return 1
		}
		return 0
	})
	if !found {
		i--
	}
	if i+1 < len(segments) {
		return segments[i], min(v.last, segments[i+1].First-1)
	}
	return segments[i], v.last
}

// addTo adds to a listing what this process knows better than the metadata store.
func (l *ledgerState) addTo(i *ledger.Info) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last > i.LastEntry || l.sealed {
		i.Sealed, i.LastEntry, i.Bytes = l.sealed, l.last, l.bytes
	}
}
