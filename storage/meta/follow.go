package meta

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Follower keeps a copy of what lies under a prefix up to date by a watch. However
// the watch ends, the copy is listed again and followed from there: a copy that
// nobody changes any more looks like facts that do not change.
type Follower struct {
	Store  Store
	Prefix string

	// Changed applies what the watch brings, in order. An error says that the copy
	// is not what the store holds any more, and is answered by a listing.
	Changed func(Events) error
	// List brings the copy to the revision that it returns. No watch runs meanwhile.
	// It is called again until it succeeds.
	List func(context.Context) (Revision, error)
	// Every is after how long the copy is listed though nothing is amiss, in case the
	// watch has lost something: etcd before 3.4.31 and 3.5.13 does so when it compacts.
	// 0: never.
	Every time.Duration
	// Amiss is told why the watch ended or a listing failed, before the next attempt.
	Amiss func(error)
}

// FollowPause is the least time between two listings that something amiss asked for.
const FollowPause = 500 * time.Millisecond

// Run follows what happens after a revision until ctx ends, and returns nil; or until
// the store is closed, which is ErrClosed: then the copy stays as it is. It calls
// Changed and List on its own goroutine.
func (f *Follower) Run(ctx context.Context, after Revision) error {
	var listed time.Time
	for {
		heard, amiss := f.hear(ctx, after)
		after = heard
		for {
			if ctx.Err() != nil {
				return nil
			}
			if amiss != nil {
				f.Amiss(fmt.Errorf("follow %q: %w", f.Prefix, amiss))
				if !pause(ctx, FollowPause-time.Since(listed)) {
					return nil
				}
				listed = time.Now()
			}
			revision, err := f.List(ctx)
			if err == nil {
				after = revision
				break
			}
			if errors.Is(err, ErrClosed) {
				return fmt.Errorf("follow %q: %w", f.Prefix, err)
			}
			if amiss == nil && ctx.Err() == nil {
				// Nothing was missed: the watch goes on where it was.
				f.Amiss(fmt.Errorf("follow %q: %w", f.Prefix, err))
				break
			}
			amiss = err
		}
	}
}

// hear takes changes until the next listing is due, which is no error, and returns the
// revision that it came to.
func (f *Follower) hear(ctx context.Context, after Revision) (Revision, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.Every > 0 {
		ctx, cancel = context.WithTimeout(ctx, f.Every)
		defer cancel()
	}
	for e := range f.Store.Watch(ctx, f.Prefix, after) {
		if e.Err != nil {
			if ctx.Err() != nil {
				return after, nil
			}
			return after, e.Err
		}
		if err := f.Changed(e); err != nil {
			return after, err
		}
		after = max(after, e.Revision)
	}
	if ctx.Err() == nil {
		return after, fmt.Errorf("watch ended without a word: %w", ErrClosed)
	}
	return after, nil
}

// pause returns after d, or false when ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
