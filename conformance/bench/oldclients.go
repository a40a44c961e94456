package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/quirelog/quire/conformance/peer"
	"golang.org/x/sys/unix"
)

// oldKafka is the last Apache Kafka that takes what producers before 2.1 send.
// It runs the cells of old clients only, and no other contender but Quire does.
const oldKafka = "kafka-3.9.1"

// An oldTool is the producer performance tool of a generation whose message
// format the server has to convert.
type oldTool struct {
	key, title string
	set        peer.JarSet
	class      string
	args       func(bootstrap string, r perfRun) []string
}

var oldTools = []oldTool{
	{
		key: "0.8.2.2", title: "0.8.2.2, message format 0", class: "org.apache.kafka.clients.tools.ProducerPerformance",
		set: peer.JarSet{Name: "perf-0.8.2.2", Artifacts: []string{"org.slf4j:slf4j-simple:1.7.36", "org.apache.kafka:kafka-clients:0.8.2.2"}},
		args: func(bootstrap string, r perfRun) []string {
			return []string{r.Topic, strconv.Itoa(r.Records), strconv.Itoa(r.RecordBytes), "-1", "bootstrap.servers=" + bootstrap}
		},
	},
	{
		key: "0.10.2.2", title: "0.10.2.2, message format 1", class: "org.apache.kafka.tools.ProducerPerformance",
		set: peer.JarSet{
			Name:      "perf-0.10.2.2",
			Artifacts: []string{"org.slf4j:slf4j-simple:1.7.36", "org.apache.kafka:kafka-tools:0.10.2.2"},
			Excluded:  []string{"org.slf4j:slf4j-log4j12"},
		},
		args: func(bootstrap string, r perfRun) []string {
			return []string{"--topic", r.Topic, "--num-records", strconv.Itoa(r.Records), "--record-size", strconv.Itoa(r.RecordBytes),
				"--throughput", "-1", "--producer-props", "bootstrap.servers=" + bootstrap}
		},
	},
}

func (t oldTool) run(ctx context.Context, bootstrap string, r perfRun) (perfResult, error) {
	args := slices.Concat(t.args(bootstrap, r), []string{"acks=all"}, r.Properties)
	cmd, err := peer.ToolCommand(ctx, t.set, peer.ScriptJVM, t.class, args...)
	if err != nil {
		return perfResult{}, err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return perfResult{}, fmt.Errorf("ProducerPerformance %s: %w\n%s", t.key, err, out)
	}
	res, err := parsePerf(string(out), r.Records)
	res.ClientCPU = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return res, err
}

// An oldShape is what the old tools send, to one partition.
type oldShape struct {
	recordBytes int
	compression string
	perSecond   int // about what a server reaches on two cores; sizes the runs
}

var oldShapes = []oldShape{{100, "none", 600_000}, {100, "snappy", 600_000}, {1000, "none", 120_000}}

func (s oldShape) cell(t oldTool) string {
	return fmt.Sprintf("old/%s/%d-%s", t.key, s.recordBytes, s.compression)
}

