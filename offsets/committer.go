package offsets

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// Config is what a Committer needs.
type Config struct {
	Store meta.Store
	Keys  Keys

	// Name distinguishes this committer from all others of the cluster that run
	// at the same time, and is the same after a restart: the node's id and the
	// number of the committer, "7-0". The sequence key is named by it.
	Name string

	// CommitTimeout bounds how long an item waits in all for its answer.
	// 0: 5 s, Kafka's offsets.commit.timeout.ms.
	CommitTimeout time.Duration

	// MaxQueuedItems and MaxQueuedBytes bound what waits, in flight included.
	// 0: 65,536 items, 64 MiB.
	MaxQueuedItems int
	MaxQueuedBytes int64

	// SkipUnchangedFor is how old a stored offset may be for a commit of the
	// same offset to leave it as it is. Such a commit is answered when the guards
	// were seen to hold, without a write. It bounds by how much an offset can
	// expire too early. 0: 1 minute; negative: never skip.
	SkipUnchangedFor time.Duration

	// Metrics are counted on; nil: on ones that nobody reads. Committers may share them.
	Metrics *Metrics
}

const (
	defaultCommitTimeout    = 5 * time.Second
	defaultMaxQueuedItems   = 1 << 16
	defaultMaxQueuedBytes   = 64 << 20
	defaultSkipUnchangedFor = time.Minute

	// attemptsPerTimeout is how many requests to the store fit into
	// CommitTimeout if none is answered: a cluster's next member may answer when
	// the first is stuck.
	attemptsPerTimeout = 3

	minPause, maxPause = 10 * time.Millisecond, 500 * time.Millisecond
)

type itemKind uint8

const (
	commitItem itemKind = iota
	putRecordItem
	deleteRecordItem
	deleteGroupItem
	// These write nothing:
	reloadItem
	barrierItem // answered when nothing is in flight
)

// item is one call that waits for its answer.
type item struct {
	slot     *Slot
	group    string
	updates  []Update // of commitItem
	record   []byte   // of putRecordItem
	done     func(error)
	reloaded func([]byte, error) // of reloadItem, in place of done
	queued   time.Time
	bytes    int64
	// committed updates are in the store, staged ones, those included, in the
	// batch: an item that is too large for one transaction takes several.
	committed, staged int
	kind              itemKind
	answered          bool
}

// itemBytes is about what an item takes in memory, less what it refers to.
const itemBytes = 256

// Committer writes what the owner of slots commits, by one goroutine and one
// transaction at a time. Its methods may be called from any goroutine.
//
// A node does well with a few committers that share its slots, four for example:
// a transaction takes some 60 groups, whose guards use up its conditions, so one
// committer does 60 commits per sync of the store's disk. The store syncs the
// transactions of several together. Many more would only make them small.
type Committer struct {
	c Config

	ctx    context.Context // ends when nothing may wait any longer
	cancel context.CancelFunc
	wake   chan struct{} // capacity 1: something came while the goroutine was idle
	freed  chan struct{} // capacity 1: a slot was released
	ended  chan struct{} // closed by the goroutine

	mu struct {
		sync.Mutex
		closed   bool
		idle     bool   // the goroutine waits for wake
		incoming []item // not yet seen by the goroutine
		items    int    // that wait for an answer
		bytes    int64
		slots    map[int]*Slot
		doubts   int // how often all slots were given up
	}

	// The rest is the goroutine's.

	// pending holds the items in order of arrival, answered ones too until those
	// before them are answered. Its first inFlight items are what batch is made of.
	pending  []item
	head     int // of pending: where the items begin
	inFlight int
	overdue  int // of pending: items before it are answered
	batch    batch
	full     bool // the store had no space for the last puts: what removes goes without them
	sequence sequence
	result   chan error // of the request to the store that runs
	pause    time.Duration
}

// sequence is the chain of this committer's transactions. Each compares the
// sequence key and the first of the spare keys. One that puts something puts the
// sequence key, with a stamp that no other transaction has. One that only deletes
// deletes the spare instead: a store without space takes no put, and deletions
// are what makes room there. Either way no other that compared the same can be
// executed any more.
type sequence struct {
	key      string
	known    bool
	revision meta.Revision
	stamp    [24]byte // incarnation, random; number of the batch
	spares   []spare
	made     int // spares by this incarnation
}

