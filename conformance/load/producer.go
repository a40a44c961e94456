package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/check"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Producer is one client library with acks=all, without any limit on retries or
// with those that it comes with: whatever it fails is the server's doing.
type Producer interface {
	// Send hands over one record. done is called exactly once unless the
	// producer is closed first, from any goroutine.
	Send(p check.Partition, value []byte, done func(offset int64, err error)) error
	// Flush returns when every record handed over is done.
	Flush(ctx context.Context) error
	Close()
}

// A Library opens producers of one client library and setting.
type Library struct {
	Name string
	// Plain says that the producer is not idempotent: a record whose answer was
	// lost may be stored twice.
	Plain bool
	// Once says that it sends each record once at most: what it gives up may have
	// been stored.
	Once bool
	Open func(ctx context.Context, bootstrap, dir string) (Producer, error)
}

// Libraries are the client libraries by name.
var Libraries = func() map[string]Library {
	all := map[string]Library{}
	for _, l := range []Library{
		{Name: "franz-go", Open: func(_ context.Context, bootstrap, _ string) (Producer, error) { return newFranz(bootstrap) }},
		{Name: "franz-go-plain", Plain: true, Open: func(_ context.Context, bootstrap, _ string) (Producer, error) {
			return newFranz(bootstrap, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
		}},
		{Name: "librdkafka", Open: func(_ context.Context, bootstrap, _ string) (Producer, error) { return newLibrdkafka(bootstrap, true) }},
		{Name: "librdkafka-plain", Plain: true, Open: func(_ context.Context, bootstrap, _ string) (Producer, error) { return newLibrdkafka(bootstrap, false) }},
		{Name: "franz-go-once", Once: true, Open: func(_ context.Context, bootstrap, _ string) (Producer, error) {
			return newFranz(bootstrap, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1), kgo.RecordRetries(0))
		}},
		javaLibrary("4.3.1", false),
		javaLibrary("2.8.2", false),
		javaLibrary("0.10.2.2", true),
		{Name: "franz-go" + defaults, Open: func(_ context.Context, bootstrap, _ string) (Producer, error) {
			return franzOf(kgo.SeedBrokers(bootstrap), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		}},
		{Name: "librdkafka" + defaults, Plain: true, Open: func(_ context.Context, bootstrap, _ string) (Producer, error) {
			return librdkafkaOf(kafka.ConfigMap{"bootstrap.servers": bootstrap, "acks": "all", "log_level": 0})
		}},
		{Name: "librdkafka-idempotent" + defaults, Open: func(_ context.Context, bootstrap, _ string) (Producer, error) {
			return librdkafkaOf(kafka.ConfigMap{"bootstrap.servers": bootstrap, "enable.idempotence": true, "log_level": 0})
		}},
		javaDefaults("4.3.1", false),
		javaDefaults("2.8.2", true),
		javaDefaults("0.10.2.2", true),
	} {
		all[l.Name] = l
	}
	return all
}()

// RedialMillisMax is the longest that a client waits before it connects again.
const RedialMillisMax = 200

// defaults ends the names of libraries with the settings that they come with, but for
// acks=all: what they do of their own.
const defaults = "-defaults"

const (
	lingerMillis     = 5
	requestMillisMax = 5000
)

// Refused says that an error which a producer gave up a record with proves that
// the record is not in the log: the server had looked at it and did not want it.
func Refused(err error) bool {
	if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidRecord) {
		return true
	}
	var rd kafka.Error
	return errors.As(err, &rd) && (rd.Code() == kafka.ErrMsgSizeTooLarge || rd.Code() == kafka.ErrInvalidRecord)
}

type franz struct{ client *kgo.Client }

func newFranz(bootstrap string, more ...kgo.Opt) (Producer, error) {
	return franzOf(append([]kgo.Opt{
		kgo.SeedBrokers(bootstrap),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(lingerMillis * time.Millisecond),
		kgo.UnknownTopicRetries(-1),
		kgo.ProduceRequestTimeout(requestMillisMax * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return RedialMillisMax / 2 * time.Millisecond }),
		kgo.MetadataMinAge(RedialMillisMax * time.Millisecond),
		// A server that dies during the handshake is not a wrong SASL setup.
		kgo.AlwaysRetryEOF(),
		// Lost producer state must fail the run, not be papered over by a
		// new epoch.
		kgo.StopProducerOnDataLossDetected(),
		kgo.MaxBufferedRecords(2 * MaxOutstanding),
	}, more...)...)
}

func franzOf(opts ...kgo.Opt) (Producer, error) {
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	return &franz{client}, nil
}

func (f *franz) Send(p check.Partition, value []byte, done func(int64, error)) error {
	f.client.Produce(context.Background(), &kgo.Record{Topic: p.Topic, Partition: p.Number, Value: value},
		func(r *kgo.Record, err error) { done(r.Offset, err) })
	return nil
}

func (f *franz) Flush(ctx context.Context) error { return f.client.Flush(ctx) }

func (f *franz) Close() { f.client.Close() }

type librdkafka struct {
	client  *kafka.Producer
	drained chan struct{}
}

func newLibrdkafka(bootstrap string, idempotent bool) (Producer, error) {
	config := kafka.ConfigMap{
		"bootstrap.servers":            bootstrap,
		"acks":                         "all",
		"message.timeout.ms":           0, // none
		"linger.ms":                    lingerMillis,
		"request.timeout.ms":           requestMillisMax,
		"socket.timeout.ms":            2 * requestMillisMax,
		"retry.backoff.ms":             RedialMillisMax / 2,
		"reconnect.backoff.ms":         RedialMillisMax / 4,
		"reconnect.backoff.max.ms":     RedialMillisMax,
		"queue.buffering.max.messages": 2 * MaxOutstanding,
		"log_level":                    0,
	}
	if idempotent {
		config["enable.idempotence"], config["enable.gapless.guarantee"] = true, true
	} else {
		config["max.in.flight"] = 1
	}
	return librdkafkaOf(config)
}

func librdkafkaOf(config kafka.ConfigMap) (Producer, error) {
	client, err := kafka.NewProducer(&config)
	if err != nil {
		return nil, err
	}
	l := &librdkafka{client: client, drained: make(chan struct{})}
	go l.deliver()
	return l, nil
}

// deliver runs until the library closes its event channel.
func (l *librdkafka) deliver() {
	defer close(l.drained)
	for event := range l.client.Events() {
		switch e := event.(type) {
		case *kafka.Message:
			done := e.Opaque.(func(int64, error))
			offset := int64(e.TopicPartition.Offset)
			if e.TopicPartition.Offset == kafka.OffsetInvalid {
				offset = check.Untold
			}
			done(offset, e.TopicPartition.Error)
		case kafka.Error:
			// Lost connections are expected here; a fatal error also fails
			// every outstanding message.
		}
	}
}

func (l *librdkafka) Send(p check.Partition, value []byte, done func(int64, error)) error {
	return l.client.Produce(&kafka.Message{
		TopicPartition: kafka.TopicPartition{Topic: &p.Topic, Partition: p.Number},
		Value:          value,
		Opaque:         done,
	}, nil)
}

func (l *librdkafka) Flush(ctx context.Context) error {
	const sliceMillis = 100
	for l.client.Flush(sliceMillis) > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("%d messages not delivered: %w", l.client.Len(), context.Cause(ctx))
		}
	}
	return nil
}

func (l *librdkafka) Close() {
	l.client.Close()
	<-l.drained
}
