package bookkeeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/ledger"
)

const (
	// storeAttempt bounds one request to the metadata store of those that are repeated.
	storeAttempt  = 5 * time.Second
	minStorePause = 20 * time.Millisecond
	maxStorePause = time.Second
)

// update stores l if the stored version is still version, and repeats that until
// the store answers one way or the other, or ctx ends. ErrConflict comes with what
// is stored instead, ErrNotFound if the ledger is gone.
func (t *Tier) update(ctx context.Context, l *metadata.Ledger, version metadata.Version) (stored *metadata.Ledger, next metadata.Version, err error) {
	err = t.insist(ctx, func(ctx context.Context) error {
		var err error
		if next, err = t.c.Store.Update(ctx, l, version); !errors.Is(err, metadata.ErrConflict) {
			return err
		}
		// The update as such is decided; only the answer to it takes a read, which
		// is repeated together with it.
		if stored, next, err = t.c.Store.Read(ctx, l.ID); err != nil {
			return err
		}
		return fmt.Errorf("ledger %d: %w", l.ID, metadata.ErrConflict)
	})
	return stored, next, err
}

// insist repeats f while the metadata store does not answer.
func (t *Tier) insist(ctx context.Context, f func(context.Context) error) error {
	pause := minStorePause
	for attempt := 1; ; attempt++ {
		bounded, cancel := context.WithTimeout(ctx, storeAttempt)
		err := f(bounded)
		timedOut := bounded.Err() != nil
		cancel()
		again := errors.Is(err, metadata.ErrUnavailable) || errors.Is(err, metadata.ErrUnknownOutcome) || err != nil && timedOut
		if !again {
			return err
		}
		if attempt == 1 {
			t.log.Warn("metadata store does not answer, trying on", zap.Error(err))
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		pause = min(2*pause, maxStorePause)
	}
}

// read returns a ledger's metadata. ledger.ErrNotFound.
func (t *Tier) read(ctx context.Context, id ledger.ID) (*metadata.Ledger, metadata.Version, error) {
	meta, version, err := t.c.Store.Read(ctx, int64(id))
	return meta, version, storeError(err)
}

// storeError gives an error of the metadata store the contract's word for it.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, metadata.ErrNotFound):
		return fmt.Errorf("%w: %w", ledger.ErrNotFound, err)
	case errors.Is(err, metadata.ErrCorrupt):
		return fmt.Errorf("%w: %w", ledger.ErrCorrupt, err)
	}
	return err
}
