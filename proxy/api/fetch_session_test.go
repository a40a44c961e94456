package api

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
)

// sessionFetch is a step of a session.
func sessionFetch(version int16, id, epoch int32, topics ...kmsg.FetchRequestTopic) *kmsg.FetchRequest {
	q := kmsg.NewPtrFetchRequest()
	q.Version, q.ReplicaID, q.MinBytes, q.MaxBytes = version, -1, 1, 50<<20
	q.SessionID, q.SessionEpoch = id, epoch
	q.Topics = topics
	return q
}

// told lists the partitions of an answer, in its order.
func told(resp *kmsg.FetchResponse) []int32 {
	out := []int32{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			out = append(out, p.Partition)
		}
	}
	return out
}

func wantTold(t *testing.T, what string, resp *kmsg.FetchResponse, want ...int32) {
	t.Helper()
	wantCode(t, what, resp.ErrorCode, protocol.None)
	if got := told(resp); !slices.Equal(got, want) {
		t.Errorf("%s: the answer tells of partitions %v, want %v", what, got, want)
	}
}

func TestFetchSession(t *testing.T) {
	for _, version := range []int16{7, 11, 12, 13, 18} {
		s := newServer(t)
		topic := s.createTopic("orders", 4)
		c := s.dial()
		for p := range int32(3) {
			c.produce(topic, p, "a")
		}
		at := func(partition int32, offset int64) kmsg.FetchRequestTopic {
			return fetchTopic(topic, partition, offset)
		}

		resp := do[*kmsg.FetchResponse](c, sessionFetch(version, 0, 0, at(0, 0), at(1, 0), at(2, 1)))
		wantTold(t, "full fetch", resp, 0, 1, 2)
		id := resp.SessionID
		if id <= 0 {
			t.Fatalf("v%d: session %d", version, id)
		}
		resp = do[*kmsg.FetchResponse](c, sessionFetch(version, id, 1, at(0, 1), at(1, 1)))
		wantTold(t, "nothing new", resp)
		if resp.SessionID != id {
			t.Errorf("v%d: session %d became %d", version, id, resp.SessionID)
		}
		c.produce(topic, 0, "b")
		wantTold(t, "one partition", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 2)), 0)
		// The client has not moved its offset: it gets the records again, now
		// behind those that had none.
		c.produce(topic, 1, "b")
		wantTold(t, "the served one comes last", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 3)), 1, 0)
		wantTold(t, "moved on", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 4, at(0, 2), at(1, 2))))
		// A watermark that moved is news without records.
		q := sessionFetch(version, id, 5, at(0, 2), at(2, 2))
		c.produce(topic, 2, "b")
		wantTold(t, "watermark", do[*kmsg.FetchResponse](c, q), 2)
		// A new partition is told of once.
		wantTold(t, "added", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 6, at(3, 0))), 3)
		wantTold(t, "added before", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 7)))
		// A forgotten one is not.
		q = sessionFetch(version, id, 8)
		f := kmsg.NewFetchRequestForgottenTopic()
		f.Topic, f.TopicID, f.Partitions = topic.Name, topic.ID, []int32{1, 9}
		q.ForgottenTopics = append(q.ForgottenTopics, f)
		c.produce(topic, 1, "c")
		wantTold(t, "forgotten", do[*kmsg.FetchResponse](c, q))
		// An error is told every time.
		wantTold(t, "error", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 9, at(0, 99))), 0)
		wantTold(t, "error again", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 10)), 0)
		wantTold(t, "mended", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 11, at(0, 2))), 0)
		wantTold(t, "mended before", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 12)))

		// Another connection goes on with the session.
		other := s.dial()
		wantTold(t, "other connection", do[*kmsg.FetchResponse](other, sessionFetch(version, id, 13)))

		wantSessionError(t, c, "wrong epoch", sessionFetch(version, id, 13), protocol.InvalidFetchSessionEpoch)
		wantSessionError(t, c, "epoch of the future", sessionFetch(version, id, 15), protocol.InvalidFetchSessionEpoch)
		wantSessionError(t, c, "unknown session", sessionFetch(version, id^1, 1), protocol.FetchSessionIDNotFound)
		wantSessionError(t, c, "session 0", sessionFetch(version, 0, 3), protocol.FetchSessionIDNotFound)
		across := int16(12)
		if version < 13 {
			across = 13
		}
		wantSessionError(t, c, "names and ids", sessionFetch(across, id, 14), protocol.FetchSessionTopicIDError)
		wantTold(t, "still there", do[*kmsg.FetchResponse](c, sessionFetch(version, id, 14)))

		// Epoch 0 makes a new session in place of the old one, -1 none.
		resp = do[*kmsg.FetchResponse](c, sessionFetch(version, id, 0, at(0, 2)))
		wantTold(t, "restarted", resp, 0)
		if resp.SessionID == id || resp.SessionID == 0 {
			t.Errorf("v%d: the new session is %d", version, resp.SessionID)
		}
		wantSessionError(t, c, "ended by a restart", sessionFetch(version, id, 15), protocol.FetchSessionIDNotFound)
		id = resp.SessionID
		resp = do[*kmsg.FetchResponse](c, sessionFetch(version, id, -1, at(0, 2)))
		wantTold(t, "closed", resp, 0)
		if resp.SessionID != 0 {
			t.Errorf("v%d: a final fetch has session %d", version, resp.SessionID)
		}
		wantSessionError(t, c, "ended", sessionFetch(version, id, 1), protocol.FetchSessionIDNotFound)

		// A session that forgets everything ends.
		resp = do[*kmsg.FetchResponse](c, sessionFetch(version, 0, 0, at(1, 2)))
		q = sessionFetch(version, resp.SessionID, 1)
		q.ForgottenTopics = append(q.ForgottenTopics, f)
		if resp := do[*kmsg.FetchResponse](c, q); resp.SessionID != 0 || resp.ErrorCode != 0 {
			t.Errorf("v%d: an empty session is %d with error %d", version, resp.SessionID, resp.ErrorCode)
		}
		sessions := &s.handler.sessions
		sessions.mu.Lock()
		if len(sessions.sessions) != 0 || sessions.partitions != 0 {
			t.Errorf("v%d: %d sessions are left with %d partitions", version, len(sessions.sessions), sessions.partitions)
		}
		sessions.mu.Unlock()
	}
}

