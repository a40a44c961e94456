package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

type produceVerb struct {
	clientFlags
	Topic        string            `arg:"" help:"Topic to send to."`
	Partition    int32             `short:"p" default:"-1" help:"Partition; -1 lets the key decide."`
	KeySeparator string            `short:"K" placeholder:"TEXT" help:"What stands between key and value on a line. Unset: lines have no key."`
	Headers      map[string]string `name:"header" short:"H" mapsep:"none" placeholder:"KEY=VALUE" help:"Header of every record; repeatable."`
	Compression  string            `short:"z" enum:"none,gzip,snappy,lz4,zstd" default:"none" help:"Codec (${enum})."`
	MaxBytes     int32             `default:"1000000" help:"Longest line and largest batch, in bytes; what a topic takes is its max.message.bytes (${default})."`
}

// batchOverhead is room for the header of a batch and of its first record.
const batchOverhead = 512

var codecs = map[string]func() kgo.CompressionCodec{
	"none":   kgo.NoCompression,
	"gzip":   kgo.GzipCompression,
	"snappy": kgo.SnappyCompression,
	"lz4":    kgo.Lz4Compression,
	"zstd":   kgo.ZstdCompression,
}

func (v *produceVerb) Run(p *process) error {
	if v.MaxBytes < 1024 || v.MaxBytes > 90<<20 {
		return errors.New("--max-bytes must be from 1024 to 94371840")
	}
	if err := v.reach(p.ctx); err != nil {
		return err
	}
	partitioner := kgo.StickyKeyPartitioner(nil)
	if v.Partition >= 0 {
		partitioner = kgo.ManualPartitioner()
	}
	client, err := v.open(
		kgo.DefaultProduceTopic(v.Topic),
		kgo.RecordPartitioner(partitioner),
		kgo.ProducerBatchCompression(codecs[v.Compression]()),
		kgo.ProducerBatchMaxBytes(v.MaxBytes+batchOverhead),
		kgo.RecordDeliveryTimeout(v.Timeout),
		kgo.AllowAutoTopicCreation(),
	)
	if err != nil {
		return err
	}
	defer client.Close()

	var headers []kgo.RecordHeader
	for _, k := range slices.Sorted(maps.Keys(v.Headers)) {
		headers = append(headers, kgo.RecordHeader{Key: k, Value: []byte(v.Headers[k])})
	}

	// The first failure ends the reading: a line after it must not be sent as
	// if nothing had happened.
	ctx, cancel := context.WithCancelCause(p.ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var acknowledged int64
	lines := bufio.NewScanner(p.stdin)
	lines.Buffer(nil, int(v.MaxBytes)+len("\r\n"))
	number := 0
	for ctx.Err() == nil && lines.Scan() {
		number++
		r := &kgo.Record{Partition: max(v.Partition, 0), Headers: headers, Value: bytes.Clone(lines.Bytes())}
		if v.KeySeparator != "" {
			key, value, ok := bytes.Cut(r.Value, []byte(v.KeySeparator))
			if !ok {
				cancel(fmt.Errorf("line %d has no %q between key and value", number, v.KeySeparator))
				break
			}
			r.Key, r.Value = key, value
		}
		client.Produce(ctx, r, func(r *kgo.Record, err error) {
			if errors.Is(err, kgo.ErrRecordTimeout) {
				// The library does not tell which retriable error it had.
				err = fmt.Errorf("not acknowledged within %s (--timeout); the server's log, or its /readyz, tells why: %w", v.Timeout, err)
			}
			if err != nil {
				cancel(explain(v.Topic, err, ""))
				return
			}
			mu.Lock()
			acknowledged++
			mu.Unlock()
		})
	}
	// Lines already read are sent, but a signal does not wait for them.
	flushErr := client.Flush(ctx)
	mu.Lock()
	defer mu.Unlock()
	cause := context.Cause(ctx)
	if errors.Is(cause, context.Canceled) {
		cause = errInterrupted
	}
	for _, err := range []error{cause, flushErr, lines.Err()} {
		if errors.Is(err, bufio.ErrTooLong) {
			err = fmt.Errorf("line %d is longer than %d bytes: see --max-bytes", number+1, v.MaxBytes)
		}
		if err != nil {
			return fmt.Errorf("%w (%d of %d lines acknowledged)", err, acknowledged, number)
		}
	}
	return nil
}
