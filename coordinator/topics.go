package coordinator

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/meta"
)

// Topic is one topic as of one revision. It is immutable: a change makes a new Topic.
type Topic struct {
	Name              string
	ID                [16]byte
	Partitions        int32
	ReplicationFactor int16             // as asked for; told back to clients as far as nodes exist
	Config            map[string]string // overrides only; nil if none; shared by topics with the same ones
	LogConfig         *storage.LogConfig
	Revision          meta.Revision
}

// Topic returns a topic by name or nil. It never waits for the metadata store.
func (c *Coordinator) Topic(name string) *Topic { return c.topics.byName(name) }

// TopicByID returns a topic by id or nil, likewise.
func (c *Coordinator) TopicByID(id [16]byte) *Topic { return c.topics.withID(id) }

// Topics returns all topics by name. The slice is the caller's.
func (c *Coordinator) Topics() []*Topic {
	all := c.topics.all()
	slices.SortFunc(all, func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// NumTopics is how many topics there are.
func (c *Coordinator) NumTopics() int { return c.topics.len() }

// openTopics reads all topics and follows them.
func (c *Coordinator) openTopics(ctx context.Context) error {
	revision, err := c.listTopics(ctx)
	if err != nil {
		return err
	}
	c.background.Add(1)
	go func() {
		defer c.background.Done()
		c.follow(followed{prefix: c.keys.topics(), after: revision, changed: applied(c.topicsChanged), list: c.listTopics})
	}()
	return nil
}

// listTopics replaces the copy in memory by what the metadata store holds. A
// record that cannot be read is an error: its topic must not look deleted.
func (c *Coordinator) listTopics(ctx context.Context) (meta.Revision, error) {
	byKey := make(map[string]*Topic)
	var bad error
	revision, err := c.meta.List(ctx, c.keys.topics(), func(kv meta.KV) bool {
		var t *Topic
		if t, bad = c.decodeTopic(kv); bad != nil {
			return false
		}
		byKey[c.keys.topicKey(kv.Key)] = t
		return true
	})
	switch {
	case bad != nil:
		return 0, bad
	case err != nil:
		return 0, unavailable("topics", err)
	}
	c.topics.replace(byKey, revision)
	return revision, nil
}

// topicsChanged applies what the watch saw.
func (c *Coordinator) topicsChanged(e meta.Events) {
	changes := make([]topicChange, 0, len(e.Events))
	for _, e := range e.Events {
		change := topicChange{key: c.keys.topicKey(e.Key), revision: e.Modified}
		if !e.Deleted {
			t, err := c.decodeTopic(e.KV)
			if err != nil {
				c.logger.Error("a changed topic stays as it was", zap.Error(err))
				continue
			}
			change.topic = t
		}
		changes = append(changes, change)
	}
	c.topics.follow(changes, e.Revision)
}

// topicChange is a topic key's new content at a revision.
type topicChange struct {
	key      string
	topic    *Topic // nil: deleted
	revision meta.Revision
}

// catalog is the copy of all topics in memory. Two streams write to it: the
// watch, which sees every change in order but later, and the calls that changed
// something here, so that their callers find it at once. The revision of each
// change decides: a key never goes back.
type catalog struct {
	mu       sync.RWMutex
	byKey    map[string]*Topic // by topic key, see keys
	byID     map[[16]byte]*Topic
	followed meta.Revision // the watch has brought everything up to here
	// deleted holds the deletions made here that the watch has not brought yet:
	// without it an older change that comes later would bring the topic back.
	deleted map[string]meta.Revision

	// changes counts the changes to this copy; changed holds one element if
	// there were some since it was last emptied. removed says that topics have gone.
	changes atomic.Uint64
	changed chan struct{}
	removed atomic.Bool

	// told is Config.OnTopicChange; untold are the changes that it has yet to be
	// called for, and telling is held by who calls it.
	told    func(t *Topic, deleted bool)
	untold  []toldTopic
	telling sync.Mutex
}

// toldTopic is a topic that has changed, or one that is gone.
type toldTopic struct {
	topic   *Topic
	deleted bool
}

// tell calls told for what has changed. Whoever changes something does so after
// it has let go of mu. If somebody tells already, that one goes on with these.
func (c *catalog) tell() {
	if c.told == nil {
		return
	}
	for c.telling.TryLock() {
		c.mu.Lock()
		changes := c.untold
		c.untold = nil
		c.mu.Unlock()
		for _, change := range changes {
			c.told(change.topic, change.deleted)
		}
		c.telling.Unlock()
		c.mu.RLock()
		more := len(c.untold) > 0
		c.mu.RUnlock()
		if !more {
			return
		}
	}
}

// noteLocked remembers to tell of a topic that another has taken the place of, or nobody.
func (c *catalog) noteLocked(old, now *Topic) {
	if c.told == nil {
		return
	}
	if old != nil && (now == nil || now.ID != old.ID) {
		c.untold = append(c.untold, toldTopic{old, true})
	}
	if now != nil && (old == nil || old.Revision != now.Revision) {
		c.untold = append(c.untold, toldTopic{now, false})
	}
}

func (c *catalog) init(told func(t *Topic, deleted bool)) {
	c.changed = make(chan struct{}, 1)
	c.replace(make(map[string]*Topic), 0)
	c.told = told
}

// note says that the copy has changed. The change is visible to whoever reads
// after it.
func (c *catalog) note() {
	c.changes.Add(1)
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// byName finds a topic without allocating. A name with a dot has another topic
// key, and that key's topic may have yet another name.
func (c *catalog) byName(name string) *Topic {
	if strings.IndexByte(name, '.') < 0 {
		c.mu.RLock()
		t := c.byKey[name]
		c.mu.RUnlock()
		if t != nil && t.Name != name {
			return nil
		}
		return t
	}
	var buf [maxTopicName]byte
	if len(name) > len(buf) {
		return nil
	}
	key := buf[:copy(buf[:], name)]
	for i, b := range key {
		if b == '.' {
			key[i] = '_'
		}
	}
	c.mu.RLock()
	t := c.byKey[string(key)]
	c.mu.RUnlock()
	if t == nil || t.Name != name {
		return nil
	}
	return t
}

// withKey returns the topic that has a topic key, whatever its name.
func (c *catalog) withKey(key string) *Topic {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byKey[key]
}

func (c *catalog) withID(id [16]byte) *Topic {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id]
}

func (c *catalog) all() []*Topic {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]*Topic, 0, len(c.byKey))
	for _, t := range c.byKey {
		all = append(all, t)
	}
	return all
}

