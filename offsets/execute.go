package offsets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// stage makes the next batch of what is pending, in order, up to the first item
// that does not fit. False: there is nothing to send.
func (c *Committer) stage() bool {
	c.expire()
	c.pop()
	b := &c.batch
	b.begin(c.sequence.key)
	end, removing := c.head, false
	for end < len(c.pending) {
		it := &c.pending[end]
		if it.answered {
			end++
			continue
		}
		if why := it.refusal(); why != nil {
			c.answer(it, nil, why)
			end++
			continue
		}
		if c.full {
			removes := b.removes(it)
			if len(b.groups) > 0 && removes != removing {
				break
			}
			removing = removes
		}
		if it.kind == reloadItem || it.kind == barrierItem {
			// What comes before it is to be executed first.
			if len(b.groups) > 0 {
				break
			}
			c.pop()
			if it.kind == reloadItem {
				c.reload()
			} else {
				c.answer(it, nil, nil)
			}
			return false
		}
		ok, failed := b.add(it)
		if failed != nil {
			c.answer(it, nil, failed)
		}
		if !ok {
			if it.staged > it.committed {
				end++
			}
			break
		}
		end++
	}
	if len(b.groups) == 0 {
		c.pop()
		return false
	}
	c.inFlight = end - c.head
	b.finish(&c.sequence)
	return true
}

// removes says whether an item only deletes keys, as far as the tables tell: a
// store without space takes it then.
func (b *batch) removes(it *item) bool {
	switch it.kind {
	case deleteRecordItem, deleteGroupItem:
		return true
	case commitItem:
		for rest := it.updates[it.committed:]; len(rest) > 0; {
			topic := rest[0].Topic
			number, _ := chunkOf(rest[0].Partition.Partition)
			value, _, n := b.merge(it.slot.groups[it.group].value(&topic, number), rest, topic, number)
			if value != nil {
				return false
			}
			rest = rest[n:]
		}
		return true
	}
	return false
}

// refusal says why an item need not be tried.
func (it *item) refusal() error {
	if it.slot.gone.Load() {
		return ErrNotOwner
	}
	if g := it.slot.groups[it.group]; g != nil && g.changed && it.kind < reloadItem {
		return fmt.Errorf("group %q: %w", it.group, ErrGroupChanged)
	}
	return nil
}

// execute sends the batch until its outcome is known, or nobody waits for it and
// it can have none.
func (c *Committer) execute() {
	b := &c.batch
	for c.ctx.Err() == nil {
		before := b.sent
		b.sent = true
		revision, ok, err := c.txn()
		switch {
		case err == nil && ok:
			c.executed(revision)
			return
		case err == nil:
			if c.guardFailed(before) {
				return
			}
		case errors.Is(err, meta.ErrTooLarge), errors.Is(err, meta.ErrInvalid):
			if !b.shrink() {
				c.fail(fmt.Errorf("%w: %w", ErrTooLarge, err))
			}
			c.drop()
			return
		default:
			if !mayBeExecuted(err) {
				b.sent = before
			}
			if c.failed(err, before) {
				return
			}
		}
		c.rest()
		if c.abandoned() {
			c.drop()
			return
		}
	}
}

// abandoned says whether the committer was closed and nobody waits any more.
func (c *Committer) abandoned() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.closed && c.mu.items == 0
}

// mayBeExecuted says whether a transaction that ended with this error may have
// taken effect, or may yet.
func mayBeExecuted(err error) bool {
	if errors.Is(err, meta.ErrUnknownOutcome) {
		return true
	}
	for _, refused := range []error{meta.ErrUnavailable, meta.ErrNoSpace, meta.ErrClosed, context.DeadlineExceeded, context.Canceled} {
		if errors.Is(err, refused) {
			return false
		}
	}
	return true
}

