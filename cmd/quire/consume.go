package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type consumeVerb struct {
	clientFlags
	Topic     string  `arg:"" help:"Topic to read."`
	Partition []int32 `short:"p" help:"Partitions; all if none is named."`
	Offset    string  `short:"o" default:"earliest" help:"Where to begin: earliest, latest, an offset, -N for the last N of each partition, or a time (2026-01-31T12:00:00Z, or @ and milliseconds since 1970)."`
	Count     int     `short:"n" help:"Stop after so many records; 0 goes on."`
	End       bool    `short:"e" help:"Stop at what is the end of the topic when it starts."`
	Format    string  `short:"f" default:"%v\\n" help:"What to print of a record: %%t topic, %%p partition, %%o offset, %%k key, %%v value, %%d timestamp, %%h{%%k=%%v } headers; \\n and \\t as usual."`
}

// position is where reading begins: one of the special timestamps of
// ListOffsets, an offset, some records before the end, or a time.
type position struct {
	special int64 // 0: none
	offset  int64 // < 0: so many before the end
	time    int64 // ms; -1: none
}

const (
	latest   = -1 // of ListOffsets
	earliest = -2
)

// parsePosition reads the --offset flag.
func parsePosition(s string) (position, error) {
	switch s {
	case "earliest":
		return position{special: earliest, time: -1}, nil
	case "latest":
		return position{special: latest, time: -1}, nil
	}
	if ms, ok := strings.CutPrefix(s, "@"); ok {
		if n, err := strconv.ParseInt(ms, 10, 64); err == nil && n >= 0 {
			return position{time: n}, nil
		}
	} else if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return position{offset: n, time: -1}, nil
	} else if t, err := time.Parse(time.RFC3339, s); err == nil && t.UnixMilli() >= 0 {
		return position{time: t.UnixMilli()}, nil
	}
	return position{}, fmt.Errorf("--offset %s: expected earliest, latest, a number, a time as 2026-01-31T12:00:00Z or @milliseconds", s)
}

// span is what there is to read of a partition: offsets from, up to but not end.
type span struct{ from, end int64 }

