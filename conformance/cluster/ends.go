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

// askNode asks one server again and again, past HAProxy, for the ends of all logs:
// whether it leads them or not, and whatever HAProxy thinks of it. One that does not
// know yet that it was followed must not answer with what it remembers.
func (r *run) askNode(ctx context.Context, n *node) {
	const every, patience, version = 200 * time.Millisecond, 5 * time.Second, 4
	for ctx.Err() == nil {
		r.askOnConn(ctx, n.server.Addr(), every, patience, version)
		wait(ctx, every)
	}
}

func (r *run) askOnConn(ctx context.Context, addr string, every, patience time.Duration, version int16) {
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
		resp, err := conn.Call(asking, r.endsRequest(), version)
		cancel()
		if err != nil {
			return
		}
		answered := r.now()
		r.mu.Lock()
		for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode == 0 {
					at := check.Partition{Topic: t.Topic, Number: p.Partition}
					r.ends[at] = append(r.ends[at], check.End{Offset: p.Offset, Asked: asked, Answered: answered})
				}
			}
		}
		r.mu.Unlock()
		wait(ctx, every)
	}
}

// endsRequest asks for the ends of all partitions that are loaded.
func (r *run) endsRequest() *kmsg.ListOffsetsRequest {
	const latest = -1
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	for _, p := range r.partitions {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != p.Topic {
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = p.Topic
			req.Topics = append(req.Topics, t)
		}
		part := kmsg.NewListOffsetsRequestTopicPartition()
		part.Partition, part.Timestamp, part.CurrentLeaderEpoch = p.Number, latest, -1
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, part)
	}
	return req
}
