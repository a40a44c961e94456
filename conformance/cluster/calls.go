package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// calls sends single requests by connections of its own and sends none again: it sees
// each answer that client libraries hide behind their retries.
type calls struct {
	run       *run
	stop      context.CancelFunc
	callers   sync.WaitGroup
	mu        sync.Mutex
	report    callReport
	committed int64 // offset of the newest commit that was acknowledged
	sent      int64 // of the newest
}

// A callReport is what became of the requests.
type callReport struct{ Produce, Fetch, Commit callCount }

// A callCount is about requests of one kind.
type callCount struct {
	Made, Failed int
	Longest      time.Duration  // of those that did not fail
	Errors       map[string]int // by the error's name
}

const (
	callsTopic = "calls"
	callsGroup = "calls"
	callEvery  = 50 * time.Millisecond
	// callTimeout is request.timeout.ms of Kafka's clients and some more for the way.
	callTimeout = 35 * time.Second
)

func (r *run) startCalls(ctx context.Context) (*calls, error) {
	c := &calls{run: r}
	c.begin()
	client, err := kgo.NewClient(kgo.SeedBrokers(r.cluster.addr), kgo.AlwaysRetryEOF())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	created, err := kadm.NewClient(client).CreateTopic(ctx, int32(r.plan.partitions), 1, nil, callsTopic)
	if err = errors.Join(err, created.Err); err != nil {
		return nil, fmt.Errorf("create topic %s: %w", callsTopic, err)
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.callers.Go(func() { c.call(ctx, &c.report.Produce, c.producer()) })
	c.callers.Go(func() { c.call(ctx, &c.report.Fetch, c.fetcher()) })
	c.callers.Go(func() { c.call(ctx, &c.report.Commit, c.committer()) })
	return c, nil
}

// begin forgets what was counted so far.
func (c *calls) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range []*callCount{&c.report.Produce, &c.report.Fetch, &c.report.Commit} {
		*n = callCount{Errors: map[string]int{}}
	}
}

// A caller makes one call; an error is the end of the connection unless it is a
// server's answer.
type caller func(context.Context, *wire.Conn) error

// call makes calls of one kind until ctx ends, on new connections after broken ones.
func (c *calls) call(ctx context.Context, count *callCount, one caller) {
	var conn *wire.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for ; ctx.Err() == nil; wait(ctx, callEvery) {
		began := time.Now()
		calling, cancel := context.WithTimeout(ctx, callTimeout)
		var err error
		if conn == nil {
			conn, err = wire.Dial(calling, c.run.cluster.addr)
		}
		if err == nil {
			err = one(calling, conn)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		count.Made++
		var answer *kerr.Error
		switch {
		case err == nil:
			count.Longest = max(count.Longest, time.Since(began))
		case errors.As(err, &answer):
			count.Failed++
			count.Errors[answer.Message]++
		default:
			count.Failed++
			count.Errors["no answer"]++
			if conn != nil {
				conn.Close()
			}
			conn = nil
		}
		c.mu.Unlock()
	}
}

// producer writes a record to each partition in turn.
func (c *calls) producer() caller {
	const version = 9
	turn := 0
	return func(ctx context.Context, conn *wire.Conn) error {
		turn++
		batch := wire.Batch(-1, -1, -1, time.Now().UnixMilli(), fmt.Sprint("call ", turn))
		resp, err := conn.Call(ctx, wire.Produce(callsTopic, int32(turn%c.run.plan.partitions), batch), version)
		if err != nil {
			return err
		}
		for _, t := range resp.(*kmsg.ProduceResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// fetcher follows all partitions.
func (c *calls) fetcher() caller {
	const version = 12
	next := make([]int64, c.run.plan.partitions)
	return func(ctx context.Context, conn *wire.Conn) error {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 500, 1, 1<<20, -1
		t := kmsg.NewFetchRequestTopic()
		t.Topic = callsTopic
		for n, offset := range next {
			p := kmsg.NewFetchRequestTopicPartition()
			p.Partition, p.FetchOffset, p.CurrentLeaderEpoch, p.PartitionMaxBytes = int32(n), offset, -1, 1<<20
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
		resp, err := conn.Call(ctx, req, version)
		if err != nil {
			return err
		}
		fetched := resp.(*kmsg.FetchResponse)
		failed := kerr.ErrorForCode(fetched.ErrorCode)
		for _, t := range fetched.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					failed = err
					continue
				}
				// -1: nobody could be asked for it in time.
				next[p.Partition] = max(next[p.Partition], p.HighWatermark)
			}
		}
		return failed
	}
}

// committer commits ever larger offsets of one partition.
func (c *calls) committer() caller {
	const version = 8
	return func(ctx context.Context, conn *wire.Conn) error {
		c.sent++
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Group, req.Generation = callsGroup, -1
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Offset = c.sent
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.Partitions = callsTopic, []kmsg.OffsetCommitRequestTopicPartition{p}
		req.Topics = append(req.Topics, t)
		resp, err := conn.Call(ctx, req, version)
		if err != nil {
			return err
		}
		for _, t := range resp.(*kmsg.OffsetCommitResponse).Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return err
				}
			}
		}
		c.committed = p.Offset
		return nil
	}
}

// end ends the calls.
func (c *calls) end() {
	c.stop()
	c.callers.Wait()
}

// finish ends the calls, asks for what was committed, and reports.
func (c *calls) finish(ctx context.Context, res *result) {
	c.end()
	res.Calls = &c.report
	client, err := kgo.NewClient(kgo.SeedBrokers(c.run.cluster.addr), kgo.AlwaysRetryEOF())
	if err != nil {
		res.found(err)
		return
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	offsets, err := kadm.NewClient(client).FetchOffsets(ctx, callsGroup)
	if err != nil {
		res.found(fmt.Errorf("offsets of group %s: %w", callsGroup, err))
		return
	}
	o, _ := offsets.Lookup(callsTopic, 0)
	if o.Err != nil || o.At < c.committed || o.At > c.sent {
		res.found(fmt.Errorf("group %s: offset %d is committed (error %v), the newest acknowledged is %d, the newest sent %d", callsGroup, o.At, o.Err, c.committed, c.sent))
	}
}

// undisturbed is nil if no produce and no fetch failed, and commits only for want of
// a coordinator that can write.
func (r callReport) undisturbed() error {
	var failed []error
	if n := r.Produce.Failed + r.Fetch.Failed; n > 0 {
		failed = append(failed, fmt.Errorf("%d of %d produces failed: %v; %d of %d fetches: %v", r.Produce.Failed, r.Produce.Made, r.Produce.Errors, r.Fetch.Failed, r.Fetch.Made, r.Fetch.Errors))
	}
	for name, n := range r.Commit.Errors {
		if name != kerr.CoordinatorNotAvailable.Message {
			failed = append(failed, fmt.Errorf("%d commits failed with %s", n, name))
		}
	}
	return errors.Join(failed...)
}
