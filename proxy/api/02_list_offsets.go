package api

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/coordinator"
	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
	"github.com/quirelog/quire/storage"
	"github.com/quirelog/quire/storage/planted"
)

// ListOffsets: v0-11
//
//	v0: up to max_num_offsets offsets: where ledgers begin, Kafka's segments, and the high watermark
//	v1: one timestamp and offset per partition instead of a list
//	v2: isolation level, throttle time
//	v4: leader epoch in both directions (KIP-320)
//	v6: flexible
//	v7: timestamp -3, the record with the largest timestamp (KIP-734)
//	v8: -4, the earliest local offset (KIP-405)
//	v9: -5, the latest tiered offset (KIP-1005)
//	v10: timeout
//	v11: -6, the earliest offset that waits for upload (KIP-1023)
//
// Nothing is tiered: -4 is the log start and -5 is none.

// offsetAsk is one partition asked about.
type offsetAsk struct {
	topic *coordinator.Topic
	in    *kmsg.ListOffsetsRequestTopicPartition
	out   *kmsg.ListOffsetsResponseTopicPartition
}

func (h *Handlers) listOffsets(r *proxy.Request, q *kmsg.ListOffsetsRequest) {
	h.listedOffsets(r, q, func(resp kmsg.Response) { h.respond(r, resp) })
}

// listedOffsets answers with the logs of this node.
func (h *Handlers) listedOffsets(r *proxy.Request, q *kmsg.ListOffsetsRequest, reply func(kmsg.Response)) {
	resp := q.ResponseKind().(*kmsg.ListOffsetsResponse)
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, len(q.Topics))
	var asks []offsetAsk
	seen := make(map[topicPartition]int)
	for i := range q.Topics {
		in, out := &q.Topics[i], &resp.Topics[i]
		out.Default()
		out.Topic = in.Topic
		out.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, len(in.Partitions))
		t := h.c.Coordinator.Topic(in.Topic)
		for j := range in.Partitions {
			p := &out.Partitions[j]
			*p = noOffsetOf(in.Partitions[j].Partition)
			if q.Version > 0 { // v0 may ask about a partition for several times at once
				seen[topicPartition{in.Topic, p.Partition}]++
			}
			asks = append(asks, offsetAsk{t, &in.Partitions[j], p})
		}
	}
	blocks := false
	k := 0
	for i := range q.Topics {
		for range q.Topics[i].Partitions {
			a := &asks[k]
			k++
			if seen[topicPartition{q.Topics[i].Topic, a.in.Partition}] > 1 {
				a.out.ErrorCode = int16(protocol.InvalidRequest)
				a.topic = nil
			} else if a.topic == nil {
				a.out.ErrorCode = int16(protocol.UnknownTopicOrPartition)
			} else if h.offsetBlocks(a) {
				blocks = true
			}
		}
	}
	answer := func(ctx context.Context) (proved bool) {
		for i := range asks {
			if asks[i].topic != nil {
				*asks[i].out = noOffsetOf(asks[i].in.Partition)
				h.listOffset(ctx, q, &asks[i])
			}
		}
		return h.proveOffsets(ctx, asks)
	}
	if !blocks && answer(h.noTime) {
		reply(resp)
		return
	}
	r.GoSlow(func() {
		ctx, cancel := h.timeoutMillis(q.TimeoutMillis)
		defer cancel()
		answer(ctx)
		reply(resp)
	})
}

// proveOffsets refuses what this node may have told since it does not know yet that
// another node leads the partition: the end of a log is what the next leader
// changes. False: there was no time to find that out.
func (h *Handlers) proveOffsets(ctx context.Context, asks []offsetAsk) bool {
	if planted.Is(planted.ZombieEnds) {
		return true
	}
	for i := range asks {
		a := &asks[i]
		switch {
		case a.topic == nil:
			continue
		case a.out.ErrorCode != 0 && ctx == h.noTime:
			return false // the log may have been closed meanwhile, and is to be opened
		case a.out.ErrorCode != 0:
			continue
		}
		if err := h.prove(ctx, coordinator.PartitionSlot(a.topic.ID, a.in.Partition)); err != nil {
			if ctx == h.noTime {
				return false
			}
			*a.out = noOffsetOf(a.in.Partition)
			a.out.ErrorCode = int16(dataErrors.code(err))
		}
	}
	return true
}

// noOffsetOf is the answer about a partition without an offset.
func noOffsetOf(partition int32) kmsg.ListOffsetsResponseTopicPartition {
	p := kmsg.NewListOffsetsResponseTopicPartition()
	p.Partition, p.Timestamp, p.Offset, p.LeaderEpoch = partition, -1, -1, -1
	return p
}

