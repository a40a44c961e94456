package metatest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// keys tells events as "+key" and "-key".
func keys(e meta.Events) []string {
	var s []string
	for _, e := range e.Events {
		sign := "+"
		if e.Deleted {
			sign = "-"
		}
		s = append(s, sign+e.Key)
	}
	return s
}

func watchGroups(t *testing.T, h Harness) {
	old := put(t, h.Store, "w/old", "")
	events := h.Store.Watch(deadline(t), "w/", old)
	first := commit(t, h.Store, nil, meta.Put("w/b", []byte("B")), meta.Put("v", nil), meta.Put("w/a", []byte("A")))
	put(t, h.Store, "x", "")
	second := commit(t, h.Store, nil, meta.Op{Key: "w/", Delete: true, Prefix: true})

	e := next(t, events)
	want := meta.Events{Revision: first, Events: []meta.Event{
		{KV: meta.KV{Key: "w/b", Value: []byte("B"), Created: first, Modified: first}},
		{KV: meta.KV{Key: "w/a", Value: []byte("A"), Created: first, Modified: first}},
	}}
	if !reflect.DeepEqual(e, want) {
		t.Fatalf("first element is %+v, want %+v", e, want)
	}
	e = next(t, events)
	if e.Revision != second || !reflect.DeepEqual(keys(e), []string{"-w/a", "-w/b", "-w/old"}) {
		t.Fatalf("second element is %+v, want three deletions in order of keys at %d", e, second)
	}
	for _, d := range e.Events {
		if d.Value != nil || d.Modified != second || d.Created != 0 {
			t.Fatalf("deletion is %+v", d)
		}
	}
}

func watchResumes(t *testing.T, h Harness) {
	start := put(t, h.Store, "w", "")
	var revs []meta.Revision
	for i := range 10 {
		revs = append(revs, put(t, h.Store, "w", fmt.Sprint(i)))
	}
	at := start
	for i := 0; i < 10; i += 3 {
		ctx, cancel := context.WithCancel(deadline(t))
		events := h.Store.Watch(ctx, "w", at)
		for j := i; j < min(i+3, 10); j++ {
			e := next(t, events)
			if e.Revision != revs[j] || string(e.Events[0].Value) != fmt.Sprint(j) {
				t.Fatalf("element %d is %+v, want revision %d", j, e, revs[j])
			}
			at = e.Revision
		}
		cancel()
	}
}

func watchFromBeginning(t *testing.T, h Harness) {
	rev := put(t, h.Store, "a", "")
	if e := next(t, h.Store.Watch(deadline(t), "", 0)); e.Revision != rev || len(e.Events) != 1 {
		t.Fatalf("a watch after 0 begins with %+v, want the first change", e)
	}
}

func watchOfFuture(t *testing.T, h Harness) {
	now := put(t, h.Store, "a", "")
	events := h.Store.Watch(deadline(t), "a", now+2)
	for range 2 {
		put(t, h.Store, "a", "not yet")
	}
	rev := put(t, h.Store, "a", "now")
	if e := next(t, events); e.Revision != rev || string(e.Events[0].Value) != "now" {
		t.Fatalf("a watch after %d begins with %+v", now+2, e)
	}
}

func watchOfCompacted(t *testing.T, h Harness) {
	first := put(t, h.Store, "a", "")
	for range 5 {
		put(t, h.Store, "a", "")
	}
	last := commit(t, h.Store, nil, meta.Delete("a"))
	if err := h.Compact(deadline(t), last); err != nil {
		t.Fatal(err)
	}
	for _, after := range []meta.Revision{0, first, last - 2} {
		events := h.Store.Watch(deadline(t), "a", after)
		if e := next(t, events); !errors.Is(e.Err, meta.ErrCompacted) {
			t.Fatalf("a watch after %d with history from %d says %+v, want ErrCompacted", after, last, e)
		}
		if _, open := <-events; open {
			t.Fatal("the channel is open after the last element")
		}
	}
	if e := next(t, h.Store.Watch(deadline(t), "a", last-1)); e.Err != nil || e.Revision != last || !e.Events[0].Deleted {
		t.Fatalf("a watch of the oldest history kept says %+v, want the deletion at %d", e, last)
	}
	// A listing says where to go on.
	_, rev := list(t, h.Store, "a")
	events := h.Store.Watch(deadline(t), "a", rev)
	if e := put(t, h.Store, "a", "more"); next(t, events).Revision != e {
		t.Fatal("a watch after a listing misses the next change")
	}
}

