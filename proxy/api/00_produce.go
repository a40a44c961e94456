package api

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
)

// Produce: v0-13
//
//	v0-2: message sets, which are converted up (00_produce_convert.go)
//	v1: throttle time
//	v2: log append time
//	v3: record batches, transactional id
//	v4: KAFKA_STORAGE_ERROR, before: NOT_LEADER_OR_FOLLOWER
//	v5: log start offset
//	v7: zstd
//	v8: record errors and an error message (KIP-467)
//	v9: flexible
//	v10: current leader (KIP-951)
//	v13: topic ids (KIP-516)
//
// acks=1 is answered like acks=-1, once the batch is durable: a batch that
// could still be lost must not be read, nor its offset told. acks=0 is not
// answered; if any partition failed the connection is closed, which is all
// that a client of acks=0 can notice. No topic is created here.

// produceRequest is a Produce request under way. It comes from a pool and goes
// back to it when its answer is sent, so that a request in steady state allocates nothing.
//
// It is decided by a countdown: one for each append, and one for the handler
// while it still hands batches to logs. Who takes the last one answers, on
// whatever goroutine that is. If the request's timeout passes first,
// produceDeadlines answers instead, and the request stays with the logs until the
// last append is decided; it is left to the garbage collector then.
type produceRequest struct {
	h     *Handlers
	r     *proxy.Request
	frame *buffer.Buffer

	version     int16
	correlation int32
	acks        int16
	timeout     time.Duration
	received    time.Time

	cursor protocol.ProduceRequest
	topics []produceTopic
	parts  []producePart

	owner *routedProduce // who answers; nil: the request itself
	only  []int32        // of owner's partitions, in order; nil: all
	state *connState     // of the connection; nil in a node alone
	seq   uint64         // among those of the connection
	lost  int            // parts that this node turned out not to serve

	converted int64 // bytes of converted sets, as counted in Handlers.converted
	inline    int   // what the loop may still spend on conversion, see conversionCost
	unopened  bool  // a worker has to open logs

	pending atomic.Int32
	wait    produceWait

	encoder protocol.ProduceEncoder
	nodes   []protocol.Node
	out     []byte
	vector  [1][]byte
	sent    func() // recycle as a func value, made once
	work    func() // openAndAppend likewise
}

type produceTopic struct {
	name       string // aliases the frame; empty from v13 on
	id         [16]byte
	partitions int
}

// producePart is one partition of the request.
type producePart struct {
	request   *produceRequest
	topic     *coordinator.Topic
	log       *storage.Log
	partition int32
	index     int32        // in the whole request
	lost      bool         // not served here after all; nothing of it was or will be stored
	back      bool         // lost, and with the owner again
	refused   error        // before it came to a log
	undecided atomic.Int32 // batches, 1 as long as their number is not known
	append    storage.Append

	// Of v0-2.
	set  []byte            // aliases the frame; nil once it is converted
	own  *buffer.Buffer    // of what it was converted to
	more []*storage.Append // batches after the first
}

// AppendDone implements storage.AppendNotifier.
func (p *producePart) AppendDone(*storage.Append) {
	p.undecided.Add(-1)
	p.request.decided()
}

func (h *Handlers) newProduceRequest() any {
	s := &produceRequest{h: h}
	s.sent = s.recycle
	s.work = s.openAndAppend
	s.wait.init()
	return s
}

func (h *Handlers) produce(r *proxy.Request) {
	s := h.produces.Get().(*produceRequest)
	err := s.cursor.Parse(r.Body, r.Version)
	if err == nil && max(s.cursor.Topics, s.cursor.Partitions) > maxPartitions {
		err = fmt.Errorf("a Produce request for %d partitions of %d topics: the limit is %d", s.cursor.Partitions, s.cursor.Topics, maxPartitions)
	}
	if err != nil {
		s.recycle()
		r.Drop(err)
		return
	}
	s.r, s.frame = r, r.Frame
	s.version, s.correlation, s.received = r.Version, r.CorrelationID, r.Received
	s.acks = s.cursor.Acks
	s.timeout = time.Duration(s.cursor.TimeoutMillis) * time.Millisecond
	if h.c.Peers != nil {
		s.state = stateOf(r)
		if r.Origin != nil {
			if s.state.refusals.refused(r.Origin.Stream) {
				s.recycle()
				r.Refuse()
				return
			}
		}
		if refs := s.topicsToFind(); len(refs) > 0 {
			r.GoSlow(func() {
				h.findTopics(refs)
				s.routeOrAppend()
			})
			return
		}
		if r.Origin == nil && h.routeProduce(s) {
			s.recycle()
			return
		}
	}
	s.begin()
}

