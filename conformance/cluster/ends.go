package main

import (
	"context"
	"fmt"
	"time"

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// observeEnds asks again and again for the ends of all logs and writes the answers
// down. Half of the time it begins with new connections, which may lead elsewhere.
func (r *run) observeEnds(ctx context.Context, number int) {
	const every, patience = 300 * time.Millisecond, 10 * time.Second
	topics := map[string]bool{}
	var names []string
	for _, p := range r.partitions {
		if !topics[p.Topic] {
			topics[p.Topic] = true
			names = append(names, p.Topic)
		}
	}
	const questions = 10 // of a client
	for ctx.Err() == nil {
		client, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.addr), kgo.ClientID(fmt.Sprintf("ends-%d", number)), kgo.AlwaysRetryEOF(),
			kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }))
		if err != nil {
			r.plan.logf("observer: %v", err)
			return
		}
		admin := kadm.NewClient(client)
		for range questions {
			asking, cancel := context.WithTimeout(ctx, patience)
			asked := r.now()
			listed, _ := admin.ListEndOffsets(asking, names...)
			cancel()
			answered := r.now()
			r.mu.Lock()
			for _, p := range r.partitions {
				if o, ok := listed.Lookup(p.Topic, p.Number); ok && o.Err == nil && o.Offset >= 0 {
					r.ends[p] = append(r.ends[p], check.End{Offset: o.Offset, Asked: asked, Answered: answered})
				}
			}
			r.mu.Unlock()
			wait(ctx, every)
		}
		client.Close()
	}
}

// askNode asks one server again and again, past HAProxy, for the end of one log:
// whether it leads it or not, and whatever HAProxy thinks of it. One that does not
// know yet that it was followed must not answer with what it remembers. Each log is
// asked for alone, since one that has to be opened first holds up all answers of its
// request.
func (r *run) askNode(ctx context.Context, n *node, p check.Partition) {
	const every = 500 * time.Millisecond
	for ctx.Err() == nil {
		r.askOnConn(ctx, n.server.Addr(), p, every)
		wait(ctx, every)
	}
}

// askOnConn is askNode on one connection, until that ends.
func (r *run) askOnConn(ctx context.Context, addr string, p check.Partition, every time.Duration) {
	const patience, version = 5 * time.Second, 4
	dialing, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := wire.Dial(dialing, addr)
	if err != nil {
		return
	}
	defer conn.Close()
	for ctx.Err() == nil {
		asking, cancel := context.WithTimeout(ctx, patience)
		asked := r.now()
		resp, err := conn.Call(asking, endRequest(p), version)
		cancel()
		if err != nil {
			return
		}
		answered := r.now()
		r.mu.Lock()
		for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, q := range t.Partitions {
				if q.ErrorCode == 0 {
					r.ends[p] = append(r.ends[p], check.End{Offset: q.Offset, Asked: asked, Answered: answered})
				}
			}
		}
		r.mu.Unlock()
		wait(ctx, every)
	}
}

// endRequest asks for the end of a log.
func endRequest(p check.Partition) *kmsg.ListOffsetsRequest {
	const latest = -1
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	part := kmsg.NewListOffsetsRequestTopicPartition()
	part.Partition, part.Timestamp, part.CurrentLeaderEpoch = p.Number, latest, -1
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = p.Topic, append(t.Partitions, part)
	req.Topics = append(req.Topics, t)
	return req
}