func (v *consumeVerb) Run(p *process) error {
	from, err := parsePosition(v.Offset)
	if err != nil {
		return err
	}
	format, err := kgo.NewRecordFormatter(v.Format)
	if err != nil {
		return fmt.Errorf("--format: %w", err)
	}
	spans := map[int32]span{}
	err = v.admin(p, func(ctx context.Context, a *kadm.Client) error {
		return v.resolve(ctx, a, from, spans)
	})
	if err != nil {
		return err
	}
	offsets := map[int32]kgo.Offset{}
	for n, s := range spans {
		if v.End && s.from >= s.end {
			delete(spans, n)
			continue
		}
		offsets[n] = kgo.NewOffset().At(s.from)
	}
	if len(spans) == 0 {
		return nil
	}
	client, err := v.open(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{v.Topic: offsets}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		// Control records are not for people, but the last of a partition may be one.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	return v.read(p, client, format, spans)
}

// resolve finds the offsets that reading begins and ends at.
func (v *consumeVerb) resolve(ctx context.Context, a *kadm.Client, from position, spans map[int32]span) error {
	topics, err := a.ListTopicsWithInternal(ctx, v.Topic)
	if err != nil {
		return err
	}
	t := topics[v.Topic]
	if t.Err != nil {
		return explain(v.Topic, t.Err, "")
	}
	wanted := v.Partition
	if len(wanted) == 0 {
		wanted = t.Partitions.Numbers()
	}
	starts, err := v.list(ctx, a.ListStartOffsets)
	if err != nil {
		return explain(v.Topic, err, "")
	}
	ends, err := v.list(ctx, a.ListEndOffsets)
	if err != nil {
		return explain(v.Topic, err, "")
	}
	var byTime kadm.ListedOffsets
	if from.time >= 0 {
		after := func(ctx context.Context, topics ...string) (kadm.ListedOffsets, error) {
			return a.ListOffsetsAfterMilli(ctx, from.time, topics...)
		}
		if byTime, err = v.list(ctx, after); err != nil {
			return explain(v.Topic, err, "")
		}
	}
	for _, n := range wanted {
		if !slices.Contains(t.Partitions.Numbers(), n) {
			return fmt.Errorf("topic %s has no partition %d", v.Topic, n)
		}
		start, _ := starts.Lookup(v.Topic, n)
		end, _ := ends.Lookup(v.Topic, n)
		at, _ := byTime.Lookup(v.Topic, n)
		if err := errors.Join(start.Err, end.Err, at.Err); err != nil {
			return explain(fmt.Sprintf("%s partition %d", v.Topic, n), err, "")
		}
		s := span{from: from.offset, end: end.Offset}
		switch {
		case from.special == earliest:
			s.from = start.Offset
		case from.special == latest:
			s.from = end.Offset
		case from.time >= 0:
			s.from = at.Offset
		case from.offset < 0:
			s.from = max(start.Offset, end.Offset+from.offset)
		case from.offset < start.Offset || from.offset > end.Offset:
			return fmt.Errorf("topic %s partition %d: offset %d is outside what it holds, %d to %d", v.Topic, n, from.offset, start.Offset, end.Offset)
		}
		spans[n] = s
	}
	return nil
}

// listPause is between two questions for offsets that had to be asked again.
const listPause = 250 * time.Millisecond

// list asks for the offsets of all partitions, and again while one of them has no
// leader that can tell: another node is taking it over.
func (v *consumeVerb) list(ctx context.Context, ask func(context.Context, ...string) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	for {
		listed, err := ask(ctx, v.Topic)
		passes := false
		listed.Each(func(o kadm.ListedOffset) {
			passes = passes || kerr.IsRetriable(o.Err) && !errors.Is(o.Err, kerr.CorruptMessage)
		})
		if err != nil || !passes {
			return listed, err
		}
		pause := time.NewTimer(listPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return listed, nil
		}
	}
}

// poll waits for records. What is there to the --end comes within the time of a request,
// or silent is true.
func (v *consumeVerb) poll(ctx context.Context, client *kgo.Client) (fetches kgo.Fetches, silent bool) {
	if !v.End {
		return client.PollFetches(ctx), false
	}
	ctx, cancel := context.WithTimeout(ctx, v.Timeout)
	defer cancel()
	fetches = client.PollFetches(ctx)
	return fetches, fetches.Empty() && errors.Is(ctx.Err(), context.DeadlineExceeded)
}

// read prints records until a signal, the count, or with --end all spans are read.
func (v *consumeVerb) read(p *process, client *kgo.Client, format *kgo.RecordFormatter, spans map[int32]span) error {
	out := bufio.NewWriter(p.stdout)
	var line []byte
	printed := 0
	for {
		fetches, silent := v.poll(p.ctx, client)
		if p.ctx.Err() != nil {
			return nil // a signal is how an endless consume ends
		}
		if silent {
			return fmt.Errorf("topic %s: nothing comes for %s (--timeout), and there is more", v.Topic, v.Timeout)
		}
		for _, e := range fetches.Errors() {
			if !kerr.IsRetriable(e.Err) {
				return explain(fmt.Sprintf("%s partition %d", v.Topic, e.Partition), e.Err, "")
			}
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			s, unread := spans[r.Partition]
			if v.End {
				if r.Offset+1 >= s.end {
					delete(spans, r.Partition)
				}
				if !unread || r.Offset >= s.end {
					continue
				}
			}
			if r.Attrs.IsControl() {
				continue
			}
			line = format.AppendRecord(line[:0], r)
			if _, err := out.Write(line); err != nil {
				return err
			}
			if printed++; printed == v.Count {
				return out.Flush()
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if v.End && len(spans) == 0 {
			return nil
		}
	}
}