func (h *Handlers) listOffsetsOfMany(r *proxy.Request, q *kmsg.ListOffsetsRequest) {
	whole := q.ResponseKind().(*kmsg.ListOffsetsResponse)
	asked := partitionsAsked(h, q.Topics,
		func(t *kmsg.ListOffsetsRequestTopic) (string, *[]kmsg.ListOffsetsRequestTopicPartition) {
			return t.Topic, &t.Partitions
		},
		func(p *kmsg.ListOffsetsRequestTopicPartition) int32 { return p.Partition },
		func(t *kmsg.ListOffsetsResponseTopic, name string) { t.Default(); t.Topic = name },
		func(t *kmsg.ListOffsetsResponseTopic) *[]kmsg.ListOffsetsResponseTopicPartition { return &t.Partitions })
	whole.Topics = asked.told
	h.answerSeveral(r, several{
		slots: asked.slots, reads: true, wait: wanted(q.TimeoutMillis), whole: whole,
		part: func(items []int) kmsg.Request {
			part := *q
			part.Topics = asked.some(items)
			return &part
		},
		here: func(q kmsg.Request, reply func(kmsg.Response)) {
			h.listedOffsets(r, q.(*kmsg.ListOffsetsRequest), reply)
		},
		answers: func(resp kmsg.Response) answers {
			return asked.answers(resp.(*kmsg.ListOffsetsResponse).Topics, func(p *kmsg.ListOffsetsResponseTopicPartition) int16 { return p.ErrorCode })
		},
		refuse: func(i int, why error) {
			*asked.out(i) = noOffsetOf(asked.ask(i).Partition)
			asked.out(i).ErrorCode = int16(dataErrors.code(why))
		},
	})
}

// offsetBlocks says whether a must be answered by a worker: its log is to be
// opened, or searched.
func (h *Handlers) offsetBlocks(a *offsetAsk) bool {
	if a.in.Timestamp != storage.LatestTimestamp && a.in.Timestamp != storage.EarliestTimestamp {
		return true
	}
	return h.c.Store.Log(storage.LogID{Topic: a.topic.ID, Partition: a.in.Partition}) == nil
}

func (h *Handlers) listOffset(ctx context.Context, q *kmsg.ListOffsetsRequest, a *offsetAsk) {
	if q.Version == 0 {
		var err error
		if a.out.OldStyleOffsets, err = h.offsetsBefore(ctx, a); err != nil {
			a.out.ErrorCode = int16(dataErrors.code(err))
		}
		return
	}
	found, err := h.offsetFor(ctx, q, a)
	if err != nil {
		a.out.ErrorCode = int16(dataErrors.code(err))
		return
	}
	a.out.Offset, a.out.Timestamp = found.Offset, found.Timestamp
	if q.Version >= 4 {
		a.out.LeaderEpoch = found.LeaderEpoch
	}
}

// offsetsBefore is v0's answer.
func (h *Handlers) offsetsBefore(ctx context.Context, a *offsetAsk) ([]int64, error) {
	l, err := h.openLog(ctx, a.topic, a.in.Partition)
	if err != nil {
		return nil, err
	}
	if a.in.MaxNumOffsets < 0 {
		return nil, fmt.Errorf("at most %d offsets: %w", a.in.MaxNumOffsets, errRequest)
	}
	return l.OffsetsBefore(a.in.Timestamp, int(a.in.MaxNumOffsets))
}

func (h *Handlers) offsetFor(ctx context.Context, q *kmsg.ListOffsetsRequest, a *offsetAsk) (storage.TimestampAndOffset, error) {
	none := storage.TimestampAndOffset{Offset: -1, Timestamp: -1, LeaderEpoch: -1}
	l, err := h.openLog(ctx, a.topic, a.in.Partition)
	if err != nil {
		return none, err
	}
	if err := checkEpoch(l, a.in.CurrentLeaderEpoch); err != nil {
		return none, err
	}
	// The special timestamps came one by one.
	since, known := map[int64]int16{
		storage.LatestTimestamp:        1,
		storage.EarliestTimestamp:      1,
		storage.MaxTimestamp:           7,
		storage.EarliestLocalTimestamp: 8,
		storage.LatestTieredTimestamp:  9,
		storage.EarliestPendingUpload:  11,
	}[a.in.Timestamp]
	if a.in.Timestamp < 0 && (!known || q.Version < since) {
		return none, fmt.Errorf("timestamp %d in v%d: %w", a.in.Timestamp, q.Version, storage.ErrUnknownTimestamp)
	}
	isolation := storage.ReadUncommitted
	if q.Version >= 2 && q.IsolationLevel == int8(storage.ReadCommitted) {
		isolation = storage.ReadCommitted
	}
	switch start, stable, high := l.Offsets(); a.in.Timestamp {
	case storage.LatestTimestamp:
		if isolation == storage.ReadCommitted {
			high = stable
		}
		return storage.TimestampAndOffset{Offset: high, Timestamp: -1, LeaderEpoch: l.Epoch()}, nil
	case storage.EarliestTimestamp:
		return storage.TimestampAndOffset{Offset: start, Timestamp: -1, LeaderEpoch: l.Epoch()}, nil
	}
	return l.OffsetForTime(ctx, a.in.Timestamp, isolation)
}

// topicPartition names a partition within a request.
type topicPartition struct {
	topic     string
	partition int32
}

// checkEpoch fences a request by the leader epoch that its client knows; -1
// is not checked (KIP-320).
func checkEpoch(l *storage.Log, epoch int32) error {
	if epoch < 0 {
		return nil
	}
	if have := l.Epoch(); epoch < have {
		return storage.ErrFencedEpoch
	} else if epoch > have {
		return storage.ErrUnknownEpoch
	}
	return nil
}
