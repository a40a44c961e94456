package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/metadata"

	"github.com/quirelog/quire/storage/meta"
)

// rewatchDelay is how long a broken watch waits before it is made again.
const rewatchDelay = 200 * time.Millisecond

// watchMetadata names what tells the streams of watches apart. etcd ignores it.
const watchMetadata = "quire-watch"

// errStopped ends a watch whose context ended; it is never sent.
var errStopped = errors.New("watch stopped")

// Watch implements meta.Store. A watch that breaks, because its member lost the
// leader for example, goes on where it was.
func (s *Store) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	events := make(chan meta.Events, 16)
	s.open.RLock()
	defer s.open.RUnlock()
	if s.ctx.Err() != nil {
		events <- meta.Events{Err: fmt.Errorf("watch of %q: %w", prefix, meta.ErrClosed)}
		close(events)
		return events
	}
	s.background.Add(1)
	go func() {
		defer s.background.Done()
		defer close(events)
		w := watch{s: s, ctx: ctx, prefix: prefix, next: int64(max(after, 0)) + 1, to: events}
		err := w.run()
		if err == errStopped {
			return
		}
		last := meta.Events{Err: fmt.Errorf("watch of %q: %w", prefix, err)}
		select {
		case events <- last:
		case <-ctx.Done():
		case <-s.ctx.Done():
			// Nobody may be reading any more: what fits is sent.
			select {
			case events <- last:
			default:
			}
		}
	}()
	return events
}

type watch struct {
	s      *Store
	ctx    context.Context
	prefix string
	next   int64 // the first revision that was not sent
	to     chan<- meta.Events
}

// run makes the watch again and again until it cannot go on.
func (w *watch) run() error {
	for {
		if err := w.once(); err != nil {
			return err
		}
		t := time.NewTimer(rewatchDelay)
		select {
		case <-t.C:
		case <-w.ctx.Done():
			t.Stop()
			return errStopped
		case <-w.s.ctx.Done():
			t.Stop()
			return meta.ErrClosed
		}
	}
}

// once follows one watch of etcd. A nil error means that it broke and may be made again.
func (w *watch) once() error {
	// A member cut off from the others must end the watch, not keep it silent.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(w.ctx))
	defer cancel()
	// The client puts watches whose metadata are equal on one stream, and a stream keeps
	// the token with which it began: once that has expired etcd permits no new watch on
	// it, however often it is asked.
	ctx = metadata.AppendToOutgoingContext(ctx, watchMetadata, strconv.FormatUint(w.s.watches.Add(1), 10))
	key, opts := w.prefix, []clientv3.OpOption{clientv3.WithRev(w.next)}
	if key == "" {
		key, opts = "\x00", append(opts, clientv3.WithFromKey())
	} else {
		opts = append(opts, clientv3.WithPrefix())
	}
	responses := w.s.watcher.Watcher.Watch(ctx, key, opts...)
	for {
		select {
		case resp, ok := <-responses:
			if !ok {
				return nil
			}
			if resp.CompactRevision > 0 {
				return fmt.Errorf("%w: revision %d, the oldest one kept is %d", meta.ErrCompacted, w.next, resp.CompactRevision)
			}
			if err := resp.Err(); err != nil {
				w.s.logger.Warn("metadata watch broke", zap.String("prefix", w.prefix), zap.Error(err))
				return nil
			}
			if err := w.send(resp.Events); err != nil {
				return err
			}
		case <-w.ctx.Done():
			return errStopped
		case <-w.s.ctx.Done():
			return meta.ErrClosed
		}
	}
}

// send passes on events, those of one revision together. etcd never spreads a
// revision over two responses (fragments, which could, are not asked for).
func (w *watch) send(all []*clientv3.Event) error {
	for len(all) > 0 {
		revision, n := all[0].Kv.ModRevision, 1
		for n < len(all) && all[n].Kv.ModRevision == revision {
			n++
		}
		e := meta.Events{Revision: meta.Revision(revision), Events: make([]meta.Event, n)}
		for i, from := range all[:n] {
			e.Events[i] = meta.Event{KV: keyValue(from.Kv), Deleted: from.Type == clientv3.EventTypeDelete}
		}
		select {
		case w.to <- e:
		case <-w.ctx.Done():
			return errStopped
		case <-w.s.ctx.Done():
			return meta.ErrClosed
		}
		w.next = revision + 1
		all = all[n:]
	}
	return nil
}
