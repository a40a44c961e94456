package api

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// Fetch: v0-18
//
//	v0, v1: records in magic 0 (01_fetch_convert.go)
//	v1: throttle time
//	v2, v3: records in magic 1
//	v3: max_bytes
//	v4: records as they are stored, isolation level, aborted transactions (KIP-98)
//	v5: log start offset
//	v6: KAFKA_STORAGE_ERROR, before: NOT_LEADER_OR_FOLLOWER
//	v7: sessions (KIP-227)
//	v9: current leader epoch (KIP-320)
//	v10: topics with compression.type=zstd, before: UNSUPPORTED_COMPRESSION_TYPE
//	v11: rack; no other replica is ever preferred
//	v12: flexible, last fetched epoch and diverging epoch (KIP-595)
//	v13: topic ids (KIP-516)
//	v15: replica state instead of replica id
//	v16: current leader and its endpoint (KIP-951)
//	v17, v18: fields of followers
//
// Partitions are read in the order of the request, or of the session, until
// max_bytes is used up; the first that has data gives a whole batch even if
// that is larger. What is in memory is read on the loop. If that is less than
// min_bytes and nothing failed, the request is parked: it waits for its logs,
// on the loop, until there is enough or max_wait has passed. A worker opens
// logs and reads what is not in memory.
//
// No topic is created here.

// fetchRequest is a Fetch request under way. It belongs to the connection's
// loop, or to the worker that it was given to. It comes from a pool and goes
// back to it once its answer was sent and no wake-up is on its way, so that a
// request in steady state allocates nothing.
type fetchRequest struct {
	h *Handlers
	r *proxy.Request
	q protocol.FetchRequest

	version   int16
	magic     int8 // of the answer's records
	isolation storage.Isolation
	maxWait   time.Duration
	deadline  time.Time
	minBytes  int
	maxBytes  int

	session   *fetchSession // that this request is a step of
	epoch     int32         // of session, to be found by the answer
	creates   bool          // the client asks for a session
	asks      []fetchAsk
	forgotten []fetchKey

	parts    []fetchPart
	bytes    int  // of records, read so far
	now      bool // an error or a divergence is not kept waiting
	unproved bool // a worker has to find out whether it may be told
	unopened bool // a worker has to open logs
	unknown  bool // and to look for topics before

	// A worker found less than min_bytes when the watermarks were seen. What
	// lies in ledgers can only be estimated, so it is not tried again before
	// they have moved.
	short bool
	seen  int64

	away *fetchAway // what other nodes are asked for; nil: nothing

	raw storage.Read // what is being converted

	phase atomic.Int32 // of the fetch* constants
	timer proxy.Timer
	woken atomic.Bool  // look was posted and did not run yet
	holds atomic.Int32 // the answer, and look if it was posted

	encoder protocol.FetchEncoder
	outs    []protocol.FetchPartition
	outOf   []*fetchPart // of outs
	nodes   []protocol.Node

	// Method values, made once.
	lookFunc, parkFunc, expireFunc, closedFunc, sentFunc, startFunc, workFunc, leaveFunc func()
}

// fetchPart is one partition of a request.
type fetchPart struct {
	request   *fetchRequest
	ask       fetchAsk
	cached    *sessionPartition
	topic     *coordinator.Topic
	log       *storage.Log
	refused   error // before its log was looked at
	position  int64 // where to read: beyond ask.offset if nothing is left there in the old formats
	read      storage.Read
	aborted   []protocol.AbortedTxn
	diverging protocol.EpochEnd
	waiter    storage.Waiter
	fired     atomic.Bool // waiter

	away bool                    // served by another node, or by nobody
	call *fetchCall              // to that node; nil: nobody is asked
	out  protocol.FetchPartition // its answer, once the call has come back
}

// The phases of a request that may wait. Loop and worker pass it to and fro: the
// loop owns it in all phases but fetchWorks.
const (
	fetchReads  int32 = iota // or is answered
	fetchWorks               // a worker has it and may ask for it to be parked
	fetchParks               // the worker has asked
	fetchParked              // its logs know it
	fetchClosed              // the connection closed while a worker had it
)

const (
	fetchInline = 1024 // partitions of a request that the loop reads itself
	fetchKept   = 1024 // partitions of a request whose memory is kept
)

