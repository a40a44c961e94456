package mem_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

// breakable is a store whose watches end when the test wants it, and whose listings fail.
type breakable struct {
	meta.Store
	mu      sync.Mutex
	end     chan struct{} // closed: watches end
	why     error         // nil: without a word
	lists   int
	failing error
}

func (b *breakable) Watch(ctx context.Context, prefix string, after meta.Revision) <-chan meta.Events {
	b.mu.Lock()
	end := b.end
	b.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	from, to := b.Store.Watch(ctx, prefix, after), make(chan meta.Events)
	go func() {
		defer close(to)
		defer cancel()
		for {
			select {
			case e, ok := <-from:
				if !ok {
					return
				}
				select {
				case to <- e:
				case <-ctx.Done():
					return
				}
			case <-end:
				b.mu.Lock()
				why := b.why
				b.mu.Unlock()
				if why != nil {
					select {
					case to <- meta.Events{Err: why}:
					case <-ctx.Done():
					}
				}
				return
			}
		}
	}()
	return to
}

func (b *breakable) List(ctx context.Context, prefix string, f func(meta.KV) bool) (meta.Revision, error) {
	b.mu.Lock()
	b.lists++
	err := b.failing
	b.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return b.Store.List(ctx, prefix, f)
}

// breakWatch ends the watches, and every new one at once, until mend.
func (b *breakable) breakWatch(why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why = why
	close(b.end)
}

func (b *breakable) mend() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end, b.failing = make(chan struct{}), nil
}

func (b *breakable) listings() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lists
}

// followed is a copy of what lies under a prefix.
type followed struct {
	mu    sync.Mutex
	keys  map[string]string
	wrong error // what Changed returns once
	amiss []error
}

func (c *followed) follower(s meta.Store) *meta.Follower {
	return &meta.Follower{
		Store: s, Prefix: "f/",
		Changed: func(e meta.Events) error {
			c.mu.Lock()
			defer c.mu.Unlock()
			if err := c.wrong; err != nil {
				c.wrong = nil
				return err
			}
			for _, e := range e.Events {
				if e.Deleted {
					delete(c.keys, e.Key)
				} else {
					c.keys[e.Key] = string(e.Value)
				}
			}
			return nil
		},
		List: func(ctx context.Context) (meta.Revision, error) {
			found := map[string]string{}
			revision, err := s.List(ctx, "f/", func(kv meta.KV) bool { found[kv.Key] = string(kv.Value); return true })
			if err == nil {
				c.mu.Lock()
				c.keys = found
				c.mu.Unlock()
			}
			return revision, err
		},
		Amiss: func(err error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.amiss = append(c.amiss, err)
		},
	}
}

func (c *followed) has() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.keys)
}

// TestFollower: a copy is right again after its watch has ended, for whatever reason.
func TestFollower(t *testing.T) {
	for name, why := range map[string]error{
		"compacted":       meta.ErrCompacted,
		"no leader":       fmt.Errorf("%w: no leader", meta.ErrUnavailable),
		"not permitted":   errors.New("etcdserver: permission denied"),
		"token expired":   errors.New("etcdserver: invalid auth token"),
		"says closed":     meta.ErrClosed,
		"without a word":  nil,
		"copy is spoiled": errors.New("spoiled"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &breakable{Store: mem.New(nil), end: make(chan struct{})}
				defer b.Store.Close()
				c := &followed{keys: map[string]string{}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- c.follower(b).Run(ctx, 0) }()
				put := func(key, value string) {
					t.Helper()
					if _, ok, err := b.Txn(t.Context(), nil, []meta.Op{meta.Put(key, []byte(value))}); err != nil || !ok {
						t.Fatal(ok, err)
					}
				}
				want := func(want map[string]string) {
					t.Helper()
					synctest.Wait()
					if got := c.has(); !maps.Equal(got, want) {
						t.Errorf("the copy is %v, want %v", got, want)
					}
				}
				put("f/a", "1")
				put("f/b", "1")
				want(map[string]string{"f/a": "1", "f/b": "1"})

				if name == "copy is spoiled" {
					c.mu.Lock()
					c.wrong = why
					c.mu.Unlock()
				} else {
					// Nothing can be listed at first either.
					b.mu.Lock()
					b.failing = meta.ErrUnavailable
					b.mu.Unlock()
					b.breakWatch(why)
				}
				synctest.Wait()
				put("f/a", "2")
				if _, _, err := b.Txn(t.Context(), nil, []meta.Op{meta.Delete("f/b")}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * meta.FollowPause) // of the bubble's clock
				b.mend()
				time.Sleep(5 * meta.FollowPause)
				want(map[string]string{"f/a": "2"})
				put("f/c", "3")
				want(map[string]string{"f/a": "2", "f/c": "3"})
				if n := b.listings(); n == 0 || n > 12 {
					t.Errorf("listed %d times", n)
				}
				c.mu.Lock()
				if len(c.amiss) == 0 || why != nil && !errors.Is(c.amiss[0], why) {
					t.Errorf("what is told is %v, want %v first", c.amiss, why)
				}
				c.mu.Unlock()

				cancel()
				if err := <-ended; err != nil {
					t.Errorf("ended with %v", err)
				}
			})
		})
	}
}

// TestFollowerClosed: whoever follows learns that the store has closed.
func TestFollowerClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New(nil)
		c := &followed{keys: map[string]string{}}
		ended := make(chan error, 1)
		go func() { ended <- c.follower(s).Run(t.Context(), 0) }()
		synctest.Wait()
		s.Close()
		if err := <-ended; !errors.Is(err, meta.ErrClosed) {
			t.Errorf("ended with %v, want ErrClosed", err)
		}
	})
}

// TestFollowerEvery: what a watch has lost is found by the next listing, and one that
// fails costs nothing of what the watch brings.
func TestFollowerEvery(t *testing.T) {
	// Sleeps are of the bubble's clock: they wait for nothing, time passes.
	synctest.Test(t, func(t *testing.T) {
		b := &breakable{Store: mem.New(nil), end: make(chan struct{})}
		defer b.Store.Close()
		c := &followed{keys: map[string]string{}}
		f := c.follower(b)
		f.Every = time.Minute
		lossy := f.Changed
		f.Changed = func(e meta.Events) error {
			if string(e.Events[0].Value) == "lost" {
				return nil
			}
			return lossy(e)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- f.Run(ctx, 0) }()
		for _, v := range []string{"lost", "heard"} {
			if _, _, err := b.Txn(t.Context(), nil, []meta.Op{meta.Put("f/"+v, []byte(v))}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if got := c.has(); len(got) != 1 {
			t.Fatalf("the copy is %v", got)
		}
		b.mu.Lock()
		b.failing = meta.ErrUnavailable
		b.mu.Unlock()
		time.Sleep(90 * time.Second)
		if _, _, err := b.Txn(t.Context(), nil, []meta.Op{meta.Put("f/more", nil)}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := c.has(); len(got) != 2 {
			t.Errorf("after a listing that failed the copy is %v", got)
		}
		b.mend()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := c.has(); len(got) != 3 {
			t.Errorf("after a listing the copy is %v", got)
		}
		cancel()
		<-ended
	})
}
