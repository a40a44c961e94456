// Package clients runs client programs and libraries that this project did not
// write against one server, unchanged, and compares what they sent, byte by
// byte, with what the others read.
//
// QUIRE_CONFORMANCE_TARGET=kafka runs the same tests against Apache Kafka: an
// expectation that Kafka does not meet is a wrong expectation.
package clients

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// broker is the server, or the cluster, of this package's tests. They share it as
// clients of a real cluster do, each on topics of its own.
var broker peer.Target

// groupOverrides make groups quick: none waits for more members at its start,
// and members of KIP-848 come often. Kafka has a floor for the latter.
var groupOverrides = []string{"group.initial.rebalance.delay.ms=0", "group.consumer.heartbeat.interval.ms=500"}

// stepTimeout bounds one exchange with a server that is up. It is a limit on
// hangs, far above what any step takes.
const stepTimeout = 60 * time.Second

func TestMain(m *testing.M) {
	code, err := runWithBroker(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		code = 1
	}
	os.Exit(code)
}

func runWithBroker(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "quire-clients-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithTimeout(context.Background(), 2*stepTimeout)
	defer cancel()
	overrides := groupOverrides
	if onKafka {
		overrides = append(overrides, "group.consumer.min.heartbeat.interval.ms=100")
	}
	if broker, err = peer.NewTarget(ctx, peer.Options{Dir: dir, Overrides: overrides}); err != nil {
		return 1, err
	}
	if err := broker.Start(ctx); err != nil {
		return 1, err
	}
	defer broker.Kill()
	code = m.Run()
	if err := broker.Ended(); err != nil {
		return 1, fmt.Errorf("during the tests: %w", err)
	}
	if code != 0 {
		fmt.Fprintf(os.Stderr, "end of the server's log:\n%s\n", broker.LogTail(30))
	}
	stopCtx, cancelStop := context.WithTimeout(context.Background(), stepTimeout)
	defer cancelStop()
	if err := broker.Stop(stopCtx); err != nil {
		return 1, fmt.Errorf("stop the server: %w", err)
	}
	return code, nil
}

// need ends the test when a program of the machine is missing: as a failure in
// CI, as a skip that names it elsewhere.
func need(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, peer.ErrMissingTool) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func step(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	t.Cleanup(cancel)
	return ctx
}

// franzClient returns a franz-go client that is closed with the test.
func franzClient(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(broker.Addr())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func admin(t *testing.T) *kadm.Client { return kadm.NewClient(franzClient(t)) }

// newTopic creates a topic named after the test; configs are name=value.
// Samples carry fixed times long past, so nothing expires unless a test says so.
func newTopic(t *testing.T, partitions int32, configs ...string) string {
	t.Helper()
	topic := topicName(t)
	values := map[string]*string{"retention.ms": kadm.StringPtr("-1")}
	for _, c := range configs {
		name, value, _ := strings.Cut(c, "=")
		values[name] = &value
	}
	created, err := admin(t).CreateTopic(step(t), partitions, 1, values, topic)
	if err != nil || created.Err != nil {
		t.Fatalf("create topic %s: %v", topic, errors.Join(err, created.Err))
	}
	awaitTopic(t, topic, int(partitions))
	return topic
}

// awaitTopic returns when the topic is listed with a leader for each of its
// partitions that serves it: Kafka acknowledges a creation before its brokers
// know of it, and names leaders before they have opened the log.
func awaitTopic(t *testing.T, topic string, partitions int) kadm.TopicDetail {
	t.Helper()
	ctx, a := step(t), admin(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		topics, err := a.ListTopics(ctx, topic)
		if err != nil {
			t.Fatalf("wait for topic %s: %v", topic, err)
		}
		detail := topics[topic]
		led := 0
		for _, p := range detail.Partitions {
			if p.Err == nil && p.Leader >= 0 {
				led++
			}
		}
		if detail.Err == nil && led == partitions {
			if ends, err := a.ListEndOffsets(ctx, topic); err == nil && ends.Error() == nil {
				return detail
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("topic %s: %d of %d partitions have a leader (%v)", topic, led, partitions, detail.Err)
		}
	}
}

// onKafka tells that the tests run against Apache Kafka itself. It is asked
// only where Quire is held to more than Kafka keeps.
var onKafka = os.Getenv("QUIRE_CONFORMANCE_TARGET") == "kafka"

// topicName returns a legal name that no other test or run uses.
func topicName(t *testing.T) string {
	var random [4]byte
	rand.Read(random[:])
	legal := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		}
		return '-'
	}, t.Name())
	return legal + "-" + hex.EncodeToString(random[:])
}

// produce sends records in order with franz-go and fails the test unless all
// are acknowledged.
func produce(t *testing.T, topic string, records []*kgo.Record, opts ...kgo.Opt) {
	t.Helper()
	client := franzClient(t, append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	for _, r := range records {
		r.Topic = topic
	}
	if err := client.ProduceSync(step(t), records...).FirstErr(); err != nil {
		t.Fatalf("produce to %s: %v", topic, err)
	}
}

// consume reads count records of one partition from an offset with franz-go,
// by assignment.
func consume(t *testing.T, topic string, partition int32, from int64, count int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	client := franzClient(t, append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	}, opts...)...)
	ctx := step(t)
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("%s-%d: %d of %d records came from offset %d on: %v", topic, partition, len(records), count, from, err)
		}
		records = append(records, fetches.Records()...)
	}
	if len(records) > count {
		t.Fatalf("%s-%d: %d records from offset %d on, want %d", topic, partition, len(records), from, count)
	}
	return records
}

// endOffset returns where the partition's next record will go.
func endOffset(t *testing.T, topic string, partition int32) int64 {
	t.Helper()
	ends, err := admin(t).ListEndOffsets(step(t), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, ok := ends.Lookup(topic, partition)
	if !ok || end.Err != nil {
		t.Fatalf("end offset of %s-%d: listed %v, error %v", topic, partition, ok, end.Err)
	}
	return end.Offset
}

// settled fails the test unless the condition holds: at once on Quire, and
// within stepTimeout on Kafka, whose controller answers for a change before
// its brokers show it.
func settled(t *testing.T, what string, cond func() bool) {
	t.Helper()
	ctx := step(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		if !onKafka {
			t.Fatalf("%s: not so", what)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not so after %s", what, stepTimeout)
		}
	}
}

func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
