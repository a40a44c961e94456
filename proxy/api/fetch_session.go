package api

import (
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/quirelog/quire/protocol"
)

// A fetch session (KIP-227) remembers what a consumer fetches, so that a
// request names only what changed and an answer holds only what is new.
//
//	session id, epoch   meaning
//	0, 0                full fetch that asks for a session
//	0, -1               full fetch without one
//	id, 0               the session ends; otherwise as 0, 0
//	id, -1              the session ends; otherwise as 0, -1
//	id, n               the session's nth step: partitions named are added or changed,
//	                    the forgotten go, the others stay as they were
//
// Sessions belong to the node, not to a connection.

const (
	initialFetchEpoch = 0
	finalFetchEpoch   = -1
)

// maxSessionPartitions bounds what all sessions remember, at some 200 bytes each.
const maxSessionPartitions = 1 << 20

// fetchAsk is what a client asks of one partition.
type fetchAsk struct {
	topic            string   // up to v12
	id               [16]byte // from v13 on
	partition        int32
	currentEpoch     int32 // -1: not to be checked
	lastFetchedEpoch int32 // -1: a consumer, which looks for divergence itself
	maxBytes         int32
	offset           int64
}

func (a *fetchAsk) key() fetchKey { return fetchKey{a.topic, a.id, a.partition} }

type fetchKey struct {
	topic     string
	id        [16]byte
	partition int32
}

// fetchSessions keeps the sessions. Its methods may be called from any goroutine.
type fetchSessions struct {
	maxSessions int
	minAge      time.Duration

	mu         sync.Mutex
	sessions   map[int32]*fetchSession
	partitions int // of all sessions
}

// fetchSession is one consumer's session. Up to the blank line its fields are
// guarded by the mu of fetchSessions, below by its own, which is taken first.
type fetchSession struct {
	id      int32
	size    int // partitions, as counted in fetchSessions
	created time.Time
	used    time.Time

	mu          sync.Mutex
	byID        bool // made by v13 or later: topics go by id
	epoch       int32
	byKey       map[fetchKey]*sessionPartition
	first, last *sessionPartition
}

// sessionPartition is a partition of a session and what its client knows of it.
type sessionPartition struct {
	fetchAsk
	highWatermark int64 // as told last; -1 makes the next answer tell it
	logStart      int64

	next, prev *sessionPartition
}

func (c *fetchSessions) init(maxSessions int, minAge time.Duration) {
	c.maxSessions, c.minAge = maxSessions, minAge
	c.sessions = make(map[int32]*fetchSession)
}

// get returns a session or nil.
func (c *fetchSessions) get(id int32) *fetchSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sessions[id]
}

// end removes a session, if it is there.
func (c *fetchSessions) end(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(c.sessions[id])
}

func (c *fetchSessions) remove(s *fetchSession) {
	if s != nil && c.sessions[s.id] == s {
		delete(c.sessions, s.id)
		c.partitions -= s.size
	}
}

// touch counts s as used at now and as holding size partitions. False: s was
// evicted, or it ends because it may not hold so many.
func (c *fetchSessions) touch(s *fetchSession, now time.Time, size int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[s.id] != s {
		return false
	}
	if size > maxPartitions || c.partitions-s.size+size > maxSessionPartitions {
		c.remove(s)
		return false
	}
	c.partitions += size - s.size
	s.size, s.used = size, now
	return true
}