// failed deals with a transaction that the store did not answer. before says
// whether an earlier attempt may be executed. True: the batch is done with.
func (c *Committer) failed(err error, before bool) bool {
	noSpace := errors.Is(err, meta.ErrNoSpace)
	if !c.batch.sent {
		if noSpace {
			c.noSpace(ErrNoSpace)
			return true
		}
		// What has come meanwhile joins what goes next.
		c.drop()
		c.rest()
		return true
	}
	switch v, revision := c.look(); {
	case v == wasExecuted:
		c.executed(revision)
		return true
	case v == overtaken:
		c.fail(ErrUnknownOutcome)
		c.overtaken()
		return true
	case v == notExecuted && noSpace:
		// The store has answered this attempt, so it will not be executed later.
		if before {
			c.noSpace(ErrUnknownOutcome)
		} else {
			c.noSpace(ErrNoSpace)
		}
		return true
	}
	return false
}

// noSpace ends a batch that the store has no space for. The first time, what it
// removes has not been tried without the puts beside it: all goes again, apart,
// unless an earlier attempt may yet be executed.
func (c *Committer) noSpace(why error) {
	if c.full || !c.batch.deletes || why != ErrNoSpace {
		c.fail(why)
	}
	c.full = true
	c.drop()
}

// guardFailed finds out why a comparison did not hold. before says whether an
// earlier attempt may have been executed. True: the batch is done with.
func (c *Committer) guardFailed(before bool) bool {
	switch v, revision := c.look(); v {
	case wasExecuted:
		// By an earlier attempt.
		c.executed(revision)
		return true
	case overtaken:
		if before {
			c.fail(ErrUnknownOutcome)
		}
		c.overtaken()
		return true
	case unclear:
		return false
	}
	b := &c.batch
	found := false
	for _, s := range b.slots {
		kv, err := c.get(s.owner.Key)
		if err != nil {
			return false
		}
		if kv.Modified != s.owner.Modified {
			found = true
			s.Release()
		}
	}
	for i := range b.groups {
		g := &b.groups[i]
		kv, err := c.get(g.recordKey)
		if err != nil {
			return false
		}
		if kv.Modified != g.revision {
			found = true
			g.slot.mu.Lock()
			g.slot.groupLocked(g.name).changed = true
			g.slot.mu.Unlock()
		}
	}
	if found {
		// The rest goes again, without the items whose guard fails for good.
		c.drop()
	}
	return found
}

// verdict is what the sequence says about the batch.
type verdict uint8

const (
	unclear     verdict = iota // the store did not answer
	notExecuted                // and may be yet, if an attempt is on its way
	wasExecuted
	overtaken // somebody else has written it
)

// look reads whether the batch was executed, and at which revision if it puts something.
func (c *Committer) look() (verdict, meta.Revision) {
	q, b := &c.sequence, &c.batch
	kv, err := c.get(q.key)
	if err != nil {
		return unclear, 0
	}
	if kv.Modified != q.revision {
		if bytes.Equal(kv.Value, q.stamp[:]) && b.puts {
			return wasExecuted, kv.Modified
		}
		q.known = false
		return overtaken, 0
	}
	if len(q.spares) == 0 {
		return notExecuted, 0
	}
	first := &q.spares[0]
	if kv, err = c.get(first.key); err != nil {
		return unclear, 0
	}
	switch {
	case kv.Modified == first.revision:
		return notExecuted, 0
	case kv.Modified == 0 && first.own && b.deletes && !b.puts:
		return wasExecuted, 0
	}
	q.known = false
	return overtaken, 0
}

// overtaken gives up all slots: the key is this committer's alone, so it is not
// known any more what was executed. Whoever loads them again sees it.
func (c *Committer) overtaken() {
	c.mu.Lock()
	c.mu.doubts++
	slots := make([]*Slot, 0, len(c.mu.slots))
	for _, s := range c.mu.slots {
		slots = append(slots, s)
	}
	c.mu.Unlock()
	c.drop()
	for _, s := range slots {
		s.Release()
	}
}

// executed shows and answers what a batch has done.
func (c *Committer) executed(revision meta.Revision) {
	b := &c.batch
	c.sequence.move(b, revision)
	if b.puts {
		c.full = false
	}
	c.pause = 0
	b.apply(revision)
	c.c.Metrics.executed(b)
	end := c.head + c.inFlight
	c.inFlight = 0
	for i := c.head; i < end; i++ {
		it := &c.pending[i]
		if it.kind == commitItem && it.staged < len(it.updates) && !it.answered {
			it.committed = it.staged
			continue
		}
		c.answer(it, nil, nil)
	}
	c.pop()
}

