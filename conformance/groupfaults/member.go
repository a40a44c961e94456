package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/groupcheck"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A flavor is a library and the way in which it takes part in a group.
type flavor struct {
	Library  string // franz-go, librdkafka, or one of javaClients
	Assignor string // range, cooperative-sticky, or consumer for KIP-848
}

// timing is what members are configured with. It is shorter than the libraries'
// defaults so that a run of minutes sees many sessions end.
type timing struct {
	session   time.Duration
	heartbeat time.Duration
	commit    time.Duration // between two commits of a member
	redial    time.Duration // the longest that a library waits before it connects again
}

// poll is how long a member waits for records, so that its commits are in time.
func (t timing) poll() time.Duration { return min(t.commit/3, time.Second) }

const (
	rebalanceTimeout = 30 * time.Second
	redialMax        = 200 * time.Millisecond // of members if not told otherwise, and of all else
	fetchWait        = 500 * time.Millisecond
	commitTimeout    = 20 * time.Second // longer than any outage of a run
)

// A member is one consumer: it receives, and commits what it received, and
// commits once more when partitions are taken from it.
type member struct {
	name, group, topic string
	bootstrap          string
	flavor             flavor
	jvm                *jvm // of Java's members
	timing             timing
	rec                *recorder
	logs               string // folder for what librdkafka says of itself; "": nowhere

	ctx     context.Context // ends when the member is to end
	end     context.CancelFunc
	ended   chan struct{}
	audible chan struct{} // closed when the wire lets a silent member speak again

	mu       sync.Mutex
	silent   bool
	next     map[int32]int64 // to commit: received and not committed
	assigned map[int32]int64 // when, of partitions that gave no record yet
}

// start runs a member until leave or silence.
func (m *member) start() error {
	m.ctx, m.end = context.WithCancel(context.Background())
	m.ended, m.audible = make(chan struct{}), make(chan struct{})
	m.next, m.assigned = map[int32]int64{}, map[int32]int64{}
	m.rec.event(groupcheck.Event{Kind: groupcheck.Joined, Group: m.group, Member: m.name})
	var run func()
	var err error
	switch m.flavor.Library {
	case "franz-go":
		run, err = m.openFranz()
	case "librdkafka":
		run, err = m.openLibrdkafka()
	default:
		run, err = m.jvm.open(m)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	go func() {
		defer close(m.ended)
		run()
	}()
	return nil
}

// leave closes the member in order. Wait for ended.
func (m *member) leave() {
	m.rec.event(groupcheck.Event{Kind: groupcheck.Left, Group: m.group, Member: m.name})
	m.end()
}

// silence makes the member do nothing more, once the wire lets none of its words
// through. It ends when it is audible again: librdkafka does not close without
// a word to its coordinator.
func (m *member) silence() {
	m.mu.Lock()
	m.silent = true
	m.mu.Unlock()
	m.rec.event(groupcheck.Event{Kind: groupcheck.Silenced, Group: m.group, Member: m.name})
	m.end()
}

func (m *member) isSilent() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.silent
}

func (m *member) partitions(numbers []int32) []groupcheck.Partition {
	var all []groupcheck.Partition
	for _, n := range numbers {
		all = append(all, groupcheck.Partition{Topic: m.topic, Number: n})
	}
	return all
}

func (m *member) told(kind groupcheck.Kind, numbers []int32) { m.toldAt(m.rec.now(), kind, numbers) }

func (m *member) toldAt(at int64, kind groupcheck.Kind, numbers []int32) {
	m.rec.event(groupcheck.Event{At: at, Kind: kind, Group: m.group, Member: m.name, Partitions: m.partitions(numbers)})
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range numbers {
		delete(m.next, n)
		delete(m.assigned, n)
		if kind == groupcheck.Assigned {
			m.assigned[n] = at
		}
	}
}

// received takes note of one record. The first one of a partition shows which
// committed offset the member was given.
func (m *member) received(number int32, offset int64) {
	m.mu.Lock()
	m.next[number] = offset + 1
	at, first := m.assigned[number]
	delete(m.assigned, number)
	m.mu.Unlock()
	if first && !m.isSilent() {
		from := offset
		if from == 0 {
			from = groupcheck.None // where a member without a committed offset starts
		}
		m.rec.read(groupcheck.Read{
			Group: m.group, Reader: m.name + " at its start", Partition: groupcheck.Partition{Topic: m.topic, Number: number}, Offset: from, Asked: at,
		})
	}
}