func (c *catalog) len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.byKey)
}

// replace sets everything as of a revision. Changes made here after it stay.
func (c *catalog) replace(byKey map[string]*Topic, at meta.Revision) {
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, t := range c.byKey {
		if t.Revision > at {
			byKey[key] = t
		}
	}
	for key, revision := range c.deleted {
		if t := byKey[key]; revision > at && t != nil && t.Revision < revision {
			delete(byKey, key)
		}
	}
	if len(c.byKey) > 0 {
		c.removed.Store(true) // perhaps
	}
	if c.followed > 0 {
		for key, t := range c.byKey {
			if byKey[key] == nil {
				c.noteLocked(t, nil)
			}
		}
		for key, t := range byKey {
			c.noteLocked(c.byKey[key], t)
		}
	}
	c.byKey = byKey
	c.byID = make(map[[16]byte]*Topic, len(byKey))
	for _, t := range byKey {
		c.byID[t.ID] = t
	}
	if c.deleted == nil {
		c.deleted = make(map[string]meta.Revision)
	}
	c.followedLocked(at)
	c.note()
}

// follow applies the changes of one revision of the watch.
func (c *catalog) follow(changes []topicChange, revision meta.Revision) {
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range changes {
		c.applyLocked(change)
	}
	c.followedLocked(revision)
}

// changedHere applies changes that this node made.
func (c *catalog) changedHere(changes ...topicChange) {
	defer c.tell()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, change := range changes {
		if change.revision <= c.followed {
			// The watch has brought it, and perhaps what came after it.
			continue
		}
		if c.applyLocked(change) && change.topic == nil {
			c.deleted[change.key] = change.revision
		}
	}
}

// applyLocked sets one key unless something newer is known of it.
func (c *catalog) applyLocked(change topicChange) bool {
	old := c.byKey[change.key]
	if old != nil && old.Revision >= change.revision || c.deleted[change.key] >= change.revision {
		return false
	}
	if old != nil {
		delete(c.byID, old.ID)
		delete(c.byKey, change.key)
		if change.topic == nil || change.topic.ID != old.ID {
			c.removed.Store(true)
		}
	}
	if change.topic != nil {
		c.byKey[change.key] = change.topic
		c.byID[change.topic.ID] = change.topic
	}
	c.noteLocked(old, change.topic)
	c.note()
	return true
}

func (c *catalog) followedLocked(revision meta.Revision) {
	c.followed = revision
	for key, at := range c.deleted {
		if at <= revision {
			delete(c.deleted, key)
		}
	}
}