// watchUnderLoad: a watch begun in the middle of concurrent writes sees every
// revision after its start once, in order, whole.
func watchUnderLoad(t *testing.T, h Harness) {
	const writers, each = 4, 100
	ctx := deadline(t)
	start := put(t, h.Store, "w/", "")
	var events []<-chan meta.Events
	var wg sync.WaitGroup
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				ops := []meta.Op{meta.Put(fmt.Sprintf("w/%d/a", w), []byte(fmt.Sprint(i))), meta.Put(fmt.Sprintf("w/%d/b", w), []byte(fmt.Sprint(i)))}
				if _, _, err := h.Store.Txn(ctx, nil, ops); err != nil {
					t.Error(err)
				}
			}
		}()
		events = append(events, h.Store.Watch(ctx, "w/", start))
	}
	wg.Wait()
	for _, ch := range events {
		last, seen := start, make(map[string]int)
		for range writers * each {
			e := next(t, ch)
			if e.Err != nil || e.Revision <= last || len(e.Events) != 2 {
				t.Fatalf("after revision %d came %+v", last, e)
			}
			last = e.Revision
			for _, change := range e.Events {
				if want := fmt.Sprint(seen[change.Key]); string(change.Value) != want {
					t.Fatalf("%s became %q, want %q", change.Key, change.Value, want)
				}
				seen[change.Key]++
			}
		}
	}
}

func watchEndsWithContext(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(context.Background())
	events := h.Store.Watch(ctx, "a", 0)
	rev := put(t, h.Store, "a", "")
	if e := next(t, events); e.Revision != rev {
		t.Fatalf("watch says %+v", e)
	}
	cancel()
	for e := range events {
		if e.Err != nil {
			t.Fatalf("an ended watch says %v, want silence", e.Err)
		}
	}
}

func watchEndsWithStore(t *testing.T, h Harness) {
	events := h.Store.Watch(context.Background(), "a", 0)
	if err := h.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); !errors.Is(e.Err, meta.ErrClosed) {
		t.Fatalf("a watch of a closed store says %+v, want ErrClosed", e)
	}
	if _, open := <-events; open {
		t.Fatal("the channel is open after the last element")
	}
	if e := next(t, h.Store.Watch(context.Background(), "a", 0)); !errors.Is(e.Err, meta.ErrClosed) {
		t.Fatalf("a watch begun after Close says %+v, want ErrClosed", e)
	}
}

func grant(t *testing.T, h Harness, ttlSeconds int64) meta.LeaseID {
	t.Helper()
	id, err := h.Store.Grant(deadline(t), ttlSeconds)
	if err != nil || id == 0 {
		t.Fatalf("Grant(%d) = %d, %v", ttlSeconds, id, err)
	}
	return id
}

// pass lets time go by where the harness can; elsewhere the tests wait for the
// events that time brings.
func pass(h Harness, d time.Duration) {
	if h.Pass != nil {
		h.Pass(d)
	}
}

// unhurried runs a test of a lease again with one that lasts longer, as long as the test says
// that its lease had ended before it was through: the machine stood still for as long.
func unhurried(t *testing.T, ttlSeconds int64, test func(ttlSeconds int64) (through bool)) {
	t.Helper()
	for !test(ttlSeconds) {
		if ttlSeconds *= 2; ttlSeconds > 60 {
			t.Fatal("every lease ended before the test was through")
		}
	}
}

// overdue says whether a lease may have ended that was granted or renewed last by
// a request sent at a time of the machine's clock.
func overdue(sent time.Time, ttlSeconds int64) bool {
	return time.Since(sent) > time.Duration(ttlSeconds)*time.Second
}

func leaseDeletesKeys(t *testing.T, h Harness) {
	unhurried(t, 1, func(ttlSeconds int64) bool {
		sent := time.Now()
		id := grant(t, h, ttlSeconds)
		rev, ok, err := h.Store.Txn(deadline(t), nil, []meta.Op{{Key: "l/b", Lease: id}, {Key: "l/a", Lease: id}, meta.Put("l/c", nil)})
		if errors.Is(err, meta.ErrLeaseNotFound) && overdue(sent, ttlSeconds) {
			return false
		}
		if err != nil || !ok {
			t.Fatalf("Txn with a lease = %v, %v, want success", ok, err)
		}
		kv, err := h.Store.Get(deadline(t), "l/a")
		if errors.Is(err, meta.ErrNotFound) && overdue(sent, ttlSeconds) {
			return false
		}
		if err != nil || kv.Lease != id {
			t.Fatalf("Get = %+v, %v, want lease %x", kv, err, id)
		}
		events := h.Store.Watch(deadline(t), "l/", rev)
		pass(h, 2*time.Second)
		if e := next(t, events); e.Revision != rev+1 || !reflect.DeepEqual(keys(e), []string{"-l/a", "-l/b"}) {
			t.Fatalf("the end of a lease is %+v, want both keys deleted at %d", e, rev+1)
		}
		if _, err := h.Store.KeepAlive(deadline(t), id); !errors.Is(err, meta.ErrLeaseNotFound) {
			t.Fatalf("KeepAlive of an ended lease: %v, want ErrLeaseNotFound", err)
		}
		return true
	})
}