// fail answers all items of the batch.
func (c *Committer) fail(why error) {
	for i := c.head; i < c.head+c.inFlight; i++ {
		c.answer(&c.pending[i], nil, why)
	}
}

// drop takes the batch apart: its unanswered items go again.
func (c *Committer) drop() {
	c.batch.sent = false
	c.inFlight = 0
	c.pop()
}

// readGroup reads a group into its table.
func (c *Committer) readGroup(s *Slot, group string) (record []byte, err error) {
	var read *groupTable
	err = c.call(func(ctx context.Context) (err error) {
		record, read, err = s.readGroup(ctx, group)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*s.groupLocked(group) = *read
	s.tidyLocked(group)
	return record, nil
}

// reload carries out the first item.
func (c *Committer) reload() {
	for c.ctx.Err() == nil {
		record, err := c.readGroup(c.pending[c.head].slot, c.pending[c.head].group)
		it := &c.pending[c.head]
		switch {
		case it.answered:
			c.pop()
			return
		case err == nil:
			c.pause = 0
			c.answer(it, record, nil)
			c.pop()
			return
		case errors.Is(err, ErrFormat):
			c.answer(it, nil, err)
			c.pop()
			return
		}
		c.rest()
		if c.pending[c.head].answered {
			c.pop()
			return
		}
	}
}

// move takes note of what a batch, executed at revision, has done to the sequence.
func (q *sequence) move(b *batch, revision meta.Revision) {
	switch {
	case b.puts:
		q.revision = revision
		for _, key := range b.spares {
			q.spares = append(q.spares, spare{key, revision, true})
		}
	case b.deletes:
		q.spares = q.spares[1:]
	}
}

// readSequence finds where the chain stands that an earlier process has left.
func (c *Committer) readSequence() bool {
	kv, err := c.get(c.sequence.key)
	if err != nil {
		c.rest()
		c.pop()
		return false
	}
	q := &c.sequence
	q.revision, q.spares = kv.Modified, nil
	err = c.call(func(ctx context.Context) error {
		_, err := c.c.Store.List(ctx, q.key+"/", func(kv meta.KV) bool {
			q.spares = append(q.spares, spare{key: kv.Key, revision: kv.Modified})
			return true
		})
		return err
	})
	if err != nil {
		c.rest()
		c.pop()
		return false
	}
	q.known = true
	return true
}

// txn sends the batch once.
func (c *Committer) txn() (revision meta.Revision, ok bool, err error) {
	start := time.Now()
	err = c.call(func(ctx context.Context) (err error) {
		revision, ok, err = c.c.Store.Txn(ctx, c.batch.conds, c.batch.ops)
		return err
	})
	c.c.Metrics.transactionSeconds.Observe(time.Since(start).Seconds())
	return revision, ok, err
}

// get reads a key; one that does not exist has revision 0.
func (c *Committer) get(key string) (kv meta.KV, err error) {
	err = c.call(func(ctx context.Context) (err error) {
		kv, err = c.c.Store.Get(ctx, key)
		if errors.Is(err, meta.ErrNotFound) {
			kv, err = meta.KV{}, nil
		}
		return err
	})
	return kv, err
}

// call makes a request to the store and answers meanwhile what is overdue or
// released. pending may move.
func (c *Committer) call(request func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(c.ctx, c.c.CommitTimeout/attemptsPerTimeout)
	defer cancel()
	go func() { c.result <- request(ctx) }()
	return c.attend(nil, nil)
}

// rest waits before the next request, longer each time.
func (c *Committer) rest() {
	c.pause = min(max(2*c.pause, minPause), maxPause)
	t := time.NewTimer(c.pause)
	defer t.Stop()
	c.attend(t.C, c.ctx.Done())
}

// attend waits for the result of a request, or for one of the channels.
func (c *Committer) attend(elapsed <-chan time.Time, stopped <-chan struct{}) error {
	overdue := time.NewTimer(time.Until(c.expire()))
	defer overdue.Stop()
	for {
		select {
		case err := <-c.result:
			return err
		case <-elapsed:
			return nil
		case <-stopped:
			return nil
		case <-overdue.C:
			overdue.Reset(time.Until(c.expire()))
		case <-c.freed:
			c.dropReleased()
		}
	}
}