// spare is a key that the committer has in store.
type spare struct {
	key      string
	revision meta.Revision
	own      bool // made by this incarnation: nobody else deletes it
}

// maxSpares is how many transactions that only delete a committer can make in a
// store without space. Whatever puts something fills up what is missing.
const maxSpares = 64

// NewCommitter starts a committer. Close it.
func NewCommitter(c Config) *Committer {
	if c.CommitTimeout <= 0 {
		c.CommitTimeout = defaultCommitTimeout
	}
	if c.MaxQueuedItems <= 0 {
		c.MaxQueuedItems = defaultMaxQueuedItems
	}
	if c.MaxQueuedBytes <= 0 {
		c.MaxQueuedBytes = defaultMaxQueuedBytes
	}
	if c.SkipUnchangedFor == 0 {
		c.SkipUnchangedFor = defaultSkipUnchangedFor
	}
	if c.Metrics == nil {
		c.Metrics = newMetrics()
	}
	m := &Committer{
		c:      c,
		wake:   make(chan struct{}, 1),
		freed:  make(chan struct{}, 1),
		ended:  make(chan struct{}),
		result: make(chan error, 1),
	}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.slots = make(map[int]*Slot)
	m.sequence.key = c.Keys.Sequence(c.Name)
	rand.Read(m.sequence.stamp[:16])
	m.batch.init(m)
	go m.run()
	return m
}

// queue admits an item, or says why not.
func (c *Committer) queue(it item) error {
	it.bytes = itemBytes + int64(len(it.group)+len(it.record))
	for i := range it.updates {
		it.bytes += itemBytes/4 + int64(len(it.updates[i].Metadata))
	}
	switch {
	case len(it.record) > meta.MaxValueBytes:
		return fmt.Errorf("%w: a record of %d bytes for group %q, at most %d", ErrTooLarge, len(it.record), it.group, meta.MaxValueBytes)
	case it.bytes > c.c.MaxQueuedBytes:
		return fmt.Errorf("%w: %d bytes for group %q, at most %d wait", ErrTooLarge, it.bytes, it.group, c.c.MaxQueuedBytes)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.closed:
		return ErrClosed
	case it.slot.gone.Load():
		return ErrNotOwner
	case c.mu.items >= c.c.MaxQueuedItems || c.mu.bytes+it.bytes > c.c.MaxQueuedBytes:
		return ErrQueueFull
	}
	it.queued = time.Now()
	c.mu.items++
	c.mu.bytes += it.bytes
	c.c.Metrics.queued.Inc()
	c.mu.incoming = append(c.mu.incoming, it)
	if c.mu.idle {
		c.mu.idle = false
		signal(c.wake)
	}
	return nil
}

// signal makes sure that the channel, of capacity 1, has something to receive.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// slotLoaded makes a slot ready to be committed to. doubts is what it was when
// the loading began: what was read before all slots were given up may be old.
func (c *Committer) slotLoaded(s *Slot, doubts int) error {
	c.mu.Lock()
	if c.mu.closed || c.mu.doubts != doubts {
		closed := c.mu.closed
		c.mu.Unlock()
		if closed {
			return ErrClosed
		}
		return ErrUnavailable
	}
	before := c.mu.slots[s.number]
	c.mu.slots[s.number] = s
	c.mu.Unlock()
	if before != nil {
		before.Release()
	}
	return nil
}

// slotReleased lets the goroutine answer what waits for a slot that is gone.
func (c *Committer) slotReleased(s *Slot) {
	c.mu.Lock()
	if c.mu.slots[s.number] == s {
		delete(c.mu.slots, s.number)
	}
	if c.mu.idle {
		c.mu.idle = false
		signal(c.wake)
	}
	c.mu.Unlock()
	signal(c.freed)
}

// Close refuses new items with ErrClosed, lets those that wait finish until ctx
// ends, answers what is left with ErrClosed or ErrUnknownOutcome, and waits for
// the committer's goroutine. Nothing is answered after it returns. It must not
// be called from an answer.
func (c *Committer) Close(ctx context.Context) {
	c.mu.Lock()
	c.mu.closed = true
	if c.mu.idle {
		c.mu.idle = false
		signal(c.wake)
	}
	c.mu.Unlock()
	select {
	case <-c.ended:
	case <-ctx.Done():
	}
	c.cancel()
	<-c.ended
}