// leaseIsKeptAlive: of two leases granted together the one that is kept alive
// is still there when the other has ended.
func leaseIsKeptAlive(t *testing.T, h Harness) {
	unhurried(t, 2, func(ttlSeconds int64) bool {
		sent := time.Now()
		kept, left := grant(t, h, ttlSeconds), grant(t, h, ttlSeconds)
		rev, ok, err := h.Store.Txn(deadline(t), nil, []meta.Op{{Key: "kept", Lease: kept}, {Key: "left", Lease: left}})
		if errors.Is(err, meta.ErrLeaseNotFound) && overdue(sent, ttlSeconds) {
			return false
		}
		if err != nil || !ok {
			t.Fatalf("Txn with leases = %v, %v, want success", ok, err)
		}
		events := h.Store.Watch(deadline(t), "left", rev)
		for {
			renewed := time.Now()
			ttl, err := h.Store.KeepAlive(deadline(t), kept)
			if errors.Is(err, meta.ErrLeaseNotFound) && overdue(sent, ttlSeconds) {
				return false
			}
			if err != nil || ttl < ttlSeconds {
				t.Fatalf("KeepAlive = %d, %v, want at least %d", ttl, err, ttlSeconds)
			}
			sent = renewed
			pass(h, 500*time.Millisecond)
			select {
			case e := <-events:
				if !reflect.DeepEqual(keys(e), []string{"-left"}) {
					t.Fatalf("watch says %+v", e)
				}
				_, err := h.Store.Get(deadline(t), "kept")
				if errors.Is(err, meta.ErrNotFound) && overdue(sent, ttlSeconds) {
					return false
				}
				if err != nil {
					t.Fatalf("Get of what is kept alive: %v", err)
				}
				return true
			case <-time.After(10 * time.Millisecond):
				// Nothing yet: renew again.
			}
		}
	})
}

func leaseIsRevoked(t *testing.T, h Harness) {
	id := grant(t, h, 60)
	rev := commit(t, h.Store, nil, meta.Op{Key: "b", Lease: id}, meta.Op{Key: "a", Lease: id})
	events := h.Store.Watch(deadline(t), "", rev)
	if err := h.Store.Revoke(deadline(t), id); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.Revision != rev+1 || !reflect.DeepEqual(keys(e), []string{"-a", "-b"}) {
		t.Fatalf("a revoked lease is %+v, want both keys deleted at %d", e, rev+1)
	}
	if err := h.Store.Revoke(deadline(t), id); !errors.Is(err, meta.ErrLeaseNotFound) {
		t.Fatalf("second Revoke: %v, want ErrLeaseNotFound", err)
	}
}

func leaseLosesKey(t *testing.T, h Harness) {
	id, other := grant(t, h, 60), grant(t, h, 60)
	commit(t, h.Store, nil, meta.Op{Key: "a", Lease: id}, meta.Op{Key: "b", Lease: id}, meta.Op{Key: "c", Lease: id})
	commit(t, h.Store, nil, meta.Put("a", nil), meta.Op{Key: "b", Lease: other}, meta.Delete("c"))
	put(t, h.Store, "c", "")
	_, before := list(t, h.Store, "")
	if err := h.Store.Revoke(deadline(t), id); err != nil {
		t.Fatal(err)
	}
	if kvs, rev := list(t, h.Store, ""); len(kvs) != 3 || rev != before {
		t.Fatalf("the end of an empty lease left %q at %d, want all at %d", kvs, rev, before)
	}
	if kv := get(t, h.Store, "b"); kv.Lease != other {
		t.Fatalf("Get = %+v, want lease %x", kv, other)
	}
}

func leaseOfNobody(t *testing.T, h Harness) {
	a := put(t, h.Store, "a", "")
	ops := []meta.Op{meta.Put("b", nil), {Key: "c", Lease: 12345}}
	if _, _, err := h.Store.Txn(deadline(t), nil, ops); !errors.Is(err, meta.ErrLeaseNotFound) {
		t.Fatalf("Txn with an unknown lease: %v, want ErrLeaseNotFound", err)
	}
	if kvs, _ := list(t, h.Store, ""); len(kvs) != 1 {
		t.Fatalf("half of a Txn happened: %q", kvs)
	}
	if _, ok, err := h.Store.Txn(deadline(t), []meta.Cond{{Key: "a", Modified: a + 1}}, ops); ok || err != nil {
		t.Fatalf("Txn with an unknown lease and a false condition: %v, %v, want refusal without error", ok, err)
	}
	if _, err := h.Store.KeepAlive(deadline(t), 12345); !errors.Is(err, meta.ErrLeaseNotFound) {
		t.Fatalf("KeepAlive: %v, want ErrLeaseNotFound", err)
	}
}
