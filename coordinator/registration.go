package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// ErrReplaced: another process has registered under this node's id.
var ErrReplaced = errors.New("another process serves under this node's id")

const (
	minLeaseTTL, maxLeaseTTL, defaultLeaseTTL = 3 * time.Second, 60 * time.Second, 10 * time.Second

	// renewRetry is how long a renewal that was not answered waits for the next.
	renewRetry = 250 * time.Millisecond
	// registerLook is how often a node looks whether another's lease on its id has ended.
	registerLook = 250 * time.Millisecond
	// expirySlack is how much later than its time a lease may end: etcd looks
	// every half a second, and then writes it down, which a slow disk holds up.
	expirySlack = 5 * time.Second
)

// registration keeps this node on the list of nodes, on a lease.
//
// The lease is what lets this node answer from memory: as long as node/{id} is
// there, nobody claims a slot of this node. It is there until some time after
// the last renewal that was answered was sent, plus the lease's time to live. A margin is
// taken off for clocks that run at different speeds.
//
// A lease that is revoked by hand, or a record that somebody deletes, breaks this
// promise. The node hears of that by its watch and takes nothing for granted any more
// until it is registered again and has listed the owners; the others wait for claimDelay
// from when they have heard of it. So only a node that hears of it later than they do by
// more than that answers, until its next renewal, what may be over: ends of logs,
// committed offsets, that a member lives. It writes nothing: data is fenced by its
// ledgers, and groups and offsets by the revision of the owner's record.
type registration struct {
	c   *Coordinator
	ttl time.Duration

	// lease belongs to whoever opens, then to the renewing goroutine, then to Close.
	lease meta.LeaseID

	// mu guards what whoever opens shares with the renewing goroutine, which begins
	// before all is read: that may take longer than the lease.
	mu   sync.Mutex
	sent moment // when the last answered renewal was sent
	// unsure: the node has registered again, or tried to, and does not know yet what it
	// owns as of then.
	unsure bool

	// validUntil is when nothing may be taken for granted any more; nil: now. It is
	// changed with mu held, so that of trust, doubt and gone what came last stands.
	validUntil atomic.Pointer[moment]
	// steady is since when, on the monotonic clock, each renewal was answered in
	// time. Before that the metadata store was away, and other nodes may have
	// lost their leases by that alone.
	steady atomic.Int64
	over   atomic.Bool   // replaced, for good
	wake   chan struct{} // holds one element if the record may be gone
}

func newRegistration(c *Coordinator) *registration {
	r := &registration{c: c, ttl: c.config.LeaseTTL, wake: make(chan struct{}, 1)}
	r.steady.Store(int64(-time.Hour))
	return r
}

// ttlSeconds is the time to live that is asked for.
func (r *registration) ttlSeconds() int64 { return int64((r.ttl + time.Second - 1) / time.Second) }

// margin is what is taken off the lease.
func (r *registration) margin() time.Duration { return min(2*time.Second, r.ttl/5) }

// valid says whether the lease lasts for certain. Any goroutine; it does not block.
func (r *registration) valid() bool {
	until := r.validUntil.Load()
	return until != nil && !r.over.Load() && !until.reached(r.c.now())
}

// remaining is for how long the lease is valid yet.
func (r *registration) remaining() time.Duration {
	until := r.validUntil.Load()
	if until == nil || r.over.Load() {
		return 0
	}
	now := r.c.now()
	return max(0, min(until.monotonic-now.monotonic, until.wall.Sub(now.wall)))
}

// trust makes the lease valid as of the last answered renewal. What this node
// knows of the owners of slots must be younger than its registration: it stays as it
// is while the node registers again, and while it has heard that its record is gone,
// since that answer may be from before.
func (r *registration) trust() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unsure || r.revision() == 0 {
		return
	}
	until := r.sent.add(r.ttl - r.margin())
	r.validUntil.Store(&until)
}

// doubt says whether what this node owns has to be read before its lease is worth
// anything; trust has no effect from then on.
func (r *registration) doubt(unsure bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unsure = unsure; unsure {
		r.validUntil.Store(nil)
	}
}

func (r *registration) doubts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unsure
}