func (h *Handlers) newFetchRequest() any {
	s := &fetchRequest{h: h}
	s.lookFunc, s.parkFunc, s.expireFunc = s.look, s.park, s.expire
	s.closedFunc, s.sentFunc = s.closed, s.sent
	s.startFunc, s.workFunc, s.leaveFunc = s.startOnWorker, s.work, s.leave
	return s
}

func (h *Handlers) fetch(r *proxy.Request) {
	s := h.fetches.Get().(*fetchRequest)
	s.holds.Store(1)
	s.r, s.version, s.magic = r, r.Version, fetchMagic(r.Version)
	switch {
	case len(r.Body) > inlineBytes:
		s.phase.Store(fetchWorks)
		r.OnClose(s.closedFunc)
		r.GoSlow(s.startFunc) // it may have logs to open
	case !s.start():
	case s.unopened || s.unknown || len(s.parts) > fetchInline:
		s.giveAway()
	case !s.try():
		s.park()
	}
}

// startOnWorker does all of a request that names many partitions.
func (s *fetchRequest) startOnWorker() {
	if s.start() {
		s.work()
	}
}

// start finds out what is asked for. False: the request is answered, as it is
// at fault.
func (s *fetchRequest) start() bool {
	r := s.r
	err := s.q.Parse(r.Body, r.Version)
	if n := s.named(); err == nil && n > maxPartitions {
		err = fmt.Errorf("a Fetch request that names %d partitions: the limit is %d", n, maxPartitions)
	}
	if err != nil {
		r.Drop(err) // and s is left to the garbage collector
		return false
	}
	s.isolation = storage.ReadUncommitted
	if s.q.IsolationLevel == int8(storage.ReadCommitted) {
		s.isolation = storage.ReadCommitted
	}
	s.maxWait = time.Duration(s.q.MaxWaitMillis) * time.Millisecond
	s.deadline = r.Received.Add(s.maxWait)
	s.maxBytes = max(min(int(s.q.MaxBytes), s.h.c.FetchMaxBytes), 0)
	s.minBytes = min(int(s.q.MinBytes), s.maxBytes)
	if code := s.openSession(); code != protocol.None {
		s.respondError(code)
		return false
	}
	s.unopened = s.resolve()
	s.unknown = s.h.c.Peers != nil && len(s.topicsToFind()) > 0
	return true
}

// named is how many partitions the request names, topics without any included.
func (s *fetchRequest) named() int {
	n := len(s.q.Topics) + len(s.q.Forgotten)
	for i := range s.q.Topics {
		n += len(s.q.Topics[i].Partitions)
	}
	for i := range s.q.Forgotten {
		n += len(s.q.Forgotten[i].Partitions)
	}
	return n
}

// openSession finds what the request is about: all that it names, or what its
// session remembers.
func (s *fetchRequest) openSession() protocol.Code {
	sessions, byID := &s.h.sessions, s.version >= 13
	s.asks = s.asks[:0]
	for i := range s.q.Topics {
		t := &s.q.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			s.asks = append(s.asks, fetchAsk{
				topic: t.Name, id: t.ID, partition: p.Partition, offset: p.FetchOffset, maxBytes: p.MaxBytes,
				currentEpoch: p.CurrentLeaderEpoch, lastFetchedEpoch: p.LastFetchedEpoch,
			})
		}
	}
	if s.q.SessionEpoch == initialFetchEpoch || s.q.SessionEpoch == finalFetchEpoch {
		if s.q.SessionID != 0 {
			sessions.end(s.q.SessionID)
		}
		s.creates = s.q.SessionEpoch == initialFetchEpoch
		s.setParts(len(s.asks))
		for i := range s.asks {
			s.parts[i].ask = s.asks[i]
		}
		return protocol.None
	}

	s.forgotten = s.forgotten[:0]
	for i := range s.q.Forgotten {
		t := &s.q.Forgotten[i]
		for _, p := range t.Partitions {
			s.forgotten = append(s.forgotten, fetchKey{t.Name, t.ID, p})
		}
	}
	session, epoch, code := sessions.step(s.q.SessionID, s.q.SessionEpoch, byID, s.h.c.Now(), s.asks, s.forgotten)
	if session == nil {
		s.setParts(0)
		return code
	}
	s.session, s.epoch = session, epoch
	session.mu.Lock()
	defer session.mu.Unlock()
	s.setParts(len(session.byKey))
	i := 0
	for p := session.first; p != nil; p = p.next {
		s.parts[i].ask, s.parts[i].cached = p.fetchAsk, p
		i++
	}
	return protocol.None
}