// routeOrAppend is the worker's way from where the topics are known.
func (s *produceRequest) routeOrAppend() {
	if s.r.Origin == nil && s.h.routeProduce(s) {
		s.recycle()
		return
	}
	s.split()
	s.openAndAppend()
}

// begin appends what this node serves of the request, all of it or only some.
func (s *produceRequest) begin() {
	switch worker := s.split(); {
	case s.unopened:
		s.r.GoSlow(s.work)
	case worker:
		s.r.Go(s.work)
	default:
		s.appendAll()
	}
}

// split cuts the request into its partitions and checks each as far as it can
// be without its log. It says whether the rest must be done by a worker: a log is
// not open, or a batch costs more than a loop may spend.
func (s *produceRequest) split() (worker bool) {
	s.topics = s.topics[:0]
	n := s.cursor.Partitions
	if s.only != nil {
		n = len(s.only)
	}
	if n <= cap(s.parts) {
		s.parts = s.parts[:n]
	} else {
		s.parts = make([]producePart, n)
	}
	s.inline, s.unopened = inlineConversion, false
	i, index := 0, int32(-1)
	for s.cursor.NextTopic() {
		s.topics = append(s.topics, produceTopic{s.cursor.Topic, s.cursor.TopicID, s.cursor.TopicPartitions})
		topic, refused := s.findTopic()
		for s.cursor.NextPartition() {
			index++
			if s.only != nil && (i == n || s.only[i] != index) {
				continue
			}
			p := &s.parts[i]
			i++
			p.request, p.topic, p.partition, p.index, p.lost, p.back = s, topic, s.cursor.Partition, index, false, false
			p.log, p.refused = nil, refused
			p.undecided.Store(1)
			p.append.Batch, p.append.Buf, p.append.Notify = nil, s.frame, p
			p.append.Err, p.append.RecordErrors, p.append.Refused = nil, nil, false
			p.append.BaseOffset, p.append.LogAppendTime, p.append.LogStartOffset = -1, -1, -1
			if p.refused == nil {
				p.refused = s.check(p, s.cursor.Records)
			}
			if p.refused == nil && s.r.Origin != nil && !s.h.serves(coordinator.PartitionSlot(topic.ID, p.partition)) {
				p.refused = storage.ErrLostOwnership
			}
			if p.refused != nil {
				continue
			}
			p.log = s.h.c.Store.Log(storage.LogID{Topic: topic.ID, Partition: p.partition})
			s.unopened = s.unopened || p.log == nil
			worker = worker || p.log == nil || p.set != nil && !s.convertInline(p) || p.needsWorker()
		}
	}
	return worker
}

func (s *produceRequest) findTopic() (*coordinator.Topic, error) {
	if s.acks < -1 || s.acks > 1 {
		return nil, errAcks
	}
	var t *coordinator.Topic
	if s.version >= 13 {
		if t = s.h.c.Coordinator.TopicByID(s.cursor.TopicID); t == nil {
			return nil, coordinator.ErrUnknownTopicID
		}
	} else if t = s.h.c.Coordinator.Topic(s.cursor.Topic); t == nil {
		return nil, coordinator.ErrUnknownTopic
	}
	if isInternal(t.Name) {
		return nil, errInternalTopic
	}
	return t, nil
}

// check looks at what a partition was sent, in Kafka's order of checks, and
// takes the one batch out of it. What remains to be checked, the CRC first, the
// log does.
func (s *produceRequest) check(p *producePart, records []byte) error {
	if p.partition < 0 || p.partition >= p.topic.Partitions {
		return errUnknownPartition
	}
	if s.version < 3 {
		if records == nil {
			return errNoRecords
		}
		p.set = records
		return nil
	}
	b, err := storage.OneBatch(records)
	if err != nil {
		return err
	}
	if s.version < 7 && b.Codec() == batch.Zstd {
		return fmt.Errorf("zstd needs Produce v7: %w", batch.ErrUnknownCodec)
	}
	return p.take(b)
}

