package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/quirelog/quire/storage/meta"
)

// DeleteTopic removes the topic if its id is still id, else ErrUnknownTopicID; a
// name that nobody has is ErrUnknownTopic. It blocks. The caller deletes its logs.
func (c *Coordinator) DeleteTopic(ctx context.Context, name string, id [16]byte) error {
	key := topicKey(name)
	for sent := false; ; {
		r, kv, err := c.readTopic(ctx, name)
		gone := errors.Is(err, ErrUnknownTopic) || err == nil && r.ID != encodeID(id)
		switch {
		case gone && sent:
			// By the transaction whose outcome was not known, or by somebody else.
			c.forget(ctx, key, kv, r)
			return nil
		case err != nil:
			return err
		case gone:
			return fmt.Errorf("%w: topic %q is now %s, not %s", ErrUnknownTopicID, name, r.ID, encodeID(id))
		}
		revision, ok, err := c.meta.Txn(ctx,
			[]meta.Cond{{Key: kv.Key, Modified: kv.Modified}},
			[]meta.Op{meta.Delete(kv.Key), meta.Delete(c.keys.topicID(id))})
		switch {
		case err == nil && ok:
			c.topics.changedHere(topicChange{key: key, revision: revision})
			return nil
		case err != nil && !retriable(ctx, err):
			return unavailable(fmt.Sprintf("topic %q", name), err)
		case err != nil:
			sent = true
		}
	}
}

// forget makes the copy in memory agree that a topic is gone, before the watch
// does: its key holds another topic's record, or nothing. If that cannot be found
// out, the watch will tell.
func (c *Coordinator) forget(ctx context.Context, key string, kv meta.KV, r topicRecord) {
	if kv.Key != "" {
		c.topics.changedHere(topicChange{key: key, topic: c.topicOf(r, kv.Modified), revision: kv.Modified})
		return
	}
	for {
		// A missing key has no revision; a condition tells one at which it is missing.
		revision, missing, err := c.meta.Txn(ctx, []meta.Cond{{Key: c.keys.topic(key)}}, nil)
		if err == nil && missing {
			c.topics.changedHere(topicChange{key: key, revision: revision})
		}
		if err == nil || !retriable(ctx, err) {
			return
		}
	}
}

// GrowTopic raises the number of partitions to count. It blocks.
func (c *Coordinator) GrowTopic(ctx context.Context, name string, count int32, validateOnly bool) error {
	_, err := c.changeTopic(ctx, name, validateOnly, func(r *topicRecord) error {
		if count <= r.Partitions {
			return fmt.Errorf("%w: topic %q has %d already, %d is not more", ErrInvalidPartitions, name, r.Partitions, count)
		}
		if count > c.config.MaxPartitionsPerTopic {
			return fmt.Errorf("%w: %d of topic %q, at most %d", ErrInvalidPartitions, count, name, c.config.MaxPartitionsPerTopic)
		}
		r.Partitions = count
		return nil
	})
	return err
}

// AlterTopicConfig replaces the topic's overrides by what change makes of them;
// change owns the map that it gets, which is never nil, and may be called again
// if somebody else was faster. It returns the topic after the change, or as it
// would be with validateOnly. It blocks.
func (c *Coordinator) AlterTopicConfig(ctx context.Context, name string, validateOnly bool, change func(map[string]string) (map[string]string, error)) (*Topic, error) {
	return c.changeTopic(ctx, name, validateOnly, func(r *topicRecord) error {
		overrides := maps.Clone(r.Config)
		if overrides == nil {
			overrides = make(map[string]string)
		}
		overrides, err := change(overrides)
		if err != nil {
			return err
		}
		if err := c.configs.check(name, r.ReplicationFactor, overrides); err != nil {
			return err
		}
		r.Config = maps.Clone(overrides)
		return nil
	})
}

// readTopic reads a topic's record from the metadata store. With ErrUnknownTopic
// the key may hold the record of a topic whose name collides; else kv has no key.
func (c *Coordinator) readTopic(ctx context.Context, name string) (topicRecord, meta.KV, error) {
	if CheckTopicName(name) != nil {
		// Nothing can have this name.
		return topicRecord{}, meta.KV{}, fmt.Errorf("%w: %.300q", ErrUnknownTopic, name)
	}
	kv, err := c.meta.Get(ctx, c.keys.topic(topicKey(name)))
	if errors.Is(err, meta.ErrNotFound) {
		return topicRecord{}, meta.KV{}, fmt.Errorf("%w: %q", ErrUnknownTopic, name)
	}
	if err != nil {
		return topicRecord{}, meta.KV{}, unavailable(fmt.Sprintf("topic %q", name), err)
	}
	r, err := decodeTopicRecord(kv)
	if err == nil && r.Name != name {
		err = fmt.Errorf("%w: %q, but %q", ErrUnknownTopic, name, r.Name)
	}
	return r, kv, err
}

// changeTopic swaps a topic's record for what change makes of it. If a swap's
// outcome is not known, finding exactly what was to be written means success.
func (c *Coordinator) changeTopic(ctx context.Context, name string, validateOnly bool, change func(*topicRecord) error) (*Topic, error) {
	var sent []byte
	for {
		r, kv, err := c.readTopic(ctx, name)
		if err != nil {
			return nil, err
		}
		if sent != nil && bytes.Equal(sent, kv.Value) {
			return c.changed(r, kv.Modified), nil
		}
		if err := change(&r); err != nil {
			return nil, err
		}
		if validateOnly {
			return c.topicOf(r, kv.Modified), nil
		}
		value := r.encode()
		revision, ok, err := c.meta.Txn(ctx,
			[]meta.Cond{{Key: kv.Key, Modified: kv.Modified}}, []meta.Op{meta.Put(kv.Key, value)})
		switch {
		case err == nil && ok:
			return c.changed(r, revision), nil
		case err != nil && !retriable(ctx, err):
			return nil, unavailable(fmt.Sprintf("topic %q", name), err)
		case err != nil:
			sent = value
		}
	}
}

// changed shows a topic's new content to everybody here.
func (c *Coordinator) changed(r topicRecord, revision meta.Revision) *Topic {
	t := c.topicOf(r, revision)
	c.topics.changedHere(topicChange{key: topicKey(t.Name), topic: t, revision: revision})
	return t
}
