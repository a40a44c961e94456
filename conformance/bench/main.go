// Command bench runs Apache Kafka and Quire in turn on this machine with
// Kafka's own performance tool and writes one table of what each did.
//
// The two never run at once. Each pair of runs starts both on fresh folders of
// the same disk, warms both with the same load, and changes the order.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := benchCommand(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// results is what is kept of a run, and what a report is made from.
type results struct {
	Machine string
	Cores   int
	Load    string // averages of the last 1, 5 and 15 minutes before the run
	Date    string
	Flags   string
	Samples []sample
}

var allSections = []string{"throughput", "latency", "fetch", "consume", "commits", "groups", "footprint", "topics", "oldclients", "bookkeeper", "hop"}

func benchCommand(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	var keys []string
	for _, c := range everybody() {
		keys = append(keys, c.Key)
	}
	var (
		quick       = flags.Bool("quick", false, "about two minutes: one pair, 1 KB cells, short runs, no footprint; other flags still count")
		pairs       = flags.Int("pairs", 3, "how often each contender runs")
		secs        = flags.Float64("seconds", 8, "length of a throughput or paced cell on a machine like the one the rates were taken from")
		warmup      = flags.Float64("warmup", 8, "seconds of such load on a fresh server before its cells")
		cells       = flags.String("cells", "", "regular expression of cells, for example produce/100-8 or /1000-1")
		which       = flags.String("contenders", strings.Join(keys, ","), "who runs")
		sections    = flags.String("sections", strings.Join(allSections, ","), "what is measured")
		rate        = flags.Int("rate", 0, "records per second of the paced cells; 0 takes 45 % of Kafka's own maximum")
		gb          = flags.Float64("gb", 10, "GB written before memory and restart are measured; 0 leaves those out")
		connections = flags.Int("connections", 10_000, "idle connections")
		topics      = flags.Int("topics", 100_000, "topics of one partition on Quire")
		groups      = flags.Int("groups", 10_000, "groups of three members that only heartbeat")
		kafkaTopics = flags.Int("kafka-topics", 5_000, "the same on Kafka, which makes a folder for each")
		dir         = flags.String("dir", "", "folder for the servers' data (default: .work of this module)")
		profiles    = flags.String("pprof", "", "folder for CPU profiles of Quire, one for each cell")
		jsonFile    = flags.String("json", "", "write all samples to this file")
		render      = flags.String("render", "", "make the report from this file of samples instead of running anything")
		markdown    = flags.String("markdown", "", "write the table to this file (default: standard output)")
		svg         = flags.String("svg", "", "write the chart to this file")
		readme      = flags.String("readme", "", "put the table between the bench marks of this file")
	)
	flags.Parse(args)
	if *quick {
		set := map[string]bool{}
		flags.Visit(func(f *flag.Flag) { set[f.Name] = true })
		for name, value := range map[string]string{"pairs": "1", "seconds": "3", "warmup": "3", "sections": "throughput,latency", "cells": "produce/1000|latency/1000"} {
			if !set[name] {
				flags.Set(name, value)
			}
		}
	}

	res, runErr := &results{}, error(nil)
	if *render != "" {
		b, err := os.ReadFile(*render)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, res); err != nil {
			return fmt.Errorf("%s: %w", *render, err)
		}
	} else {
		pattern, err := regexp.Compile(*cells)
		if err != nil {
			return err
		}
		b := &bench{
			settings: settings{
				Pairs: *pairs, Seconds: *secs, Warmup: *warmup, Cells: pattern, Rate: *rate, GB: *gb,
				Connections: *connections, Topics: *topics, KafkaTopics: *kafkaTopics, Groups: *groups, Profiles: *profiles,
				Contenders: strings.Split(*which, ","), Sections: strings.Split(*sections, ","),
			},
			maximum: map[string]float64{},
			logf:    func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
		}
		if b.DataDir, err = dataDir(*dir); err != nil {
			return err
		}
		if err := b.validate(keys); err != nil {
			return err
		}
		res.Load = peer.LoadAverages()
		began := time.Now()
		runErr = b.run(ctx)
		res.Machine, res.Date = peer.MachineFacts(b.DataDir), began.UTC().Format(time.DateOnly)
		res.Cores = runtime.NumCPU()
		res.Flags, res.Samples = strings.Join(args, " "), b.samples
		b.logf("took %s", time.Since(began).Round(time.Second))
	}
	// What was measured before a failure is still worth its while.
	if *jsonFile != "" {
		b, err := json.MarshalIndent(res, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(*jsonFile, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if runErr != nil {
		return runErr
	}
	table := report(res)
	if *markdown != "" {
		if err := os.WriteFile(*markdown, []byte(table), 0o644); err != nil {
			return err
		}
	} else {
		fmt.Print(table)
	}
	if *svg != "" {
		if err := os.WriteFile(*svg, []byte(chart(res)), 0o644); err != nil {
			return err
		}
	}
	if *readme != "" {
		return insert(*readme, table)
	}
	return nil
}

func dataDir(dir string) (string, error) {
	if dir == "" {
		return peer.WorkDir()
	}
	return dir, os.MkdirAll(dir, 0o755)
}

func (b *bench) validate(keys []string) error {
	for _, c := range b.Contenders {
		if !slices.Contains(keys, c) {
			return fmt.Errorf("unknown contender %q: want %s", c, strings.Join(keys, ", "))
		}
	}
	for _, s := range b.Sections {
		if !slices.Contains(allSections, s) {
			return fmt.Errorf("unknown section %q: want %s", s, strings.Join(allSections, ", "))
		}
	}
	if b.Pairs < 1 || b.Seconds <= 0 || b.Warmup <= 0 {
		return errors.New("pairs, seconds and warmup must be positive")
	}
	if b.Profiles != "" {
		return os.MkdirAll(b.Profiles, 0o755)
	}
	return nil
}

const (
	markBegin = "<!-- bench:begin -->"
	markEnd   = "<!-- bench:end -->"
)

// insert replaces what stands between the marks of a file.
func insert(path, table string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), markBegin)
	_, after, ok2 := strings.Cut(rest, markEnd)
	if !ok || !ok2 {
		return fmt.Errorf("%s: no %s … %s in it", path, markBegin, markEnd)
	}
	return os.WriteFile(path, []byte(before+markBegin+"\n"+table+markEnd+after), 0o644)
}

// stats are the median and the extremes of some values.
type stats struct{ median, min, max float64 }

func summarize(values []float64) (stats, bool) {
	if len(values) == 0 {
		return stats{}, false
	}
	sorted := slices.Clone(values)
	slices.SortFunc(sorted, cmp.Compare[float64])
	n := len(sorted)
	median := sorted[n/2]
	if n%2 == 0 {
		median = (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return stats{median, sorted[0], sorted[n-1]}, true
}
