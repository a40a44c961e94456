package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	commitGroups      = 5000
	commitOutstanding = 512 // over all connections
	commitVersion     = 8
	commitBufferBytes = 64 << 10
)

// commitConnections are over how many connections the outstanding commits are
// spread. Kafka answers one commit of a connection before it looks at the next.
var commitConnections = []int{1, 16}

func commitCell(connections int) string { return fmt.Sprintf("commits/%d", connections) }

// commits measures acknowledged offset commits of many simple groups, as many
// outstanding as commitOutstanding, for b.Seconds after b.Warmup.
func (b *bench) commits(ctx context.Context, pair int, server string) error {
	if !slices.ContainsFunc(commitConnections, func(n int) bool { return b.wants(commitCell(n)) }) {
		return nil
	}
	s, err := open(ctx, b.DataDir, server, b.Profiles)
	if err != nil {
		return err
	}
	err = b.commitCells(ctx, s, pair, b.of(server)[0])
	if err != nil {
		err = fmt.Errorf("%w\nend of its log:\n%s", err, s.server.Process().LogTail(15))
	}
	return errors.Join(err, s.close())
}

func (b *bench) commitCells(ctx context.Context, s *session, pair int, c contender) error {
	topic, err := s.newTopic(ctx, 1, nil)
	if err != nil {
		return err
	}
	if err := s.awaitCommits(ctx, topic); err != nil {
		return err
	}
	for _, n := range commitConnections {
		if !b.wants(commitCell(n)) {
			continue
		}
		if _, err := runCommits(ctx, s.server.Addr(), topic, n, b.Warmup); err != nil {
			return fmt.Errorf("%s warm-up on %s: %w", commitCell(n), s.server.Name(), err)
		}
		var took []time.Duration
		stopProfile := s.profile(ctx, commitCell(n)+" "+c.Key)
		began := time.Now()
		cpu, err := s.cpu(func() error {
			took, err = runCommits(ctx, s.server.Addr(), topic, n, b.Seconds)
			return err
		})
		elapsed := time.Since(began).Seconds()
		if err = errors.Join(err, stopProfile()); err != nil {
			return fmt.Errorf("%s on %s: %w", commitCell(n), s.server.Name(), err)
		}
		slices.Sort(took)
		at := func(share float64) float64 {
			return took[min(len(took)-1, int(share*float64(len(took))))].Seconds() * 1000
		}
		b.add(pair, commitCell(n), c.Key, map[string]float64{
			perSecond: float64(len(took)) / elapsed, p50: at(0.50), p99: at(0.99), p99_9: at(0.999),
			cores: cpu.Seconds() / elapsed,
		})
	}
	return nil
}

// awaitCoordinator waits until a group can be committed to: Kafka makes its
// offsets topic when it is first asked for a coordinator.
func (s *session) awaitCoordinator(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for n := 0; ; n++ {
		found := s.admin.FindGroupCoordinators(ctx, "await")
		if err := found.Error(); err == nil {
			return nil
		} else if ctx.Err() != nil {
			return fmt.Errorf("no coordinator: %w", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// awaitCommits waits until commits of all groups are taken: Kafka names a
// coordinator before that has opened its partition.
func (s *session) awaitCommits(ctx context.Context, topic string) error {
	if err := s.awaitCoordinator(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := runCommits(ctx, s.server.Addr(), topic, 1, 1)
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
}

// runCommits keeps commits outstanding on n connections for so many seconds and
// returns how long each took.
func runCommits(ctx context.Context, addr, topic string, n int, seconds float64) ([]time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		all    []time.Duration
		failed error
	)
	for i := range n {
		wg.Go(func() {
			took, err := commitOn(ctx, addr, topic, i, n, end)
			if err != nil {
				cancel()
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			failed = errors.Join(failed, err)
		})
	}
	wg.Wait()
	if failed == nil && len(all) == 0 {
		failed = errors.New("nothing was committed")
	}
	return all, failed
}

// commitOn is one connection's part: the groups i, i+n, i+2n … in turn.
func commitOn(ctx context.Context, addr, topic string, i, n int, end time.Time) ([]time.Duration, error) {
	conn, err := wire.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	window := max(1, commitOutstanding/n)
	sent := make(chan time.Time, window) // of what is outstanding, in order
	failed := make(chan error, 1)
	// What may be sent at a time is written at a time, and read so: the generator has
	// the machine in common with the server.
	in, out := bufio.NewReaderSize(conn, commitBufferBytes), bufio.NewWriterSize(conn, commitBufferBytes)
	go func() {
		defer close(sent)
		format := kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench"))
		req := commitRequest(topic)
		var frame []byte
		for count := int32(0); time.Now().Before(end); count++ {
			req.Group = fmt.Sprintf("bench-%d", (i+int(count)*n)%commitGroups)
			req.Topics[0].Partitions[0].Offset = int64(count)
			frame = format.AppendRequest(frame[:0], req, count)
			select {
			case sent <- time.Now():
			default:
				if err := out.Flush(); err != nil {
					failed <- err
					return
				}
				select {
				case sent <- time.Now():
				case <-ctx.Done():
					return
				}
			}
			if _, err := out.Write(frame); err != nil {
				failed <- err
				return
			}
		}
		if err := out.Flush(); err != nil {
			failed <- err
		}
	}()

	var took []time.Duration
	resp := kmsg.NewPtrOffsetCommitResponse()
	resp.SetVersion(commitVersion)
	var size [4]byte
	var body []byte
	for at := range sent {
		if _, err := io.ReadFull(in, size[:]); err != nil {
			return took, err
		}
		n := binary.BigEndian.Uint32(size[:])
		if n > commitBufferBytes {
			return took, fmt.Errorf("an answer of %d bytes to a commit", n)
		}
		body = slices.Grow(body[:0], int(n))[:n]
		if _, err := io.ReadFull(in, body); err != nil {
			return took, err
		}
		if len(body) < 5 || binary.BigEndian.Uint32(body) != uint32(len(took)) {
			return took, fmt.Errorf("the answer to commit %d is not to it", len(took))
		}
		if err := resp.ReadFrom(body[5:]); err != nil {
			return took, err
		}
		if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
			return took, fmt.Errorf("commit %d: %w", len(took), err)
		}
		took = append(took, time.Since(at))
	}
	select {
	case err = <-failed:
	default:
	}
	return took, err
}

// commitRequest is what a simple consumer of one partition sends.
func commitRequest(topic string) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.SetVersion(commitVersion)
	req.Generation = -1
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.LeaderEpoch = -1
	metadata := ""
	p.Metadata = &metadata
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.OffsetCommitRequestTopicPartition{p}
	req.Topics = []kmsg.OffsetCommitRequestTopic{t}
	return req
}