func (s *fetchRequest) setParts(n int) {
	if n <= cap(s.parts) {
		s.parts = s.parts[:n]
		return
	}
	s.parts = make([]fetchPart, n)
	for i := range s.parts {
		s.parts[i].request = s
	}
}

// resolve finds the topics and logs of the partitions. closed says that some
// log is not open.
func (s *fetchRequest) resolve() (closed bool) {
	var last *fetchPart
	for i := range s.parts {
		p := &s.parts[i]
		p.topic, p.log, p.refused, p.position = nil, nil, nil, p.ask.offset
		p.away, p.call = false, nil
		if last != nil && last.ask.id == p.ask.id && last.ask.topic == p.ask.topic {
			p.topic = last.topic
		} else if s.version >= 13 {
			p.topic = s.h.c.Coordinator.TopicByID(p.ask.id)
		} else {
			p.topic = s.h.c.Coordinator.Topic(p.ask.topic)
		}
		last = p
		switch {
		case p.topic == nil && s.version >= 13:
			p.refused = coordinator.ErrUnknownTopicID
		case p.topic == nil:
			p.refused = coordinator.ErrUnknownTopic
		case p.ask.partition < 0 || p.ask.partition >= p.topic.Partitions:
			p.refused = errUnknownPartition
		case s.q.ReplicaID >= 0:
			// There are no followers: replicas are the ledger tier's business.
			p.refused = storage.ErrLostOwnership
		case s.version < 10 && wantsZstd(p.topic.LogConfig):
			p.refused = errZstdTopic
		case s.magic < 2 && p.topic.LogConfig.NoDownConversion:
			p.refused = errNoDownConversion
		case s.fetchRoute(p):
			p.log = s.h.c.Store.Log(storage.LogID{Topic: p.topic.ID, Partition: p.ask.partition})
			closed = closed || p.log == nil
		}
	}
	return closed
}

// try reads what is in memory and answers if that is enough, or has a worker
// read what is not if that will be. False: the request has to wait.
func (s *fetchRequest) try() bool {
	s.routeAway()
	if s.unopened {
		s.unpark()
		s.giveAway()
		return true
	}
	io := s.readFrom(0, nil)
	if !s.enough(io) || s.joining() {
		return false
	}
	s.unpark()
	if io >= 0 || s.magic < 2 && s.bytes > 0 {
		s.giveAway()
	} else {
		s.respond()
	}
	return true
}

// giveAway gives the request to a worker. Loop only.
func (s *fetchRequest) giveAway() {
	s.phase.Store(fetchWorks)
	s.r.OnClose(s.closedFunc)
	if s.unopened || s.unknown || s.unproved {
		s.r.GoSlow(s.workFunc)
	} else {
		s.r.Go(s.workFunc)
	}
}

// readFrom reads parts[first:], within what the request has left. Without a
// context it reads from memory only and stops at the first part that needs
// I/O, or a proof, which it returns; else it returns -1.
func (s *fetchRequest) readFrom(first int, ctx context.Context) int {
	for i := first; i < len(s.parts); i++ {
		p := &s.parts[i]
		rd := &p.read
		p.diverging = protocol.EpochEnd{}
		if p.away || p.log == nil && p.refused == nil {
			continue
		}
		rd.Err = p.refused
		if rd.Err == nil {
			rd.Err = p.checkEpochs()
			if !s.proveEnd(ctx, p, &rd.Err) {
				s.unproved = true
				return i
			}
		}
		if rd.Err == nil && !p.diverging.Known {
			rd.Offset, rd.Isolation = p.position, s.isolation
			rd.MaxBytes = max(min(int(p.ask.maxBytes), s.maxHere()-s.bytes, s.h.fetchRoom()), 0)
			rd.MinOne = s.bytes == 0 && !(s.hardLimits() && p.ask.maxBytes <= 0)
			if !p.log.ReadTail(rd) {
				if ctx == nil {
					return i
				}
				p.log.Read(ctx, rd)
			}
		}
		if s.lost(p, rd.Err) {
			rd.Err = nil
			continue
		}
		s.now = s.now || rd.Err != nil || p.diverging.Known
		s.bytes += rd.Bytes
		if rd.Bytes > 0 {
			s.h.fetched.Add(int64(rd.Bytes))
		}
	}
	return -1
}