// create makes a session for size partitions, or returns nil if there is no
// room. As in Kafka a new session takes the place of one that was not used for the
// minimal age or, of those that are older than it, of one with fewer partitions.
func (c *fetchSessions) create(now time.Time, byID bool, size int) *fetchSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.maxSessions <= 0 || size == 0 {
		return nil
	}
	if len(c.sessions) >= c.maxSessions {
		var idle, small *fetchSession
		for _, s := range c.sessions {
			if idle == nil || s.used.Before(idle.used) {
				idle = s
			}
			if now.Sub(s.created) > c.minAge && s.size < size && (small == nil || s.size < small.size) {
				small = s
			}
		}
		switch {
		case now.Sub(idle.used) > c.minAge:
			c.remove(idle)
		case small != nil:
			c.remove(small)
		default:
			return nil
		}
	}
	if c.partitions+size > maxSessionPartitions {
		return nil
	}
	s := &fetchSession{size: size, created: now, used: now, byID: byID, epoch: 1}
	s.byKey = make(map[fetchKey]*sessionPartition, size)
	for s.id == 0 || c.sessions[s.id] != nil {
		s.id = rand.Int32N(math.MaxInt32) + 1
	}
	c.sessions[s.id] = s
	c.partitions += size
	return s
}

// step makes a request the next step of its session: changes are applied and
// the epoch moves on. It returns the epoch that the answer must still find. A
// session without partitions ends: nil, without an error.
func (c *fetchSessions) step(id, epoch int32, byID bool, now time.Time, changed []fetchAsk, forgotten []fetchKey) (*fetchSession, int32, protocol.Code) {
	s := c.get(id)
	if s == nil {
		return nil, 0, protocol.FetchSessionIDNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.epoch != epoch:
		return nil, 0, protocol.InvalidFetchSessionEpoch
	case s.byID != byID:
		return nil, 0, protocol.FetchSessionTopicIDError
	}
	for i := range changed {
		s.set(&changed[i])
	}
	for i := range forgotten {
		if p := s.byKey[forgotten[i]]; p != nil {
			delete(s.byKey, forgotten[i])
			s.unlink(p)
		}
	}
	if len(s.byKey) == 0 {
		c.end(id)
		return nil, 0, protocol.None
	}
	if !c.touch(s, now, len(s.byKey)) {
		return nil, 0, protocol.FetchSessionIDNotFound
	}
	s.epoch = nextFetchEpoch(s.epoch)
	return s, s.epoch, protocol.None
}

func nextFetchEpoch(epoch int32) int32 {
	if epoch == math.MaxInt32 {
		return 1
	}
	return epoch + 1
}

// set adds a partition at the end or changes it where it stands.
func (s *fetchSession) set(a *fetchAsk) *sessionPartition {
	p := s.byKey[a.key()]
	if p == nil {
		p = &sessionPartition{highWatermark: -1, logStart: -1}
		p.fetchAsk = *a
		p.topic = s.topicName(a.topic)
		s.byKey[p.key()] = p
		s.link(p)
		return p
	}
	topic := p.topic
	p.fetchAsk = *a
	p.topic = topic
	return p
}

// topicName returns a copy of a name that aliases a frame, the same for
// neighbours of one topic.
func (s *fetchSession) topicName(name string) string {
	if s.last != nil && s.last.topic == name {
		return s.last.topic
	}
	return strings.Clone(name)
}

func (s *fetchSession) link(p *sessionPartition) {
	p.prev, p.next = s.last, nil
	if s.last != nil {
		s.last.next = p
	} else {
		s.first = p
	}
	s.last = p
}

func (s *fetchSession) unlink(p *sessionPartition) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		s.first = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		s.last = p.prev
	}
	p.next, p.prev = nil, nil
}

// told notes what an answer tells of a partition and says whether it tells anything
// that the client does not know. A partition that gets records goes to the end of the order,
// so that one with much to tell does not starve those behind it.
func (s *fetchSession) told(p *sessionPartition, out *protocol.FetchPartition, bytes int) bool {
	news := bytes > 0 || out.Diverging.Known
	if p.highWatermark != out.HighWatermark {
		p.highWatermark = out.HighWatermark
		news = true
	}
	if p.logStart != out.LogStartOffset {
		p.logStart = out.LogStartOffset
		news = true
	}
	if out.Code != protocol.None {
		// An error is told until it is gone, and then the watermark is.
		p.highWatermark = -1
		news = true
	}
	if bytes > 0 && s.byKey[p.key()] == p {
		s.unlink(p)
		s.link(p)
	}
	return news
}
