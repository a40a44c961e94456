package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A reader fetches partitions as the Java consumer does with its defaults (one
// request for all of them, 1 MiB of each, fetch.min.bytes 1, 500 ms) but does
// not decode records. Two cores are shared with the server, and what is
// measured is the server.
type reader struct {
	conn    *wire.Conn
	req     *kmsg.FetchRequest
	version int16
	walk    func(records []byte, next int64) (after, bytes int64, err error)
	next    map[int32]int64 // offset to fetch
}

const (
	fetchVersion           = 11
	fetchMaxBytes          = 50 << 20
	fetchPartitionMaxBytes = 1 << 20
	fetchMaxWaitMillis     = 500
)

func newReader(ctx context.Context, addr, topic string, from map[int32]int64) (*reader, error) {
	conn, err := wire.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = -1, fetchMaxWaitMillis, 1, fetchMaxBytes, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	for n := range int32(len(from)) {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.PartitionMaxBytes = n, fetchPartitionMaxBytes
		t.Partitions = append(t.Partitions, p)
	}
	req.Topics = []kmsg.FetchRequestTopic{t}
	r := &reader{conn: conn, req: req, version: fetchVersion, walk: walk, next: map[int32]int64{}}
	for p, offset := range from {
		r.next[p] = offset
	}
	return r, nil
}

func (r *reader) close() { r.conn.Close() }

// fetch asks once and returns how many bytes of batches came.
func (r *reader) fetch(ctx context.Context) (int64, error) {
	parts := r.req.Topics[0].Partitions
	for i := range parts {
		parts[i].FetchOffset = r.next[parts[i].Partition]
	}
	resp, err := r.conn.Call(ctx, r.req, r.version)
	if err != nil {
		return 0, err
	}
	var total int64
	for _, t := range resp.(*kmsg.FetchResponse).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == kerr.NotLeaderForPartition.Code || p.ErrorCode == kerr.UnknownTopicOrPartition.Code {
				continue // Kafka names a leader before that has opened the log
			}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return total, fmt.Errorf("fetch partition %d at offset %d: %w", p.Partition, r.next[p.Partition], err)
			}
			next, n, err := r.walk(p.RecordBatches, r.next[p.Partition])
			if err != nil {
				return total, fmt.Errorf("partition %d: %w", p.Partition, err)
			}
			r.next[p.Partition] = next
			total += n
		}
		// The first partitions fill the answer first; turn about, as clients do.
		parts = append(parts[1:], parts[0])
		r.req.Topics[0].Partitions = parts
	}
	return total, nil
}

// walk returns the offset after the last whole batch, and the bytes of the
// whole ones.
func walk(b []byte, next int64) (int64, int64, error) {
	const header = 61
	var n int64
	for len(b) >= header {
		size := 12 + int64(int32(binary.BigEndian.Uint32(b[8:])))
		if size < header {
			return next, n, fmt.Errorf("batch of %d bytes at offset %d", size, next)
		}
		if size > int64(len(b)) {
			break
		}
		last := int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[23:]))
		if last < next {
			return next, n, fmt.Errorf("batch ends at offset %d, %d was due", last, next)
		}
		next = last + 1
		n += size
		b = b[size:]
	}
	return next, n, nil
}

// walkSet is walk for a set of messages. A compressed one has the offset of the
// last message in it.
func walkSet(b []byte, next int64) (int64, int64, error) {
	const header = 12
	var n int64
	for len(b) >= header {
		size := header + int64(int32(binary.BigEndian.Uint32(b[8:])))
		if size < header {
			return next, n, fmt.Errorf("message of %d bytes at offset %d", size, next)
		}
		if size > int64(len(b)) {
			break
		}
		offset := int64(binary.BigEndian.Uint64(b))
		if offset < next {
			return next, n, fmt.Errorf("message at offset %d, %d was due", offset, next)
		}
		next = offset + 1
		n += size
		b = b[size:]
	}
	return next, n, nil
}

// readTo fetches until every partition is at its end and returns the bytes.
func (r *reader) readTo(ctx context.Context, ends map[int32]int64) (int64, error) {
	const stallTimeout = 30 * time.Second
	var total int64
	progress := time.Now()
	for {
		done := true
		for p, end := range ends {
			done = done && r.next[p] >= end
		}
		if done {
			return total, nil
		}
		fetchCtx, cancel := context.WithTimeout(ctx, stallTimeout)
		n, err := r.fetch(fetchCtx)
		cancel()
		if err != nil {
			return total, err
		}
		total += n
		if n > 0 {
			progress = time.Now()
		} else if time.Since(progress) > stallTimeout {
			return total, fmt.Errorf("nothing came for %s after %d bytes: read to %v, ends are %v", stallTimeout, total, r.next, ends)
		}
	}
}

// follow fetches until ctx ends and returns the bytes.
func (r *reader) follow(ctx context.Context) (int64, error) {
	stop := context.AfterFunc(ctx, func() { r.conn.Close() })
	defer stop()
	var total int64
	for {
		n, err := r.fetch(context.WithoutCancel(ctx))
		total += n
		if ctx.Err() != nil {
			return total, nil
		}
		if err != nil {
			return total, errors.Join(fmt.Errorf("after %d bytes", total), err)
		}
	}
}