// oldClients runs the tools on both servers in turn.
func (b *bench) oldClients(ctx context.Context) error {
	for pair := range b.Pairs {
		servers := []string{oldKafka, "quire"}
		if pair%2 == 1 {
			slices.Reverse(servers)
		}
		for _, tool := range oldTools {
			for _, server := range servers {
				if err := b.oldClient(ctx, pair, server, tool); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *bench) oldClient(ctx context.Context, pair int, server string, tool oldTool) error {
	if !slices.ContainsFunc(oldShapes, func(sh oldShape) bool { return b.wants(sh.cell(tool)) }) {
		return nil
	}
	s, err := openOld(ctx, b.DataDir, server, b.Profiles)
	if err != nil {
		return err
	}
	err = b.oldCells(ctx, s, pair, server, tool)
	if err != nil {
		err = fmt.Errorf("%w\nend of its log:\n%s", err, s.server.Process().LogTail(15))
	}
	return errors.Join(err, s.close())
}

// openOld is open for the servers of these cells.
func openOld(ctx context.Context, dataDir, server, profiles string) (*session, error) {
	if server != oldKafka {
		return open(ctx, dataDir, server, profiles)
	}
	unix.Sync()
	dir, err := os.MkdirTemp(dataDir, "bench-"+server+"-")
	if err != nil {
		return nil, err
	}
	s := &session{dir: dir}
	if s.server, err = peer.NewKafka3(ctx, peer.Options{Dir: filepath.Join(dir, "server")}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err = s.server.Start(ctx); err == nil {
		err = s.connect()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (b *bench) oldCells(ctx context.Context, s *session, pair int, server string, tool oldTool) error {
	for i, sh := range oldShapes {
		cell := sh.cell(tool)
		if !b.wants(cell) {
			continue
		}
		run := perfRun{RecordBytes: sh.recordBytes, Properties: []string{"compression.type=" + sh.compression}}
		if i == 0 {
			run.Records = max(1, int(float64(sh.perSecond)*b.Warmup))
			if _, _, err := b.oldRun(ctx, s, "warm-up", tool, run); err != nil {
				return err
			}
		}
		run.Records = max(1, int(float64(sh.perSecond)*b.Seconds))
		res, cpu, err := b.oldRun(ctx, s, cell+" "+server, tool, run)
		if err != nil {
			return err
		}
		gb := float64(run.Records*sh.recordBytes) / gigabyte
		v := map[string]float64{
			recordsPerSecond: res.RecordsPerSecond,
			megabytesPerSec:  res.RecordsPerSecond * float64(sh.recordBytes) / megabyte,
			serverCPUPerGB:   cpu / gb,
			clientCPUPerGB:   res.ClientCPU.Seconds() / gb,
		}
		addPercentiles(v, res)
		b.add(pair, cell, server, v)
	}
	return nil
}

// oldRun runs the tool on a new topic and checks that every record is there. It
// returns the server's CPU seconds.
func (b *bench) oldRun(ctx context.Context, s *session, label string, tool oldTool, run perfRun) (res perfResult, cpuSeconds float64, err error) {
	if run.Topic, err = s.newTopic(ctx, 1, nil); err != nil {
		return res, 0, err
	}
	stopProfile := s.profile(ctx, label)
	cpu, err := s.cpu(func() error {
		res, err = tool.run(ctx, s.server.Addr(), run)
		return err
	})
	if err = errors.Join(err, stopProfile()); err != nil {
		return res, 0, fmt.Errorf("%s on %s: %w", label, s.server.Name(), err)
	}
	ends, err := s.ends(ctx, run.Topic)
	if err == nil && ends[0] != int64(run.Records) {
		err = fmt.Errorf("%s on %s: %d records sent, %d stored", label, s.server.Name(), run.Records, ends[0])
	}
	return res, cpu.Seconds(), err
}

func (w *writer) oldClients() {
	header := false
	for _, tool := range oldTools {
		for _, sh := range oldShapes {
			cell := sh.cell(tool)
			if !w.any(cell) {
				continue
			}
			if !header {
				w.linef("\n| `ProducerPerformance` of old, 1 partition | records/s: Kafka 3.9.1 as shipped | Quire | ÷ | p50 / p99 / p99.9 ms: Kafka | Quire | server CPU s/GB: Kafka | Quire |\n|---|---|---|---|---|---|---|---|")
				header = true
			}
			w.linef("| %s, %d B, %s | %s | %s | %s | %s | %s | %s | %s |", tool.title, sh.recordBytes, sh.compression,
				w.cellText(cell, oldKafka, recordsPerSecond), w.cellText(cell, "quire", recordsPerSecond), w.ratioText(cell, oldKafka, recordsPerSecond),
				w.medians(cell, oldKafka, p50, p99, p99_9), w.medians(cell, "quire", p50, p99, p99_9),
				w.cellText(cell, oldKafka, serverCPUPerGB), w.cellText(cell, "quire", serverCPUPerGB))
		}
	}
}

// oldClientsBar is kept by every cell of them.
func (w *writer) oldClientsBar() bar {
	b := bar{title: "records/s of the 0.8.2.2 and 0.10.2.2 tools ÷ Kafka 3.9.1, each cell", limit: 1}
	for _, tool := range oldTools {
		for _, sh := range oldShapes {
			w.addRatio(&b, sh.cell(tool), oldKafka, recordsPerSecond)
		}
	}
	return b
}