// run is the committer's goroutine.
func (c *Committer) run() {
	defer close(c.ended)
	defer c.cancel()
	for c.await() {
		if !c.sequence.known && !c.readSequence() {
			continue
		}
		if c.stage() {
			c.execute()
		}
	}
	c.answerAll()
}

// await waits until there is something to do; false: there never will be.
func (c *Committer) await() bool {
	for {
		c.mu.Lock()
		c.takeLocked()
		closed := c.mu.closed
		c.mu.idle = len(c.pending) == c.head && !closed && c.ctx.Err() == nil
		idle := c.mu.idle
		c.mu.Unlock()
		if !idle {
			return c.ctx.Err() == nil && len(c.pending) > c.head
		}
		<-c.wake
	}
}

// takeLocked moves what has come to pending. With c.mu held.
func (c *Committer) takeLocked() {
	if c.inFlight == 0 && c.head > 0 {
		// The items that stay are few, or as many as were answered.
		if rest := len(c.pending) - c.head; rest <= c.head {
			copy(c.pending, c.pending[c.head:])
			clear(c.pending[rest:])
			c.pending = c.pending[:rest]
			c.head, c.overdue = 0, max(c.overdue-c.head, 0)
		}
	}
	if len(c.pending) == 0 {
		c.pending, c.mu.incoming = c.mu.incoming, c.pending
		return
	}
	c.pending = append(c.pending, c.mu.incoming...)
	clear(c.mu.incoming)
	c.mu.incoming = c.mu.incoming[:0]
}

// answer answers an item, once.
func (c *Committer) answer(it *item, record []byte, err error) {
	if it.answered {
		return
	}
	it.answered = true
	c.mu.Lock()
	c.mu.items--
	c.mu.bytes -= it.bytes
	c.mu.Unlock()
	c.c.Metrics.answered(it, err)
	done, reloaded := it.done, it.reloaded
	it.done, it.reloaded, it.updates, it.record = nil, nil, nil, nil
	if reloaded != nil {
		reloaded(record, err)
	} else {
		done(err)
	}
}

// pop forgets the answered items at the front.
func (c *Committer) pop() {
	for c.head < len(c.pending) && c.pending[c.head].answered {
		c.pending[c.head] = item{}
		c.head++
	}
	c.overdue = max(c.overdue, c.head)
}

// answerAll answers what is left when the committer ends.
func (c *Committer) answerAll() {
	c.mu.Lock()
	c.mu.closed = true
	c.takeLocked()
	c.mu.Unlock()
	for i := c.head; i < len(c.pending); i++ {
		c.answer(&c.pending[i], nil, c.whyNot(i, ErrClosed))
	}
}

// whyNot is the error for an item that waits no longer: why, unless it may have
// been executed.
func (c *Committer) whyNot(i int, why error) error {
	if i < c.head+c.inFlight && c.batch.sent {
		return ErrUnknownOutcome
	}
	return why
}

// expire answers what has waited for CommitTimeout, and returns when it is to be
// called next.
func (c *Committer) expire() (next time.Time) {
	now := time.Now()
	c.mu.Lock()
	c.takeLocked()
	c.mu.Unlock()
	c.overdue = max(c.overdue, c.head)
	for ; c.overdue < len(c.pending); c.overdue++ {
		it := &c.pending[c.overdue]
		if it.answered {
			continue
		}
		if until := it.queued.Add(c.c.CommitTimeout); now.Before(until) {
			return until
		}
		c.answer(it, nil, c.whyNot(c.overdue, ErrUnavailable))
	}
	// Whatever comes from now on waits for as long again.
	return now.Add(c.c.CommitTimeout)
}

// dropReleased answers what waits for slots that are gone, but for what is in flight.
func (c *Committer) dropReleased() {
	c.mu.Lock()
	c.takeLocked()
	c.mu.Unlock()
	for i := c.head + c.inFlight; i < len(c.pending); i++ {
		if it := &c.pending[i]; !it.answered && it.slot.gone.Load() {
			c.answer(it, nil, ErrNotOwner)
		}
	}
}
