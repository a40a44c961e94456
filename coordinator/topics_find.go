package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quirelog/quire/storage/meta"
)

// absentFor is how long a topic that the metadata store does not have is not
// looked for there again. A topic that is made meanwhile comes by the watch.
const absentFor = 100 * time.Millisecond

// maxAbsent bounds the names that are remembered as absent.
const maxAbsent = 10_000

// absentTopics remembers what the metadata store was asked for and does not have,
// so that clients which keep asking do not make it a load.
type absentTopics struct {
	mu    sync.Mutex
	until map[absentTopic]time.Time
}

type absentTopic struct {
	name string
	id   [16]byte
}

func (a *absentTopics) has(t absentTopic, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return now.Before(a.until[t])
}

func (a *absentTopics) add(t absentTopic, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.until == nil || len(a.until) >= maxAbsent {
		a.until = make(map[absentTopic]time.Time)
	}
	a.until[t] = now.Add(absentFor)
}

// errAway: the metadata store has not answered for so long that it is not asked on behalf
// of clients: each of those who wait for it would keep a worker from others.
var errAway = errors.New("it has not answered for long")

// FindTopic returns a topic by name as the metadata store has it, which may be
// newer than what Topic returns as long as the watch has not brought it; from
// then on Topic returns it too, or nil if it is gone. The error is ErrUnknownTopic or
// ErrUnavailable. It blocks, but for a name that the store was without just now, and
// while this node's lease is not known to last.
func (c *Coordinator) FindTopic(ctx context.Context, name string) (*Topic, error) {
	absent := absentTopic{name: name}
	if c.absent.has(absent, time.Now()) {
		return nil, fmt.Errorf("%w: %q", ErrUnknownTopic, name)
	}
	if !c.registration.valid() {
		return nil, unavailable(fmt.Sprintf("topic %q", name), errAway)
	}
	r, kv, err := c.readTopic(ctx, name)
	if errors.Is(err, ErrUnknownTopic) {
		c.absent.add(absent, time.Now())
		if c.Topic(name) != nil {
			c.forget(ctx, topicKey(name), kv, r)
		}
	}
	if err != nil {
		return nil, err
	}
	c.changed(r, kv.Modified)
	if t := c.Topic(name); t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknownTopic, name) // deleted since
}

// FindTopicByID is FindTopic by id. The error is ErrUnknownTopicID or ErrUnavailable.
func (c *Coordinator) FindTopicByID(ctx context.Context, id [16]byte) (*Topic, error) {
	absent := absentTopic{id: id}
	unknown := fmt.Errorf("%w: %s", ErrUnknownTopicID, encodeID(id))
	if c.absent.has(absent, time.Now()) {
		return nil, unknown
	}
	subject := "topic " + encodeID(id)
	if !c.registration.valid() {
		return nil, unavailable(subject, errAway)
	}
	kv, err := c.meta.Get(ctx, c.keys.topicID(id))
	if err == nil {
		kv, err = c.meta.Get(ctx, c.keys.topic(string(kv.Value)))
	}
	switch {
	case errors.Is(err, meta.ErrNotFound):
		c.absent.add(absent, time.Now())
		return nil, unknown
	case err != nil:
		return nil, unavailable(subject, err)
	}
	r, err := decodeTopicRecord(kv)
	switch {
	case err != nil:
		return nil, err
	case r.ID != encodeID(id):
		return nil, unknown // deleted and made again, between the two looks
	}
	c.changed(r, kv.Modified)
	if t := c.TopicByID(id); t != nil {
		return t, nil
	}
	return nil, unknown // deleted since
}
