package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
	"golang.org/x/sync/errgroup"
)

const (
	oneOldConsumer  = "old/consumers/1"
	manyOldConsumer = "old/consumers/100"

	conversionCPU = "conversion CPU s"
	convertedCPU  = "server CPU s/GB read"
	conversions   = "batches converted"

	// downConversion is on the stack of whatever turns a stored batch into a
	// message set, compression included.
	downConversion = "proxy/api.convertDown"

	// oldFetchVersion is what a consumer of 0.10 asks with: message format 1.
	oldFetchVersion = 2
)

// oldConsumers compares the CPU that conversion takes with one old consumer and
// with a hundred of the same data, which is more than the cache of converted
// batches holds. Each number has a server of its own: its cache is empty.
func (b *bench) oldConsumers(ctx context.Context) error {
	if !b.wants(oneOldConsumer) && !b.wants(manyOldConsumer) {
		return nil
	}
	for pair := range b.Pairs {
		for _, consumers := range []int{1, 100} {
			cell := fmt.Sprintf("old/consumers/%d", consumers)
			s, err := open(ctx, b.DataDir, "quire", b.Profiles)
			if err != nil {
				return err
			}
			values, err := b.readOld(ctx, s, consumers)
			if err = errors.Join(err, s.close()); err != nil {
				return fmt.Errorf("%s: %w", cell, err)
			}
			b.add(pair, cell, "quire", values)
		}
	}
	return nil
}

func (b *bench) readOld(ctx context.Context, s *session, consumers int) (map[string]float64, error) {
	const records, recordBytes = 3_000_000, 100
	run := perfRun{Records: records, RecordBytes: recordBytes, Properties: []string{"compression.type=snappy"}}
	topic, _, _, err := s.produce(ctx, "old consumers", shape{recordBytes, 1}, contender{}, run)
	if err != nil {
		return nil, err
	}
	ends, err := s.ends(ctx, topic)
	if err != nil {
		return nil, err
	}
	// As long as a hundred readers take on two slow cores; what follows them costs nothing.
	profiled := 10 * time.Second
	if consumers > 1 {
		profiled = 75 * time.Second
	}
	var seconds float64
	var total int64
	cpu, err := s.cpu(func() error {
		profiler, ctx := errgroup.WithContext(ctx)
		profiler.Go(func() (err error) {
			seconds, err = cpuUnder(ctx, s.server.AdminAddr(), profiled, downConversion)
			return err
		})
		profiler.Go(func() error {
			readers, readCtx := errgroup.WithContext(ctx)
			sizes := make([]int64, consumers)
			start := time.Now()
			for i := range consumers {
				readers.Go(func() error {
					r, err := newReader(readCtx, s.server.Addr(), topic, map[int32]int64{0: 0})
					if err != nil {
						return err
					}
					defer r.close()
					r.version, r.walk = oldFetchVersion, walkSet
					sizes[i], err = r.readTo(readCtx, ends)
					return err
				})
			}
			if err := readers.Wait(); err != nil {
				return err
			}
			if took := time.Since(start); took > profiled {
				return fmt.Errorf("%d readers took %s, the profile ended after %s", consumers, took, profiled)
			}
			for _, n := range sizes {
				total += n
			}
			return nil
		})
		return profiler.Wait()
	})
	if err != nil {
		return nil, err
	}
	converted, err := counter(ctx, s.server.AdminAddr(), "quire_conversion_cache_misses_total")
	return map[string]float64{
		conversionCPU: seconds,
		conversions:   converted,
		convertedCPU:  cpu.Seconds() / (float64(total) / gigabyte),
	}, err
}

// counter returns the value of a metric that has no labels.
func counter(ctx context.Context, admin, name string) (float64, error) {
	text, err := get(ctx, fmt.Sprintf("http://%s/metrics", admin))
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("/metrics has no %s", name)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return body, err
}

// cpuUnder returns the CPU seconds that a process spent in a function, and in
// what that called, from now for as long as told.
func cpuUnder(ctx context.Context, admin string, long time.Duration, function string) (float64, error) {
	text, err := get(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, int(long.Seconds())))
	if err != nil {
		return 0, err
	}
	p, err := profile.ParseData(text)
	if err != nil {
		return 0, fmt.Errorf("profile: %w", err)
	}
	var spent int64 // ns
	for _, s := range p.Sample {
		if calls(s, function) {
			spent += s.Value[1]
		}
	}
	if spent == 0 {
		return 0, fmt.Errorf("profile: nothing was spent in %s", function)
	}
	return time.Duration(spent).Seconds(), nil
}

func calls(s *profile.Sample, function string) bool {
	for _, at := range s.Location {
		for _, line := range at.Line {
			if strings.HasSuffix(line.Function.Name, function) {
				return true
			}
		}
	}
	return false
}

func (w *writer) oldConsumers() {
	if !w.any(oneOldConsumer) || !w.any(manyOldConsumer) {
		return
	}
	w.linef("\n| consumers of message format 1, snappy | batches converted | CPU s of that | server CPU s/GB read |\n|---|---|---|---|")
	for _, c := range []struct{ cell, title string }{{oneOldConsumer, "1"}, {manyOldConsumer, "100 of the same data"}} {
		w.linef("| %s | %s | %s | %s |", c.title, w.cellText(c.cell, "quire", conversions), w.cellText(c.cell, "quire", conversionCPU), w.cellText(c.cell, "quire", convertedCPU))
	}
}

// oldConsumersBar compares medians: the numbers of consumers have no pairs.
func (w *writer) oldConsumersBar() bar {
	b := bar{title: "CPU of conversion, 100 old consumers ÷ one", atMost: true, limit: 1.5}
	one, ok := w.stats(oneOldConsumer, "quire", conversionCPU)
	many, ok2 := w.stats(manyOldConsumer, "quire", conversionCPU)
	if ok && ok2 {
		b.figures = append(b.figures, many.median/one.median)
	}
	return b
}