// take returns what is to be committed, of all partitions or of some.
func (m *member) take(only []int32) map[int32]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.silent {
		return nil
	}
	if only == nil {
		all := m.next
		m.next = map[int32]int64{}
		return all
	}
	some := map[int32]int64{}
	for _, n := range only {
		if offset, ok := m.next[n]; ok {
			some[n] = offset
			delete(m.next, n)
		}
	}
	return some
}

// calling writes down a commit that is about to be called. Tell the function it
// returns how it ended: failure is nil for all partitions not in failures.
func (m *member) calling(offsets map[int32]int64) (ended func(failure error, failures map[int32]error)) {
	return m.callingAt(m.rec.now(), offsets)
}

func (m *member) callingAt(at int64, offsets map[int32]int64) (ended func(failure error, failures map[int32]error)) {
	var numbers []int32
	var commits []groupcheck.Commit
	for n, offset := range offsets {
		numbers = append(numbers, n)
		commits = append(commits, groupcheck.Commit{Group: m.group, Member: m.name, Partition: groupcheck.Partition{Topic: m.topic, Number: n}, Offset: offset, Called: at})
	}
	first := m.rec.commit(commits)
	return func(failure error, failures map[int32]error) {
		if m.isSilent() {
			return // the answer, if any, is the wire's
		}
		for i, n := range numbers {
			err := failure
			if err == nil {
				err = failures[n]
			}
			if err != nil {
				m.rec.seen(m.flavor.Library, "commit: "+err.Error())
			}
			m.rec.answered(first+i, err == nil)
		}
	}
}

func (m *member) openFranz() (run func(), err error) {
	var client *kgo.Client
	commit := func(only []int32) {
		offsets := m.take(only)
		if len(offsets) == 0 {
			return
		}
		toCommit := map[int32]kgo.EpochOffset{}
		for n, offset := range offsets {
			toCommit[n] = kgo.EpochOffset{Epoch: -1, Offset: offset}
		}
		ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
		defer cancel()
		ended := m.calling(offsets)
		client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{m.topic: toCommit},
			func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
				failures := map[int32]error{}
				if err == nil {
					answered := maps.Clone(offsets)
					for _, t := range resp.Topics {
						for _, p := range t.Partitions {
							failures[p.Partition] = kerr.ErrorForCode(p.ErrorCode)
							delete(answered, p.Partition)
						}
					}
					for n := range answered {
						failures[n] = errors.New("no answer for the partition")
					}
				}
				ended(err, failures)
			})
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(m.bootstrap), kgo.ClientID(m.name),
		kgo.ConsumerGroup(m.group), kgo.ConsumeTopics(m.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(m.timing.session), kgo.HeartbeatInterval(m.timing.heartbeat), kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.FetchMaxWait(fetchWait), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.RetryBackoffFn(func(int) time.Duration { return m.timing.redial / 2 }), kgo.MetadataMinAge(m.timing.redial),
		// The default number of retries is made for its longer backoff: a member
		// gives up its partitions when they are used up.
		kgo.RequestRetries(int(m.timing.session / (m.timing.redial / 2))),
		// A server that dies during the handshake is not a wrong SASL setup.
		kgo.AlwaysRetryEOF(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, a map[string][]int32) { m.told(groupcheck.Assigned, a[m.topic]) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, r map[string][]int32) {
			if numbers := r[m.topic]; len(numbers) > 0 {
				commit(numbers)
			}
			m.told(groupcheck.Revoked, r[m.topic])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, l map[string][]int32) { m.told(groupcheck.Lost, l[m.topic]) }),
	}
	switch m.flavor.Assignor {
	case "range":
		opts = append(opts, kgo.Balancers(kgo.RangeBalancer()))
	case "cooperative-sticky":
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	case "consumer":
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.ServerSideBalancer())
	default:
		return nil, fmt.Errorf("unknown assignor %q", m.flavor.Assignor)
	}
	client, err = kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	return func() {
		defer func() {
			client.AllowRebalance()
			if m.isSilent() {
				<-m.audible
			}
			client.Close()
		}()
		due := time.Now().Add(m.timing.commit)
		for m.ctx.Err() == nil {
			ctx, cancel := context.WithTimeout(m.ctx, m.timing.poll())
			fetches := client.PollRecords(ctx, 500)
			cancel()
			fetches.EachError(func(_ string, _ int32, err error) {
				if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
					m.rec.seen(m.flavor.Library, "poll: "+err.Error())
				}
			})
			fetches.EachRecord(func(r *kgo.Record) { m.received(r.Partition, r.Offset) })
			if n := fetches.NumRecords(); n > 0 && !m.isSilent() {
				m.rec.received(m.name, n, m.rec.now())
			}
			if time.Now().After(due) {
				commit(nil)
				due = time.Now().Add(m.timing.commit)
			}
			client.AllowRebalance()
		}
	}, nil
}