// take makes b the batch to append, or the first of them.
func (p *producePart) take(b batch.Batch) error {
	if b.Transactional() {
		return fmt.Errorf("batch of a transaction that was not begun here: %w", storage.ErrTxnState)
	}
	p.append.Batch = b
	return nil
}

// needsWorker says that appending what there is costs more than a loop may spend.
func (p *producePart) needsWorker() bool {
	if p.log.NeedsWorker(p.append.Batch) {
		return true
	}
	for _, a := range p.more {
		if p.log.NeedsWorker(a.Batch) {
			return true
		}
	}
	return false
}

// openAndAppend is the worker's way: it opens the logs that are not open, and
// converts the sets that are not converted. The connection's next request is not
// handled before it returns, so they are appended in the order in which they were sent.
func (s *produceRequest) openAndAppend() {
	ctx, cancel := s.h.timeoutMillis(int32(s.timeout / time.Millisecond))
	defer cancel()
	s.openAll(ctx)
	if s.version < 3 {
		s.convertAll(ctx)
	}
	s.appendAll()
}

func (s *produceRequest) openAll(ctx context.Context) {
	forEach(len(s.parts), func(i int) {
		if p := &s.parts[i]; p.refused == nil && p.log == nil {
			p.log, p.refused = s.h.openLog(ctx, p.topic, p.partition)
		}
	})
}

// appendAll hands the batches to their logs, in the order of the request. The
// request may be answered, and s be gone, when it returns.
func (s *produceRequest) appendAll() {
	s.pending.Store(1)
	for i := range s.parts {
		p := &s.parts[i]
		switch {
		case p.refused != nil:
		case p.append.Batch == nil: // a set without a message
			p.undecided.Store(0)
		case len(p.more) == 0:
			s.pending.Add(1)
			p.log.Append(&p.append)
		default:
			n := int32(1 + len(p.more))
			s.pending.Add(n)
			p.undecided.Store(n)
			p.log.AppendAll(append([]*storage.Append{&p.append}, p.more...))
		}
		if s.state != nil && p.notServed() {
			p.lost = true
			s.lost++
		}
	}
	if s.lost > 0 && s.giveBack() {
		return
	}
	if s.only != nil {
		s.owner.handed()
	}
	// Listed before the handler's own count is taken back, so that
	// whoever takes the last one finds it listed.
	if s.acks != 0 && s.pending.Load() > 1 {
		s.h.waiting.add(s)
	}
	s.decided()
}

// decided takes one from the countdown. Any goroutine.
func (s *produceRequest) decided() {
	if s.pending.Add(-1) != 0 {
		return
	}
	if s.wait.listed && !s.h.waiting.remove(s) {
		// Answered when its time was up; this is what the appends still held.
		s.frame.Release()
		s.releaseConverted()
		return
	}
	if s.h.c.Peers != nil {
		if s.lateLost() && s.giveBack() {
			return
		}
		if s.doubtful() {
			s.r.GoSlow(s.prove)
			return
		}
	}
	s.answer()
}

// answer tells what became of the appends.
func (s *produceRequest) answer() {
	if s.owner != nil {
		s.owner.appended(s, protocol.None)
		s.recycle()
		return
	}
	if s.acks == 0 {
		s.end()
		return
	}
	r := s.r
	s.out = s.encode(s.out[:0], protocol.None)
	s.vector[0] = s.out
	r.Respond(proxy.Response{Parts: s.vector[:], Release: s.sent})
}

// end finishes a request of acks=0.
func (s *produceRequest) end() {
	r := s.r
	var failed error
	for i := range s.parts {
		p := &s.parts[i]
		if failed = p.refused; failed == nil {
			failed = p.failure()
		}
		if failed != nil {
			failed = fmt.Errorf("produce with acks=0 to partition %d failed: %w", p.partition, failed)
			break
		}
	}
	s.recycle()
	if failed != nil {
		r.Drop(failed)
	} else {
		r.NoResponse()
	}
}

// timedOut answers in place of the appends that are not decided yet. Their
// batches may still come to be stored. waiting calls it, once, after it retained
// the frame.
func (s *produceRequest) timedOut() {
	if s.owner != nil {
		s.owner.appended(s, protocol.RequestTimedOut)
		return
	}
	out := s.encode(nil, protocol.RequestTimedOut)
	s.r.Respond(proxy.Response{Parts: [][]byte{out}})
}

