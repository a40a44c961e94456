package api

import (
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// The answer to a Fetch request, of what it has found.

// respond answers with what was read.
func (s *fetchRequest) respond() {
	s.endAway()
	s.outs, s.outOf, s.nodes = s.outs[:0], s.outOf[:0], s.nodes[:0]
	sessionID := int32(0)
	if s.session != nil {
		s.session.mu.Lock()
		if s.session.epoch != s.epoch {
			// The client went on without waiting for this answer.
			s.session.mu.Unlock()
			s.drop()
			s.respondError(protocol.InvalidFetchSessionEpoch)
			return
		}
		sessionID = s.session.id
	}
	total := 0
	for i := range s.parts {
		p := &s.parts[i]
		out, bytes, told := s.outcome(p)
		if s.away != nil && total > 0 && !s.hardLimits() && (total+bytes > s.maxBytes || bytes > int(p.ask.maxBytes)) {
			// Each node has kept to its share, but for one batch that may be larger.
			// Only the first of the whole answer is sent all the same; for the
			// others the client asks again.
			out.Records, bytes = nil, 0
		}
		total += bytes
		if s.session == nil || told && s.session.told(p.cached, &out, bytes) {
			s.outs = append(s.outs, out)
			s.outOf = append(s.outOf, p)
		}
	}
	if s.session != nil {
		s.session.mu.Unlock()
	} else if s.creates {
		sessionID = s.createSession()
	}

	e := &s.encoder
	e.Begin(s.version, s.r.CorrelationID, 0, protocol.None, sessionID, s.topicRuns())
	for i := 0; i < len(s.outs); {
		n := s.run(i)
		e.Topic(s.outOf[i].ask.topic, s.outOf[i].ask.id, n)
		for range n {
			e.Partition(&s.outs[i])
			i++
		}
	}
	parts, _ := e.End(s.nodes)
	s.r.Respond(proxy.Response{Parts: parts, Release: s.sentFunc})
}

// respondError answers without partitions.
func (s *fetchRequest) respondError(code protocol.Code) {
	s.encoder.Begin(s.version, s.r.CorrelationID, 0, code, 0, 0)
	parts, _ := s.encoder.End(nil)
	s.r.Respond(proxy.Response{Parts: parts, Release: s.sentFunc})
}

// run returns how many outs from i on are of one topic; topicRuns how many
// such runs there are.
func (s *fetchRequest) run(i int) int {
	first := &s.outOf[i].ask
	n := 1
	for i+n < len(s.outOf) && s.outOf[i+n].ask.id == first.id && s.outOf[i+n].ask.topic == first.topic {
		n++
	}
	return n
}

func (s *fetchRequest) topicRuns() int {
	runs := 0
	for i := 0; i < len(s.outOf); i += s.run(i) {
		runs++
	}
	return runs
}

// createSession makes a session of a full fetch and returns its id, 0 if there is
// no room for it: the client goes on with full fetches then.
func (s *fetchRequest) createSession() int32 {
	session := s.h.sessions.create(s.h.c.Now(), s.version >= 13, len(s.parts))
	if session == nil {
		return 0
	}
	session.mu.Lock()
	defer session.mu.Unlock()
	for i := range s.parts {
		p := session.set(&s.parts[i].ask)
		p.highWatermark, p.logStart = s.outs[i].HighWatermark, s.outs[i].LogStartOffset
	}
	return session.id
}

// outcome is a partition's part of the answer, with the bytes of its records. told
// is false if there is nothing to tell of it.
func (s *fetchRequest) outcome(p *fetchPart) (out protocol.FetchPartition, bytes int, told bool) {
	if p.away {
		out, told = s.awayOutcome(p)
		for _, r := range out.Records {
			bytes += len(r)
		}
		return out, bytes, told
	}
	return s.hereOutcome(p), p.read.Bytes, true
}

// hereOutcome is the part of a partition that is served here.
func (s *fetchRequest) hereOutcome(p *fetchPart) protocol.FetchPartition {
	rd := &p.read
	out := protocol.FetchPartition{
		Partition: p.ask.partition, HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1, PreferredReadReplica: -1,
	}
	if rd.Err != nil {
		out.Code = s.code(p)
		if s.version >= 16 && (out.Code == protocol.NotLeaderOrFollower || out.Code == protocol.FencedLeaderEpoch) {
			out.Leader = s.h.leaderHint(s.r.Listener(), p.topic, p.ask.partition)
			s.nodes = s.h.addNode(s.nodes, out.Leader.NodeID, s.r.Listener())
		}
		return out
	}
	out.HighWatermark, out.LastStableOffset, out.LogStartOffset = rd.HighWatermark, rd.LastStable, rd.LogStartOffset
	if p.diverging.Known {
		out.Diverging = p.diverging
		return out
	}
	out.Records = rd.Records
	if s.isolation == storage.ReadCommitted {
		p.aborted = p.aborted[:0]
		for _, a := range rd.Aborted {
			p.aborted = append(p.aborted, protocol.AbortedTxn(a))
		}
		if out.Aborted = p.aborted; out.Aborted == nil {
			out.Aborted = []protocol.AbortedTxn{}
		}
	}
	return out
}

// code is the code of a partition's error. A log that is closed since its topic
// was deleted is told as that.
func (s *fetchRequest) code(p *fetchPart) protocol.Code {
	code := fetchErrors.code(p.read.Err)
	switch {
	case code == protocol.NotLeaderOrFollower && p.topic != nil && s.h.c.Coordinator.TopicByID(p.topic.ID) == nil:
		if s.version >= 13 {
			return protocol.UnknownTopicID
		}
		return protocol.UnknownTopicOrPartition
	case code == protocol.KafkaStorageError && s.version <= 5:
		return protocol.NotLeaderOrFollower
	}
	return code
}