// answered notes when a renewal was sent that was answered, and returns when the one
// before was.
func (r *registration) answered(sent moment) (before moment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, r.sent = r.sent, sent
	return before
}

// gone takes note that the record is not there: the list of nodes says so already. The
// renewing goroutine registers again. Any goroutine.
func (r *registration) gone() {
	r.mu.Lock()
	r.validUntil.Store(nil)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// lapsed says since when the lease is not known to last only because no renewal was
// answered in time; false: it is known to last, or its end is known.
func (r *registration) lapsed() (time.Duration, bool) {
	until := r.validUntil.Load()
	if until == nil || r.over.Load() {
		return 0, false
	}
	now := r.c.now()
	d := max(now.monotonic-until.monotonic, now.wall.Sub(until.wall))
	return d, d >= 0
}

// begin registers a node that starts. What it finds at its id may be
//
//   - a record of the same data folder: of this node's process before, which has
//     ended since the folder is ours now. It is replaced.
//   - a record of another folder: of a node that has crashed and left its id to this
//     one, or of one that lives and was given the same name. The lease tells them apart.
func (r *registration) begin(ctx context.Context) error {
	var giveUp time.Time
	for {
		kv, found, err := r.read(ctx)
		if err != nil {
			return err
		}
		if kv.Modified != 0 && found.Folder != "" && found.Folder != r.c.self.Folder {
			ttl := max(r.ttl, time.Duration(found.TTLSeconds)*time.Second) + expirySlack
			if giveUp.IsZero() {
				giveUp = time.Now().Add(ttl)
				r.c.logger.Info("another process is registered under this node's id; waiting for the end of its lease",
					zap.Int32("node", r.c.self.ID), zap.String("name", found.Name), zap.String("folder", found.Folder), zap.Duration("at most", ttl))
			}
			if time.Now().After(giveUp) {
				return fmt.Errorf("node %d (%s) is live already with data folder %s: give this node another node.name, or stop the other: %w",
					r.c.self.ID, found.Name, found.Folder, ErrReplaced)
			}
			if err := sleep(ctx, registerLook); err != nil {
				return unavailable(r.subject(), err)
			}
			continue
		}
		done, err := r.write(ctx, kv)
		if done || err != nil {
			return err
		}
	}
}

// again registers a node that was registered and finds that it is not any more,
// or not for certain: its lease ended while the metadata store was away, or was
// revoked by hand. Its slots stay its own unless others have claimed them, which
// it learns before it trusts its memory again.
func (r *registration) again(ctx context.Context) error {
	r.doubt(true)
	r.steady.Store(int64(r.c.now().monotonic))
	for {
		kv, found, err := r.read(ctx)
		if err != nil {
			return err
		}
		if kv.Modified != 0 && found.Incarnation != r.c.self.Incarnation {
			r.replaced(kv.Modified)
			return ErrReplaced
		}
		if kv.Modified != 0 && kv.Lease == r.lease {
			break
		}
		done, err := r.write(ctx, kv)
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	if _, err := r.c.listNodes(ctx); err != nil {
		return err
	}
	if _, err := r.c.slots.list(ctx); err != nil {
		return err
	}
	r.doubt(false)
	r.trust()
	r.c.slots.look()
	return nil
}

func (r *registration) subject() string { return fmt.Sprintf("registration of node %d", r.c.self.ID) }

// read reads node/{id}; its revision is 0 if there is none. A record that cannot
// be read is nobody's.
func (r *registration) read(ctx context.Context) (kv meta.KV, found nodeRecord, err error) {
	kv, err = r.c.meta.Get(ctx, r.c.keys.node(r.c.self.ID))
	if errors.Is(err, meta.ErrNotFound) {
		return meta.KV{}, found, nil
	}
	if err != nil {
		return kv, found, unavailable(r.subject(), err)
	}
	if err := json.Unmarshal(kv.Value, &found); err != nil {
		r.c.logger.Error("node record is not readable", zap.String("key", kv.Key), zap.Error(err))
	}
	return kv, found, nil
}

// write puts node/{id} on a new lease if it is still as it was read. False
// without an error: look again.
func (r *registration) write(ctx context.Context, before meta.KV) (bool, error) {
	self := r.c.Self()
	sent := r.c.now()
	lease, err := r.c.meta.Grant(ctx, r.ttlSeconds())
	if err != nil {
		return false, unavailable(r.subject(), err)
	}
	key := r.c.keys.node(self.ID)
	op := meta.Op{Key: key, Value: self.record(r.ttlSeconds()).encode(), Lease: lease}
	_, ok, err := r.c.meta.Txn(ctx, []meta.Cond{{Key: key, Modified: before.Modified}}, []meta.Op{op})
	if err != nil {
		if !retriable(ctx, err) && !errors.Is(err, meta.ErrLeaseNotFound) {
			return false, unavailable(r.subject(), err)
		}
		kv, err := r.c.meta.Get(ctx, key)
		if err != nil || kv.Lease != lease {
			return false, nil
		}
		ok = true
	}
	if !ok {
		return false, nil
	}
	r.lease = lease
	r.answered(sent)
	return true, nil
}

// revision is that of node/{id} as far as this node knows, by which claims prove
// that it is registered; 0: it is not. Draining changes it. Any goroutine.
func (r *registration) revision() meta.Revision { return r.c.nodes.Load().byID[r.c.self.ID].revision }

// replaced ends the service of this node: at a revision another process had its
// id. Any goroutine.
func (r *registration) replaced(at meta.Revision) {
	if r.over.Swap(true) {
		return
	}
	err := fmt.Errorf("node %d (%s), revision %d: %w", r.c.self.ID, r.c.self.Name, at, ErrReplaced)
	r.c.logger.Error("this node serves no more", zap.Error(err))
	r.c.slots.abandon()
	if r.c.config.Failed != nil {
		r.c.config.Failed(err)
	}
}

// renew keeps the lease alive, or takes a new one, until the coordinator closes
// or another process has the id.
func (r *registration) renew() {
	wait := r.ttl / 3
	for {
		t := time.NewTimer(wait)
		lost := false
		select {
		case <-t.C:
		case <-r.wake:
			lost = true
		case <-r.c.ctx.Done():
		}
		t.Stop()
		if r.c.ctx.Err() != nil || r.over.Load() {
			return
		}
		wait = r.ttl / 3
		if err := r.renewOnce(lost || r.revision() == 0); err != nil && r.c.ctx.Err() == nil {
			r.c.logger.Warn("this node's registration was not renewed", zap.Int32("node", r.c.self.ID), zap.Error(err))
			wait = min(wait, renewRetry)
		}
	}
}

// renewOnce sends one renewal. It does not wait for long: the next may reach
// another member of the metadata store. That the new lease can be renewed says nothing of
// what happened before it was there, so what again has not brought to its end begins anew.
func (r *registration) renewOnce(lost bool) error {
	if !lost && !r.doubts() {
		err := r.keepAlive(r.c.now())
		if !errors.Is(err, meta.ErrLeaseNotFound) {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(r.c.ctx, r.ttl/2)
	defer cancel()
	return r.again(ctx)
}

func (r *registration) keepAlive(sent moment) error {
	ctx, cancel := context.WithTimeout(r.c.ctx, max(r.ttl/6, time.Second/2))
	defer cancel()
	if _, err := r.c.meta.KeepAlive(ctx, r.lease); err != nil {
		return err
	}
	if before := r.answered(sent); sent.monotonic-before.monotonic > 2*r.ttl/3 {
		// More than one was not answered.
		r.steady.Store(int64(sent.monotonic))
	}
	r.trust()
	// Handovers wait for a lease that lasts. It may not have until now, as after a clock was set.
	r.c.slots.look()
	return nil
}

// end gives the lease back, which takes the node off the list. From then on it proves
// nothing.
func (r *registration) end() error {
	r.doubt(true)
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	err := r.c.meta.Revoke(ctx, r.lease)
	if err == nil || errors.Is(err, meta.ErrLeaseNotFound) {
		return nil
	}
	return unavailable(fmt.Sprintf("node %d leaving", r.c.self.ID), err)
}

// sleep waits, or returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