// encode appends the answer to dst; undecided is the code of partitions whose
// append is not decided.
func (s *produceRequest) encode(dst []byte, undecided protocol.Code) []byte {
	dst = protocol.AppendResponseHeader(dst, s.correlation, protocol.FlexibleResponse(0, s.version))
	s.encoder.Begin(dst, s.version, len(s.topics))
	parts := s.parts
	s.nodes = s.nodes[:0]
	for i := range s.topics {
		t := &s.topics[i]
		s.encoder.Topic(t.name, t.id, t.partitions)
		for j := range parts[:t.partitions] {
			out := s.outcome(&parts[j], undecided)
			if out.Code != protocol.None && parts[j].topic != nil && s.state != nil && s.r.Origin == nil {
				s.state.line.mu.Lock()
				s.state.line.heedLocked(parts[j].topic.ID, s.received, &out)
				s.state.line.mu.Unlock()
			}
			s.encoder.Partition(&out)
		}
		parts = parts[t.partitions:]
	}
	return s.encoder.End(0, s.nodes)
}

func (s *produceRequest) outcome(p *producePart, undecided protocol.Code) protocol.ProducePartition {
	out := protocol.ProducePartition{Partition: p.partition, BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1}
	err := p.refused
	if p.lost {
		// Only another node hears that, and takes the partition to whoever serves it.
		out.Code = codeNotServed
		return out
	}
	if err == nil {
		if p.undecided.Load() > 0 {
			out.Code = undecided
			out.Message = undecided.Message()
			return out
		}
		err = p.failure()
	}
	if err != nil {
		out.Code = dataErrors.code(err)
		out.Message = err.Error()
		for _, e := range p.append.RecordErrors {
			out.RecordErrors = append(out.RecordErrors, protocol.RecordError(e))
		}
		if p.refused == nil && tellsLogStart(out.Code) {
			out.LogStartOffset, _, _ = p.log.Offsets()
		}
		if out.Code == protocol.KafkaStorageError && s.version <= 3 {
			out.Code = protocol.NotLeaderOrFollower
		}
		if out.Code == protocol.NotLeaderOrFollower && s.version >= 10 {
			out.Leader = s.h.leaderHint(s.r.Listener(), p.topic, p.partition)
			s.nodes = s.h.addNode(s.nodes, out.Leader.NodeID, s.r.Listener())
		}
		return out
	}
	out.BaseOffset = p.append.BaseOffset
	out.LogAppendTime = p.append.LogAppendTime
	out.LogStartOffset = p.append.LogStartOffset
	return out
}

// tellsLogStart says whether an error of a log comes with the log's start. Kafka gives it
// with all but those that say that the log is not there, or the batch as a whole
// not fit to be looked at (ReplicaManager.appendToLocalLog).
func tellsLogStart(code protocol.Code) bool {
	switch code {
	case protocol.UnknownTopicOrPartition, protocol.UnknownTopicID, protocol.NotLeaderOrFollower, protocol.KafkaStorageError,
		protocol.MessageTooLarge, protocol.RecordListTooLarge, protocol.CorruptMessage, protocol.RequestTimedOut:
		return false
	}
	return true
}

// failure is the error of the first batch that was not stored. Of several batches
// the first ones may be: whoever sent them sends all of them again, as after a lost answer.
func (p *producePart) failure() error {
	err := p.append.Err
	for i := 0; err == nil && i < len(p.more); i++ {
		err = p.more[i].Err
	}
	return err
}

// produceKept is the most partitions of a request whose memory is kept.
const produceKept = 1024

// recycle puts s back into the pool. It lets go of what s refers to.
func (s *produceRequest) recycle() {
	s.releaseConverted()
	if cap(s.parts) > produceKept {
		s.parts, s.topics, s.out = nil, nil, nil
	}
	for i := range s.parts {
		p := &s.parts[i]
		p.topic, p.log, p.refused, p.set, p.more = nil, nil, nil, nil, nil
		p.lost, p.back = false, false
		p.append.Batch, p.append.Buf, p.append.Err, p.append.RecordErrors = nil, nil, nil, nil
	}
	clear(s.topics)
	clear(s.nodes)
	s.nodes = s.nodes[:0]
	s.r, s.frame, s.owner, s.only, s.state, s.seq, s.lost = nil, nil, nil, nil, nil, 0, 0
	s.cursor = protocol.ProduceRequest{}
	s.wait.listed = false
	s.h.produces.Put(s)
}
