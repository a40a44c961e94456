package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

const consumerPerformance = "org.apache.kafka.tools.ConsumerPerformance"

// consumed is where the records of a consuming cell lie on Quire.
type consumed struct {
	key, title string
	megabytes  int // written before
	rounds     int // that count, each by a new group; one more goes before them
}

// The first does not fit into the tail cache with its default budget, the second
// does; it comes later, when both servers' code is warm.
var consumedFrom = []consumed{
	{"ledgers", "from the first offset, more than the tail cache holds", 1500, 2},
	{"tail", "all of it in the tail cache", 100, 4},
}

func consumeCell(sh shape, from consumed) string { return "consume/" + sh.key() + "/" + from.key }

// consume runs kafka-consumer-perf-test, which subscribes with a group, over
// what was just written.
func (b *bench) consume(ctx context.Context, pair int, sh shape, server string) error {
	wanted := slices.DeleteFunc(slices.Clone(consumedFrom), func(from consumed) bool { return !b.wants(consumeCell(sh, from)) })
	if len(wanted) == 0 {
		return nil
	}
	// What a group waits for its first members is not what is measured.
	return b.inSession(ctx, server, []string{"group.initial.rebalance.delay.ms=0"}, func(s *session) error {
		for _, from := range wanted {
			if err := b.consumeRounds(ctx, s, pair, sh, from, b.of(server)[0]); err != nil {
				return fmt.Errorf("%s on %s: %w", consumeCell(sh, from), server, err)
			}
		}
		return nil
	})
}

func (b *bench) consumeRounds(ctx context.Context, s *session, pair int, sh shape, from consumed, c contender) error {
	records := from.megabytes * megabyte / sh.RecordBytes
	topic, _, _, err := s.produce(ctx, "fill", sh, c, perfRun{Records: records})
	if err != nil {
		return err
	}
	var cpu time.Duration
	var fetching float64 // seconds
	for round := range from.rounds + 1 {
		var took float64
		used, err := s.cpu(func() error {
			took, err = consumePerf(ctx, s.server.Addr(), topic, fmt.Sprintf("bench-%s-%d", from.key, round), records)
			return err
		})
		if err != nil {
			return err
		}
		if round > 0 {
			cpu += used
			fetching += took
		}
	}
	bytes := float64(from.rounds * records * sh.RecordBytes)
	b.add(pair, consumeCell(sh, from), c.Key, map[string]float64{
		megabytesPerSec: bytes / megabyte / fetching,
		serverCPUPerGB:  cpu.Seconds() / (bytes / gigabyte),
	})
	return nil
}

// consumePerf runs the tool and returns for how many seconds it fetched, the
// joining of the group left out.
func consumePerf(ctx context.Context, addr, topic, group string, records int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd, err := peer.ToolCommand(ctx, peer.Tools4, peer.ScriptJVM, consumerPerformance,
		"--bootstrap-server", addr, "--topic", topic, "--group", group, "--num-records", strconv.Itoa(records), "--timeout", "30000")
	if err != nil {
		return 0, err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("kafka-consumer-perf-test: %w\n%s", err, out)
	}
	seconds, got, err := parseConsumerPerf(string(out))
	if err == nil && got < records {
		err = fmt.Errorf("kafka-consumer-perf-test saw %d of %d records\n%s", got, records, out)
	}
	return seconds, err
}

// parseConsumerPerf reads the tool's last line: start, end, MB, MB/s, records,
// records/s, ms of rebalance, ms of fetching, MB/s and records/s of that.
func parseConsumerPerf(out string) (fetching float64, records int, err error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	fields := strings.Split(lines[len(lines)-1], ",")
	if len(fields) == 10 {
		millis, errTime := strconv.ParseFloat(strings.TrimSpace(fields[7]), 64)
		n, errRecords := strconv.Atoi(strings.TrimSpace(fields[4]))
		if errTime == nil && errRecords == nil && millis > 0 {
			return millis / 1000, n, nil
		}
	}
	return 0, 0, fmt.Errorf("kafka-consumer-perf-test printed no result:\n%s", out)
}
