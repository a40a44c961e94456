package coordinator

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// NewTopic asks for a topic. Partitions or ReplicationFactor -1: the default.
//
// Any replication factor of at least 1 is accepted: how often records are stored
// is the ledger tier's business, and client suites written for three brokers ask for 3.
type NewTopic struct {
	Name              string
	Partitions        int32
	ReplicationFactor int16
	Config            map[string]string
}

const (
	// topicsPerTxn is what fits: each topic takes two operations.
	topicsPerTxn = meta.MaxTxnOps / 2
	// creatorWorkers transactions are in flight at a time.
	creatorWorkers = 4
	// maxQueuedTopics bounds what waits for a worker, all callers together.
	maxQueuedTopics = 200_000
	// createAttempts bounds how often a transaction is tried again because
	// another node made one of its topics, or because its outcome is not known.
	createAttempts = 5
)

// CreateTopics makes topics, many per metadata transaction, and returns one
// topic or error for each, in order. With validateOnly nothing is made, and the
// topics have no id. It blocks. If ctx ends first the error is ErrUnavailable, and
// the topic may be made nevertheless, as in Kafka.
func (c *Coordinator) CreateTopics(ctx context.Context, topics []NewTopic, validateOnly bool) ([]*Topic, []error) {
	made, errs := make([]*Topic, len(topics)), make([]error, len(topics))
	results := make(chan creation, len(topics))
	var queue []*creation
	for i, asked := range topics {
		t, err := c.planTopic(asked)
		switch {
		case err != nil:
			errs[i] = err
		case validateOnly:
			made[i] = t
		default:
			t.ID = newID()
			queue = append(queue, &creation{
				ctx: ctx, results: results, index: i, topic: t, key: topicKey(t.Name),
				value: newTopicRecord(t, time.Now()).encode(),
			})
		}
	}
	if err := c.creator.submit(queue); err != nil {
		for _, q := range queue {
			errs[q.index] = err
		}
		return made, errs
	}
	for range queue {
		select {
		case done := <-results:
			made[done.index], errs[done.index] = done.topic, done.err
		case <-ctx.Done():
			for i := range topics {
				if made[i] == nil && errs[i] == nil {
					errs[i] = unavailable(fmt.Sprintf("topic %q", topics[i].Name), ctx.Err())
				}
			}
			return made, errs
		}
	}
	return made, errs
}

// planTopic checks what can be checked without the metadata store.
func (c *Coordinator) planTopic(asked NewTopic) (*Topic, error) {
	t := &Topic{Name: asked.Name, Partitions: asked.Partitions, ReplicationFactor: asked.ReplicationFactor}
	if err := CheckTopicName(asked.Name); err != nil {
		return nil, err
	}
	if asked.Name == clusterMetadataTopic {
		return nil, fmt.Errorf("%w: %q is reserved", ErrInvalidTopicName, asked.Name)
	}
	if other := c.topics.withKey(topicKey(asked.Name)); other != nil {
		return nil, errTaken(asked.Name, other.Name)
	}
	if t.Partitions == -1 {
		t.Partitions = c.config.NumPartitions
	}
	if t.Partitions < 1 || t.Partitions > c.config.MaxPartitionsPerTopic {
		return nil, fmt.Errorf("%w: %d of topic %q, allowed are 1 to %d, or -1 for the default", ErrInvalidPartitions, t.Partitions, t.Name, c.config.MaxPartitionsPerTopic)
	}
	if t.ReplicationFactor == -1 {
		t.ReplicationFactor = c.config.DefaultReplicationFactor
	}
	if t.ReplicationFactor < 1 {
		return nil, fmt.Errorf("%w: %d of topic %q, at least 1, or -1 for the default", ErrInvalidReplication, t.ReplicationFactor, t.Name)
	}
	if err := c.configs.check(asked.Name, t.ReplicationFactor, asked.Config); err != nil {
		return nil, err
	}
	config, err := c.configs.intern(t.ReplicationFactor, maps.Clone(asked.Config))
	if err != nil {
		return nil, err
	}
	t.Config, t.LogConfig = config.overrides, config.log
	if c.topics.len() >= c.config.MaxTopics {
		return nil, fmt.Errorf("%w: topic %q would be one more than the limit of %d topics", ErrPolicy, t.Name, c.config.MaxTopics)
	}
	return t, nil
}

// creation is one topic on its way into the metadata store, then its result.
type creation struct {
	ctx     context.Context // of the caller
	results chan<- creation // has room for this one
	index   int             // in the caller's request
	topic   *Topic
	key     string // topic key
	value   []byte // record
	err     error
}

func (q *creation) done() { q.results <- *q }

func (q *creation) fail(err error) {
	q.topic, q.err = nil, err
	q.results <- *q
}

// creator puts the topics of all callers into shared transactions. While
// transactions are in flight the next ones fill, so a lone caller waits for
// nobody and many callers share. Workers exist only while there is work.
type creator struct {
	c  *Coordinator
	mu struct {
		sync.Mutex
		closed   bool
		queue    []*creation
		inFlight map[string]struct{} // topic keys: one is in one transaction at a time
		workers  int
	}
	running sync.WaitGroup
}