func (m *member) openLibrdkafka() (run func(), err error) {
	config := kafka.ConfigMap{
		"bootstrap.servers":        m.bootstrap,
		"client.id":                m.name,
		"group.id":                 m.group,
		"enable.auto.commit":       false,
		"auto.offset.reset":        "earliest",
		"fetch.wait.max.ms":        int(fetchWait / time.Millisecond),
		"max.poll.interval.ms":     int(4 * rebalanceTimeout / time.Millisecond),
		"reconnect.backoff.ms":     int(m.timing.redial / 4 / time.Millisecond),
		"reconnect.backoff.max.ms": int(m.timing.redial / time.Millisecond),
		"retry.backoff.ms":         int(m.timing.redial / 2 / time.Millisecond),
		"socket.timeout.ms":        10_000,
		"queued.min.messages":      1000,
		"log_level":                0,
	}
	if m.flavor.Assignor == "consumer" {
		config["group.protocol"] = "consumer"
	} else {
		config["partition.assignment.strategy"] = m.flavor.Assignor
		config["session.timeout.ms"] = int(m.timing.session / time.Millisecond)
		config["heartbeat.interval.ms"] = int(m.timing.heartbeat / time.Millisecond)
	}
	if m.logs != "" {
		config["debug"], config["go.logs.channel.enable"], config["log_level"] = "cgrp,assignor", true, 7
	}
	client, err := kafka.NewConsumer(&config)
	if err != nil {
		return nil, err
	}
	endLog := func() {}
	if m.logs != "" {
		if endLog, err = writeLog(client, filepath.Join(m.logs, m.name+".log")); err != nil {
			client.Close()
			return nil, err
		}
	}
	commit := func(only []int32) {
		offsets := m.take(only)
		if len(offsets) == 0 {
			return
		}
		var toCommit []kafka.TopicPartition
		for n, offset := range offsets {
			toCommit = append(toCommit, kafka.TopicPartition{Topic: &m.topic, Partition: n, Offset: kafka.Offset(offset)})
		}
		ended := m.calling(offsets)
		answers, err := client.CommitOffsets(toCommit)
		failures := map[int32]error{}
		for _, a := range answers {
			if a.Error != nil {
				failures[a.Partition] = a.Error
			}
		}
		ended(err, failures)
	}
	rebalanced := func(c *kafka.Consumer, e kafka.Event) error {
		numbers := func(all []kafka.TopicPartition) []int32 {
			ns := []int32{}
			for _, p := range all {
				ns = append(ns, p.Partition)
			}
			return ns
		}
		switch e := e.(type) {
		case kafka.AssignedPartitions:
			m.told(groupcheck.Assigned, numbers(e.Partitions))
		case kafka.RevokedPartitions:
			kind := groupcheck.Revoked
			if c.AssignmentLost() {
				kind = groupcheck.Lost
			} else if len(e.Partitions) > 0 {
				commit(numbers(e.Partitions))
			}
			m.told(kind, numbers(e.Partitions))
		}
		return nil
	}
	if err := client.Subscribe(m.topic, rebalanced); err != nil {
		client.Close()
		endLog()
		return nil, err
	}
	return func() {
		defer endLog()
		due := time.Now().Add(m.timing.commit)
		for m.ctx.Err() == nil {
			switch e := client.Poll(int(m.timing.poll() / time.Millisecond)).(type) {
			case *kafka.Message:
				if e.TopicPartition.Error != nil {
					m.rec.seen(m.flavor.Library, "poll: "+e.TopicPartition.Error.Error())
					break
				}
				m.received(e.TopicPartition.Partition, int64(e.TopicPartition.Offset))
				if !m.isSilent() {
					m.rec.received(m.name, 1, m.rec.now())
				}
			case kafka.Error:
				m.rec.seen(m.flavor.Library, "event: "+e.Code().String())
				if e.IsFatal() && !m.isSilent() {
					m.rec.failed(m.name, e)
				}
			}
			if time.Now().After(due) {
				commit(nil)
				due = time.Now().Add(m.timing.commit)
			}
		}
		if m.isSilent() {
			<-m.audible
		}
		if err := client.Close(); err != nil && !m.isSilent() {
			m.rec.seen(m.flavor.Library, "close: "+err.Error())
		}
	}, nil
}

// writeLog writes down what a client says of itself until it is closed. Then end it.
func writeLog(client *kafka.Consumer, path string) (end func(), err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		for e := range client.Logs() {
			fmt.Fprintln(f, e.Timestamp.UTC().Format(time.RFC3339Nano), e.Tag, e.Message)
		}
	}()
	return func() {
		<-written
		f.Close()
	}, nil
}
