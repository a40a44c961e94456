package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quirelog/quire/conformance/check"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// NewReader consumes the partitions from offset 0 by assignment. It never
// resets an offset by itself: a log that no longer has what it served must
// show as an error.
func NewReader(bootstrap string, partitions []check.Partition) (*kgo.Client, error) {
	from := map[string]map[int32]kgo.Offset{}
	for _, p := range partitions {
		if from[p.Topic] == nil {
			from[p.Topic] = map[int32]kgo.Offset{}
		}
		from[p.Topic][p.Number] = kgo.NewOffset().At(0)
	}
	return kgo.NewClient(
		kgo.SeedBrokers(bootstrap),
		kgo.ConsumePartitions(from),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.MetadataMinAge(RedialMillisMax*time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return RedialMillisMax / 2 * time.Millisecond }),
		kgo.AlwaysRetryEOF(),
	)
}

// collect adds fetched records to read and returns the first thing wrong with
// them, a damaged value included.
func collect(read *check.Read, fetches kgo.Fetches) (count int, err error) {
	var failed []error
	fetches.EachError(func(topic string, partition int32, err error) {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return
		}
		failed = append(failed, fmt.Errorf("%s: fetch %s-%d: %w", read.Name, topic, partition, err))
	})
	fetches.EachRecord(func(r *kgo.Record) {
		count++
		p := check.Partition{Topic: r.Topic, Number: r.Partition}
		id, err := DecodeValue(r.Value)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %s offset %d: %w", read.Name, p, r.Offset, err))
			return
		}
		read.Records[p] = append(read.Records[p], check.Record{Offset: r.Offset, ID: id, Epoch: r.LeaderEpoch})
	})
	return count, errors.Join(failed...)
}

// ReadTail reads until ctx ends, across all the server's deaths.
func ReadTail(ctx context.Context, bootstrap string, partitions []check.Partition) (check.Read, error) {
	read := check.Read{Name: "tail reader", Records: map[check.Partition][]check.Record{}}
	client, err := NewReader(bootstrap, partitions)
	if err != nil {
		return read, err
	}
	defer client.Close()
	for ctx.Err() == nil {
		if _, err := collect(&read, client.PollFetches(ctx)); err != nil {
			return read, err
		}
	}
	return read, nil
}

// ReadAll reads every partition from offset 0 to its end as of now.
func ReadAll(ctx context.Context, name, bootstrap string, partitions []check.Partition, stallTimeout time.Duration) (check.Read, error) {
	read := check.Read{Name: name, Complete: true, Records: map[check.Partition][]check.Record{}}
	client, err := NewReader(bootstrap, partitions)
	if err != nil {
		return read, err
	}
	defer client.Close()
	var topics []string
	for _, p := range partitions {
		topics = append(topics, p.Topic)
	}
	listCtx, cancel := context.WithTimeout(ctx, stallTimeout)
	defer cancel()
	ends, err := kadm.NewClient(client).ListEndOffsets(listCtx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return read, fmt.Errorf("%s: end offsets: %w", name, err)
	}
	missing := func() (at check.Partition, have, want int64) {
		for _, p := range partitions {
			end, _ := ends.Lookup(p.Topic, p.Number)
			have = 0
			if records := read.Records[p]; len(records) > 0 {
				have = records[len(records)-1].Offset + 1
			}
			if have < end.Offset {
				return p, have, end.Offset
			}
		}
		return check.Partition{}, 0, 0
	}
	for {
		p, have, want := missing()
		if want == 0 {
			return read, nil
		}
		pollCtx, cancel := context.WithTimeout(ctx, stallTimeout)
		n, err := collect(&read, client.PollFetches(pollCtx))
		cancel()
		if err != nil {
			return read, err
		}
		if n == 0 {
			return read, fmt.Errorf("%s: nothing came for %s: %s is read to offset %d, its end is %d", name, stallTimeout, p, have, want)
		}
	}
}