// submit queues creations, all or none. Every queued one gets a result.
func (w *creator) submit(queue []*creation) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.mu.closed:
		return unavailable("topics", meta.ErrClosed)
	case len(w.mu.queue)+len(queue) > maxQueuedTopics:
		return fmt.Errorf("%w: %d topics wait to be made already", ErrUnavailable, len(w.mu.queue))
	}
	w.mu.queue = append(w.mu.queue, queue...)
	for need := (len(queue) + topicsPerTxn - 1) / topicsPerTxn; need > 0 && w.mu.workers < creatorWorkers; need-- {
		w.mu.workers++
		w.running.Add(1)
		go w.work()
	}
	return nil
}

// close fails what is queued and waits for what is in flight.
func (w *creator) close() {
	w.mu.Lock()
	w.mu.closed = true
	queue := w.mu.queue
	w.mu.queue = nil
	w.mu.Unlock()
	for _, q := range queue {
		q.fail(unavailable(fmt.Sprintf("topic %q", q.topic.Name), meta.ErrClosed))
	}
	w.running.Wait()
}

func (w *creator) work() {
	defer w.running.Done()
	var batch []*creation
	for {
		if batch = w.next(batch); len(batch) == 0 {
			return
		}
		w.c.createBatch(batch)
	}
}

// next ends the batch before and takes another: what is at the front of the
// queue, without topic keys that are in flight. An empty one means that the worker is not
// needed any more: what is still queued waits for a key that another worker has,
// and that worker comes here after it.
func (w *creator) next(before []*creation) []*creation {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.inFlight == nil {
		w.mu.inFlight = make(map[string]struct{})
	}
	for _, q := range before {
		delete(w.mu.inFlight, q.key)
	}
	var batch, passed []*creation
	rest := w.mu.queue
	for len(rest) > 0 && len(batch) < topicsPerTxn {
		q := rest[0]
		rest = rest[1:]
		if _, taken := w.mu.inFlight[q.key]; taken {
			passed = append(passed, q)
			continue
		}
		w.mu.inFlight[q.key] = struct{}{}
		batch = append(batch, q)
	}
	w.mu.queue = append(passed, rest...)
	if len(passed) == 0 {
		w.mu.queue = rest
	}
	if len(batch) == 0 {
		w.mu.workers--
	}
	return batch
}

// createBatch decides every creation of a batch.
func (c *Coordinator) createBatch(batch []*creation) {
	left := make([]*creation, 0, len(batch))
	for _, q := range batch {
		// It may have been made, or given up, while it was queued.
		if other := c.topics.withKey(q.key); other != nil {
			q.fail(errTaken(q.topic.Name, other.Name))
		} else if err := q.ctx.Err(); err != nil {
			q.fail(unavailable(fmt.Sprintf("topic %q", q.topic.Name), err))
		} else {
			left = append(left, q)
		}
	}
	for attempt := 1; len(left) > 0; attempt++ {
		revision, ok, err := c.createTxn(left)
		if ok && err == nil {
			c.created(left, revision)
			return
		}
		if err != nil && (!retriable(c.ctx, err) || attempt == createAttempts) {
			for _, q := range left {
				q.fail(unavailable(fmt.Sprintf("topic %q", q.topic.Name), err))
			}
			return
		}
		left = c.undecided(left)
		if attempt == createAttempts {
			for _, q := range left {
				q.fail(fmt.Errorf("topic %q: %w: others kept making topics", q.topic.Name, ErrUnavailable))
			}
			return
		}
	}
}

func (c *Coordinator) createTxn(batch []*creation) (meta.Revision, bool, error) {
	conds := make([]meta.Cond, len(batch))
	ops := make([]meta.Op, 0, 2*len(batch))
	for i, q := range batch {
		conds[i] = meta.Cond{Key: c.keys.topic(q.key)}
		ops = append(ops, meta.Put(c.keys.topic(q.key), q.value), meta.Put(c.keys.topicID(q.topic.ID), []byte(q.key)))
	}
	return c.meta.Txn(c.ctx, conds, ops)
}

// created shows topics to everybody here, which ends their being written to, then
// tells their callers.
func (c *Coordinator) created(batch []*creation, revision meta.Revision) {
	changes := make([]topicChange, len(batch))
	for i, q := range batch {
		q.topic.Revision = revision
		changes[i] = topicChange{key: q.key, topic: q.topic, revision: revision}
	}
	c.topics.changedHere(changes...)
	for _, q := range batch {
		q.done()
	}
}

// undecided reads what became of a batch that was refused, or whose outcome is
// not known, decides the creations whose topic key exists, and returns the others.
// A topic's random id tells our own transaction from somebody else's.
func (c *Coordinator) undecided(batch []*creation) []*creation {
	left := batch[:0]
	for _, q := range batch {
		kv, err := c.meta.Get(c.ctx, c.keys.topic(q.key))
		if errors.Is(err, meta.ErrNotFound) {
			left = append(left, q)
			continue
		}
		var t *Topic
		if err == nil {
			t, err = c.decodeTopic(kv)
		}
		switch {
		case err != nil:
			q.fail(unavailable(fmt.Sprintf("topic %q", q.topic.Name), err))
		case t.ID == q.topic.ID:
			c.created([]*creation{q}, kv.Modified)
		default:
			c.topics.changedHere(topicChange{key: q.key, topic: t, revision: kv.Modified})
			q.fail(errTaken(q.topic.Name, t.Name))
		}
	}
	return left
}