// fetchRoom is how many more bytes answers may hold in memory before each is
// cut down to the one batch that makes its client go on.
func (h *Handlers) fetchRoom() int {
	return int(max(h.c.MaxFetchedBytes-h.fetched.Load(), 0))
}

// checkEpochs fences the client by the leader epoch that it knows, and finds where
// its log and ours part if it told its last epoch (KIP-320, KIP-595).
func (p *fetchPart) checkEpochs() error {
	if err := checkEpoch(p.log, p.ask.currentEpoch); err != nil {
		return err
	}
	if p.ask.lastFetchedEpoch < 0 {
		return nil
	}
	epoch, end := p.log.EpochEnd(p.ask.lastFetchedEpoch)
	if epoch < 0 {
		return fmt.Errorf("last fetched epoch %d is not in the log: %w", p.ask.lastFetchedEpoch, storage.ErrOffsetOutOfRange)
	}
	if epoch < p.ask.lastFetchedEpoch || end < p.ask.offset {
		p.diverging = protocol.EpochEnd{Known: true, Epoch: epoch, EndOffset: end}
		start, stable, high := p.log.Offsets()
		p.read.LogStartOffset, p.read.LastStable, p.read.HighWatermark = start, stable, high
	}
	return nil
}

// enough says whether the request is to be answered now. io is what readFrom
// returned: from there on, what a worker would find counts as well.
func (s *fetchRequest) enough(io int) bool {
	if s.now || s.unproved || s.maxWait <= 0 || s.bytes >= s.minBytes || len(s.parts) == 0 {
		return true
	}
	away := 0
	if s.away != nil {
		var now bool
		if away, now = s.awayBytes(); now || s.away.joins || s.bytes+away >= s.minBytes {
			return true
		}
	}
	if io < 0 || s.short && s.watermarks() == s.seen {
		return false
	}
	bytes := int64(s.bytes + away)
	for i := io; i < len(s.parts); i++ {
		if p := &s.parts[i]; p.log != nil {
			// Beyond what this node knows of is an error, or a log that another node
			// has: a worker finds out which, and neither is kept waiting.
			if _, _, high := p.log.Offsets(); p.position > high {
				return true
			}
			bytes += min(p.log.Available(p.position, s.isolation), int64(max(p.ask.maxBytes, 0)))
		}
	}
	return bytes >= int64(s.minBytes)
}

// watermarks changes whenever a log has more for its readers.
func (s *fetchRequest) watermarks() int64 {
	var sum int64
	for i := range s.parts {
		if p := &s.parts[i]; p.log != nil {
			_, stable, high := p.log.Offsets()
			sum += stable + high
		}
	}
	return sum
}

// work is the worker's part: to open logs, and to read what is not in memory.
func (s *fetchRequest) work() {
	ctx, cancel := s.h.timeout(defaultTimeout)
	defer cancel()
	if s.unknown {
		s.unknown = false
		s.h.findTopics(s.topicsToFind())
		s.unopened = s.resolve()
	}
	s.routeAway()
	if s.unopened {
		s.unopened = false
		s.openLogs(ctx)
	}
	seen := s.watermarks()
	s.drop()
	io := s.readFrom(0, nil)
	answer := s.enough(io)
	switch {
	case answer && s.magic < 2:
		s.drop()
		answer = s.readConverted(ctx)
	case answer && io >= 0:
		s.unproved = false
		s.readFrom(io, ctx)
		s.short, s.seen = true, seen
		answer = s.enough(-1)
	}
	if answer && !s.joining() {
		s.phase.Store(fetchReads)
		s.respond()
		return
	}
	s.drop()
	if s.phase.CompareAndSwap(fetchWorks, fetchParks) {
		s.r.Post(s.parkFunc)
		return
	}
	// The connection is closed: this answer only gives the request back.
	s.phase.Store(fetchReads)
	s.respond()
}

func (s *fetchRequest) openLogs(ctx context.Context) {
	forEach(len(s.parts), func(i int) {
		if p := &s.parts[i]; p.refused == nil && p.log == nil && !p.away {
			p.log, p.refused = s.h.openLog(ctx, p.topic, p.ask.partition)
		}
	})
	for i := range s.parts {
		if p := &s.parts[i]; s.lost(p, p.refused) {
			p.refused = nil
		}
	}
}

