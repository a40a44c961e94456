package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/quirelog/quire/conformance/check"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A producer is one client library, idempotent, with acks=all and without any
// limit on retries: whatever it fails is the server's doing.
type producer interface {
	// send hands over one record. done is called exactly once unless the
	// producer is closed first, from any goroutine.
	send(p check.Partition, value []byte, done func(offset int64, err error)) error
	// flush returns when every record handed over is done.
	flush(ctx context.Context) error
	close()
}

// libraries are the client libraries by name.
var libraries = map[string]func(bootstrap string) (producer, error){
	"franz-go":   newFranz,
	"librdkafka": newLibrdkafka,
}

const (
	lingerMillis     = 5
	redialMillisMax  = 200
	requestMillisMax = 5000
)

type franz struct{ client *kgo.Client }

func newFranz(bootstrap string) (producer, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(lingerMillis*time.Millisecond),
		kgo.UnknownTopicRetries(-1),
		kgo.ProduceRequestTimeout(requestMillisMax*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return redialMillisMax / 2 * time.Millisecond }),
		kgo.MetadataMinAge(redialMillisMax*time.Millisecond),
		// A server that dies during the handshake is not a wrong SASL setup.
		kgo.AlwaysRetryEOF(),
		// Lost producer state must fail the run, not be papered over by a
		// new epoch.
		kgo.StopProducerOnDataLossDetected(),
		kgo.MaxBufferedRecords(2*maxOutstanding),
	)
	if err != nil {
		return nil, err
	}
	return &franz{client}, nil
}

func (f *franz) send(p check.Partition, value []byte, done func(int64, error)) error {
	f.client.Produce(context.Background(), &kgo.Record{Topic: p.Topic, Partition: p.Number, Value: value},
		func(r *kgo.Record, err error) { done(r.Offset, err) })
	return nil
}

func (f *franz) flush(ctx context.Context) error { return f.client.Flush(ctx) }

func (f *franz) close() { f.client.Close() }

type librdkafka struct {
	client  *kafka.Producer
	drained chan struct{}
}

func newLibrdkafka(bootstrap string) (producer, error) {
	client, err := kafka.NewProducer(&kafka.ConfigMap{
		"bootstrap.servers":            bootstrap,
		"enable.idempotence":           true,
		"enable.gapless.guarantee":     true,
		"acks":                         "all",
		"message.timeout.ms":           0, // none
		"linger.ms":                    lingerMillis,
		"request.timeout.ms":           requestMillisMax,
		"socket.timeout.ms":            2 * requestMillisMax,
		"retry.backoff.ms":             redialMillisMax / 2,
		"reconnect.backoff.ms":         redialMillisMax / 4,
		"reconnect.backoff.max.ms":     redialMillisMax,
		"queue.buffering.max.messages": 2 * maxOutstanding,
		"log_level":                    0,
	})
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
			done(int64(e.TopicPartition.Offset), e.TopicPartition.Error)
		case kafka.Error:
			// Lost connections are expected here; a fatal error also fails
			// every outstanding message.
		}
	}
}

func (l *librdkafka) send(p check.Partition, value []byte, done func(int64, error)) error {
	return l.client.Produce(&kafka.Message{
		TopicPartition: kafka.TopicPartition{Topic: &p.Topic, Partition: p.Number},
		Value:          value,
		Opaque:         done,
	}, nil)
}

func (l *librdkafka) flush(ctx context.Context) error {
	const sliceMillis = 100
	for l.client.Flush(sliceMillis) > 0 {
		if ctx.Err() != nil {
			return fmt.Errorf("%d messages not delivered: %w", l.client.Len(), context.Cause(ctx))
		}
	}
	return nil
}

func (l *librdkafka) close() {
	l.client.Close()
	<-l.drained
}

var errUnknownLibrary = errors.New("unknown client library")
