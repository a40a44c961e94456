package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// ReadAll reads every partition from offset 0 to its end as of now. A partition of
// which nothing comes for stallTimeout is told in Stuck. With an error the read is not
// complete, and holds what came before.
func ReadAll(ctx context.Context, name, bootstrap string, partitions []check.Partition, stallTimeout time.Duration) (check.Read, error) {
	read := check.Read{Name: name, Records: map[check.Partition][]check.Record{}, Stuck: map[check.Partition]string{}}
	client, err := NewReader(bootstrap, partitions)
	if err != nil {
		return read, err
	}
	defer client.Close()
	ends, err := endsOf(ctx, client, partitions, stallTimeout)
	if err != nil {
		return read, fmt.Errorf("%s: end offsets: %w", name, err)
	}
	for _, p := range partitions {
		if end, ok := ends.Lookup(p.Topic, p.Number); !ok || end.Err != nil {
			read.Stuck[p] = fmt.Sprintf("its end is not told for %s: %v", stallTimeout, end.Err)
		}
	}
	// short are the partitions that are not read to their end, and how far they are.
	short := func() map[check.Partition]string {
		short := map[check.Partition]string{}
		for _, p := range partitions {
			end, ok := ends.Lookup(p.Topic, p.Number)
			have := int64(0)
			if records := read.Records[p]; len(records) > 0 {
				have = records[len(records)-1].Offset + 1
			}
			if ok && end.Err == nil && have < end.Offset {
				short[p] = fmt.Sprintf("nothing came for %s from offset %d on, its end is %d", stallTimeout, have, end.Offset)
			}
		}
		return short
	}
	for {
		left := short()
		if len(left) == 0 {
			read.Complete = true
			return read, nil
		}
		pollCtx, cancel := context.WithTimeout(ctx, stallTimeout)
		n, err := collect(&read, client.PollFetches(pollCtx))
		cancel()
		if err != nil {
			return read, err
		}
		if err := context.Cause(ctx); err != nil {
			return read, fmt.Errorf("%s: %w", name, err)
		}
		if n == 0 {
			maps.Copy(read.Stuck, left)
			read.Complete = true
			return read, nil
		}
	}
}

// endsOf asks for the ends of logs until all are told, for the given time at most.
func endsOf(ctx context.Context, client *kgo.Client, partitions []check.Partition, limit time.Duration) (kadm.ListedOffsets, error) {
	var topics []string
	for _, p := range partitions {
		if !slices.Contains(topics, p.Topic) {
			topics = append(topics, p.Topic)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(RedialMillisMax * time.Millisecond)
	defer tick.Stop()
	admin := kadm.NewClient(client)
	var last kadm.ListedOffsets
	for {
		ends, err := admin.ListEndOffsets(ctx, topics...)
		if err == nil {
			last = ends
			if ends.Error() == nil {
				return ends, nil
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if last != nil {
				return last, nil
			}
			return nil, err
		}
	}
}