// park makes the request wait for its logs. Loop only.
func (s *fetchRequest) park() {
	s.drop()
	s.phase.Store(fetchParked)
	for i := range s.parts {
		p := &s.parts[i]
		if p.log == nil {
			continue
		}
		if p.waiter.Wake == nil {
			p.waiter.Wake = p.wake
		}
		p.fired.Store(false)
		p.log.Wait(&p.waiter)
	}
	s.r.OnClose(s.closedFunc)
	s.r.OnDrain(s.expireFunc)
	if s.away != nil && s.away.joins {
		s.timer = s.r.After(fetchJoinTime, s.leaveFunc)
	} else {
		s.timer = s.r.After(max(time.Until(s.deadline), 0), s.expireFunc)
	}
	// A log may have moved before it was waited for.
	if !s.try() {
		s.drop()
	}
}

// unpark ends the waiting; no wake-up is made after it. Loop only.
func (s *fetchRequest) unpark() {
	if s.phase.Load() != fetchParked {
		return
	}
	s.phase.Store(fetchReads)
	s.timer.Stop()
	for i := range s.parts {
		if p := &s.parts[i]; p.log != nil {
			p.log.Unwait(&p.waiter)
		}
	}
}

// wake is called by a log that moved, on any goroutine.
func (p *fetchPart) wake() {
	p.fired.Store(true)
	p.request.wakeUp()
}

// wakeUp has the loop look at the request again. Any goroutine, before the answer.
func (s *fetchRequest) wakeUp() {
	if s.woken.CompareAndSwap(false, true) {
		s.holds.Add(1)
		s.r.Post(s.lookFunc)
	}
}

// look runs on the loop after logs have moved.
func (s *fetchRequest) look() {
	s.woken.Store(false)
	if s.letGo() || s.phase.Load() != fetchParked {
		return
	}
	// Wait again, then look: what moves meanwhile wakes once more.
	for i := range s.parts {
		if p := &s.parts[i]; p.fired.Swap(false) && p.log != nil {
			p.log.Wait(&p.waiter)
		}
	}
	if !s.try() {
		s.drop()
	}
}

// expire runs on the loop when max_wait has passed, or when the connection waits
// for its answers to close.
func (s *fetchRequest) expire() {
	if s.phase.Load() == fetchParked {
		s.maxWait = 0
		if !s.try() {
			s.drop() // other nodes have not answered yet
		}
	}
}

// closed runs on the loop if the connection closes before the answer.
func (s *fetchRequest) closed() {
	if s.phase.CompareAndSwap(fetchWorks, fetchClosed) {
		return // the worker answers, to nobody
	}
	switch s.phase.Load() {
	case fetchParks: // park will not be called
		s.phase.Store(fetchReads)
	case fetchParked:
		s.unpark()
	default:
		return
	}
	s.dropAway()
	s.r.NoResponse()
	s.letGo()
}

// drop lets go of what was read.
func (s *fetchRequest) drop() {
	if s.bytes > 0 {
		s.h.fetched.Add(-int64(s.bytes))
	}
	for i := range s.parts {
		rd := &s.parts[i].read
		for _, b := range rd.Bufs {
			b.Release()
		}
		clear(rd.Bufs)
		clear(rd.Records)
		rd.Bufs, rd.Records, rd.Bytes = rd.Bufs[:0], rd.Records[:0], 0
		rd.Aborted, rd.Err = rd.Aborted[:0], nil
	}
	s.bytes, s.now, s.unproved = 0, false, false
}

// sent runs when the answer's bytes are not needed any more.
func (s *fetchRequest) sent() {
	s.encoder.Reset()
	s.drop()
	s.dropAway()
	s.letGo()
}

// letGo drops one hold; the last one puts s back into the pool.
func (s *fetchRequest) letGo() bool {
	if s.holds.Add(-1) > 0 {
		return false
	}
	s.recycle()
	return true
}

func (s *fetchRequest) recycle() {
	if cap(s.parts) > fetchKept {
		s.parts, s.asks, s.forgotten, s.outs, s.outOf = nil, nil, nil, nil, nil
	}
	for i := range s.parts {
		p := &s.parts[i]
		p.ask, p.cached, p.topic, p.log, p.refused = fetchAsk{}, nil, nil, nil, nil
	}
	clear(s.asks)
	clear(s.forgotten)
	clear(s.outs)
	clear(s.nodes)
	s.q.Reset()
	s.r, s.session, s.creates, s.unopened, s.unknown, s.short = nil, nil, false, false, false, false
	s.timer = proxy.Timer{}
	s.phase.Store(fetchReads)
	s.h.fetches.Put(s)
}