func wantSessionError(t *testing.T, c *client, what string, q *kmsg.FetchRequest, want protocol.Code) {
	t.Helper()
	resp := do[*kmsg.FetchResponse](c, q)
	wantCode(t, what, resp.ErrorCode, want)
	if resp.SessionID != 0 || len(resp.Topics) != 0 {
		t.Errorf("%s: session %d and %d topics", what, resp.SessionID, len(resp.Topics))
	}
}

// TestFetchSessionOfADeletedTopic: partitions of a session that went away are errors.
func TestFetchSessionOfADeletedTopic(t *testing.T) {
	s := newServer(t)
	topic := s.createTopic("orders", 1)
	c := s.dial()
	c.produce(topic, 0, "a")
	id := do[*kmsg.FetchResponse](c, sessionFetch(13, 0, 0, fetchTopic(topic, 0, 1))).SessionID
	check(t, s.handler.deleteTopic(t.Context(), topic))
	again := s.createTopic("orders", 1)
	resp := do[*kmsg.FetchResponse](c, sessionFetch(13, id, 1))
	wantTold(t, "deleted", resp, 0)
	wantCode(t, "deleted", resp.Topics[0].Partitions[0].ErrorCode, protocol.UnknownTopicID)
	resp = do[*kmsg.FetchResponse](c, sessionFetch(13, id, 2, fetchTopic(again, 0, 0)))
	if len(resp.Topics) != 2 || resp.Topics[1].TopicID != again.ID || resp.Topics[1].Partitions[0].ErrorCode != 0 {
		t.Errorf("the topic made again is told as %+v", resp.Topics)
	}
}

func TestFetchSessionEviction(t *testing.T) {
	start := time.Now()
	var c fetchSessions
	c.init(3, time.Minute)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	a, b, d := c.create(at(0), true, 10), c.create(at(1), true, 20), c.create(at(2), true, 30)
	if a == nil || b == nil || d == nil {
		t.Fatal("there is room for three")
	}
	if c.create(at(30*time.Second), true, 100) != nil {
		t.Error("a young session made room")
	}
	// All are old now and have been used lately: a larger one takes the place
	// of the smallest, a smaller one of none.
	for _, s := range []*fetchSession{a, b, d} {
		if !c.touch(s, at(90*time.Second), s.size) {
			t.Fatal("a session is gone")
		}
	}
	if c.create(at(100*time.Second), true, 10) != nil {
		t.Error("an equal one took a place")
	}
	if e := c.create(at(100*time.Second), true, 11); e == nil || c.get(a.id) != nil {
		t.Error("a larger one did not take the place of the smallest")
	}
	if c.touch(a, at(101*time.Second), 10) {
		t.Error("an evicted session is used")
	}
	// One that nobody uses makes room for any.
	if !c.touch(d, at(200*time.Second), 30) {
		t.Fatal("a session is gone")
	}
	if f := c.create(at(201*time.Second), true, 1); f == nil || c.get(b.id) != nil || c.get(d.id) == nil {
		t.Error("the one idle for longest did not make room")
	}
	if c.partitions != 30+11+1 {
		t.Errorf("%d partitions are counted", c.partitions)
	}
}

func TestFetchSessionBounds(t *testing.T) {
	var c fetchSessions
	c.init(10, time.Minute)
	now := time.Now()
	if c.create(now, true, maxSessionPartitions+1) != nil || c.create(now, true, 0) != nil {
		t.Error("a session of too many or no partitions")
	}
	s := c.create(now, true, maxSessionPartitions-1)
	if s == nil || c.create(now, true, 2) != nil {
		t.Error("the sum of partitions is not bounded")
	}
	c.end(s.id)
	s = c.create(now, true, maxPartitions)
	if !c.touch(s, now, maxPartitions) {
		t.Error("a session may not hold what a request may name")
	}
	if c.touch(s, now, maxPartitions+1) || c.get(s.id) != nil || c.partitions != 0 {
		t.Error("a session grew without bound")
	}
	c.init(-1, time.Minute)
	if c.create(now, true, 1) != nil {
		t.Error("a session where there are none")
	}
}

func TestFetchSessionEpochWraps(t *testing.T) {
	var c fetchSessions
	c.init(1, time.Minute)
	s := c.create(time.Now(), false, 1)
	s.set(&fetchAsk{topic: "a"})
	s.epoch = math.MaxInt32
	if _, next, code := c.step(s.id, math.MaxInt32, false, time.Now(), nil, nil); code != protocol.None || next != 1 {
		t.Errorf("after the last epoch comes %d (%s)", next, code.Name())
	}
}

func TestFetchWithoutSessions(t *testing.T) {
	s := newServer(t, func(o *options) { o.config.MaxFetchSessions = -1 })
	topic := s.createTopic("orders", 1)
	if resp := do[*kmsg.FetchResponse](s.dial(), sessionFetch(11, 0, 0, fetchTopic(topic, 0, 0))); resp.SessionID != 0 || len(resp.Topics) != 1 {
		t.Errorf("session %d, topics %v", resp.SessionID, resp.Topics)
	}
}
