package main

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

const producerPerformance = "org.apache.kafka.tools.ProducerPerformance"

// perfRun is one run of kafka-producer-perf-test.
type perfRun struct {
	Topic       string
	Records     int
	RecordBytes int
	PerSecond   int // 0 is as fast as it goes
	Warmup      int // records left out of the result
	Properties  []string
}

// perfResult is what the tool says, without the warm-up.
type perfResult struct {
	RecordsPerSecond     float64
	P50, P95, P99, P99_9 float64       // ms
	ClientCPU            time.Duration // of the whole run
}

// perfLine is the tool's summary; with a warm-up the one of the steady state
// is the last. The rate is printed as a double and may have an exponent.
var perfLine = regexp.MustCompile(`(?m)^(\d+) (?:steady state )?records sent, ([0-9.E]+) records/sec \([^)]*\), .* ms max latency, (\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th, (\d+) ms 99\.9th`)

func (r perfRun) run(ctx context.Context, bootstrap string) (perfResult, error) {
	throughput := -1
	if r.PerSecond > 0 {
		throughput = r.PerSecond
	}
	args := []string{
		"--bootstrap-server", bootstrap, "--topic", r.Topic, "--num-records", strconv.Itoa(r.Records),
		"--record-size", strconv.Itoa(r.RecordBytes), "--throughput", strconv.Itoa(throughput),
	}
	if r.Warmup > 0 {
		args = append(args, "--warmup-records", strconv.Itoa(r.Warmup))
	}
	args = append(args, "--command-property", "acks=all")
	args = append(args, r.Properties...)
	cmd, err := peer.ToolCommand(ctx, peer.Tools4, peer.ScriptJVM, producerPerformance, args...)
	if err != nil {
		return perfResult{}, err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return perfResult{}, fmt.Errorf("kafka-producer-perf-test: %w\n%s", err, out)
	}
	res, err := parsePerf(string(out), r.Records-r.Warmup)
	if err != nil {
		return perfResult{}, err
	}
	res.ClientCPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return res, nil
}

func parsePerf(out string, records int) (perfResult, error) {
	lines := perfLine.FindAllStringSubmatch(out, -1)
	if len(lines) == 0 {
		return perfResult{}, fmt.Errorf("kafka-producer-perf-test printed no summary:\n%s", out)
	}
	f := lines[len(lines)-1][1:]
	// The tool counts the record that ends the warm-up on either side.
	if sent, err := strconv.Atoi(f[0]); err != nil || sent < records-1 || sent > records+1 {
		return perfResult{}, fmt.Errorf("kafka-producer-perf-test speaks of %s records, want %d:\n%s", f[0], records, out)
	}
	var v [5]float64
	for i := range v {
		var err error
		if v[i], err = strconv.ParseFloat(f[i+1], 64); err != nil || math.IsInf(v[i], 0) {
			return perfResult{}, fmt.Errorf("kafka-producer-perf-test: number %q in\n%s", f[i+1], strings.Join(lines[len(lines)-1], "\n"))
		}
	}
	return perfResult{RecordsPerSecond: v[0], P50: v[1], P95: v[2], P99: v[3], P99_9: v[4]}, nil
}
