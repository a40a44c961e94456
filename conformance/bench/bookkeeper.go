package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"golang.org/x/sys/unix"
)

// javaClient is BookKeeper's own client, beside Quire's on the same bookies.
const javaClient = "java-client"

// quorumSets are ensemble size, write quorum and ack quorum of the cells.
var quorumSets = [][3]int{{3, 3, 2}, {1, 1, 1}}

// addSizes and addWindows are the cells of the loop that adds entries: bytes of an
// entry, and how many are under way.
var (
	addSizes   = []int{1 << 10, 64 << 10}
	addWindows = []int{1, 64, 256}
)

// rawBytes is the entry of the loop that what Quire reaches is held against: the
// producer's batch.
const rawBytes = 16 << 10

// rawWindow is how many such entries the producer has under way: five requests with a
// batch of each partition (max.in.flight.requests.per.connection).
func rawWindow(sh shape) int { return 5 * sh.Partitions }

// addWarmup is left out of a loop: the Java client's JIT. Quire's has its own.
const addWarmup = 5 * time.Second

// bookiesPerSecond sizes the runs through Quire: about what 1 KB records reach.
const bookiesPerSecond = 60_000

func quorumsText(q [3]int) string { return fmt.Sprintf("%d-%d-%d", q[0], q[1], q[2]) }

func addCell(q [3]int, bytes, window int) string {
	return fmt.Sprintf("addloop/%s/%d/%d", quorumsText(q), bytes, window)
}

func onBookiesCell(q [3]int, sh shape) string {
	return fmt.Sprintf("bookies/%s/%s", quorumsText(q), sh.key())
}

// catchUpCell reads records of before from the first on while others are produced at
// half of what the producer reaches alone.
const catchUpCell = "bookies/catch-up"

// catchUpOn is the shape and the quorums of the cell.
var catchUpOn, catchUpQuorums = shape{1000, 1}, quorumSets[0]

// recoveryCell opens a ledger of 100,000 entries whose writer is gone.
const recoveryCell = "recovery/100000"

// bookkeeper measures Quire's client beside the Java client, and Quire beside its
// own client, on as many bookies as an ensemble has.
func (b *bench) bookkeeper(ctx context.Context) error {
	for pair := range b.Pairs {
		for _, q := range quorumSets {
			if err := b.bookkeeperPair(ctx, pair, q); err != nil {
				return err
			}
		}
	}
	return nil
}

// benchBookies are bookies with the settings that all sections use.
func benchBookies(dir string, n int) peer.BookKeeperOptions {
	return peer.BookKeeperOptions{
		Dir: dir, Bookies: n,
		Overrides: []string{"journalFlushWhenQueueEmpty=true", "journalMaxSizeMB=512", "journalMaxBackups=0", "journalPreAllocSizeMB=16", "gcWaitTime=600000"},
		JVM:       []string{"-Xms256m", "-Xmx256m", "-XX:MaxDirectMemorySize=256m", "-XX:+UseSerialGC"},
	}
}

// bookkeeperPair runs the cells of some quorums on bookies of their own, or what all
// of them write would need a large disk.
func (b *bench) bookkeeperPair(ctx context.Context, pair int, q [3]int) error {
	if !slices.ContainsFunc(cellsOn(q), b.wants) {
		return nil
	}
	unix.Sync()
	dir, err := os.MkdirTemp(b.DataDir, "bench-bookies-")
	if err != nil {
		return err
	}
	cluster, err := peer.NewBookKeeper(ctx, benchBookies(dir, q[0]))
	if err == nil {
		if err = cluster.Start(ctx); err == nil {
			err = b.bookkeeperCells(ctx, pair, cluster, q)
		}
		err = errors.Join(err, cluster.Kill())
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// cellsOn are all cells of some quorums.
func cellsOn(q [3]int) (cells []string) {
	if q == quorumSets[0] {
		cells = append(cells, recoveryCell, catchUpCell)
	}
	for _, bytes := range addSizes {
		for _, window := range addWindows {
			cells = append(cells, addCell(q, bytes, window))
		}
	}
	for _, sh := range shapes {
		if sh.paced() {
			cells = append(cells, onBookiesCell(q, sh))
		}
	}
	return cells
}

func (b *bench) bookkeeperCells(ctx context.Context, pair int, cluster *peer.BookKeeper, q [3]int) error {
	loops, err := buildAddLoop(ctx)
	if err != nil {
		return err
	}
	// The bookies' JITs: or whoever comes first meets slower ones.
	if _, err := loops.java(ctx, cluster, q, addSizes[0], addWindows[len(addWindows)-1], 4*b.Warmup); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	if q == quorumSets[0] && b.wants(recoveryCell) {
		secs, err := loops.recovery(ctx, cluster)
		if err != nil {
			return fmt.Errorf("%s: %w", recoveryCell, err)
		}
		b.add(pair, recoveryCell, "quire", map[string]float64{seconds: secs})
	}
	for _, bytes := range addSizes {
		for _, window := range addWindows {
			cell := addCell(q, bytes, window)
			if !b.wants(cell) {
				continue
			}
			both := []string{javaClient, "quire"}
			if pair%2 == 1 {
				slices.Reverse(both)
			}
			for _, contender := range both {
				loop := loops.quire
				if contender == javaClient {
					loop = loops.java
				}
				v, err := loop(ctx, cluster, q, bytes, window, b.Seconds)
				if err != nil {
					return fmt.Errorf("%s %s: %w", cell, contender, err)
				}
				b.add(pair, cell, contender, v)
			}
		}
	}
	return b.throughQuire(ctx, pair, cluster, q, loops)
}

// throughQuire runs the perf tool on a server over the bookies, and the loop of its
// client on the same ones.
func (b *bench) throughQuire(ctx context.Context, pair int, cluster *peer.BookKeeper, q [3]int, loops addLoops) (err error) {
	var wanted []shape
	for _, sh := range shapes {
		if sh.paced() && b.wants(onBookiesCell(q, sh)) {
			wanted = append(wanted, sh)
		}
	}
	catchUp := q == catchUpQuorums && b.wants(catchUpCell)
	if len(wanted) == 0 && !catchUp {
		return nil
	}
	raw := map[shape]map[string]float64{}
	for _, sh := range wanted {
		// What is written back meanwhile holds bookies up for seconds.
		unix.Sync()
		v, err := loops.quire(ctx, cluster, q, rawBytes, rawWindow(sh), b.Seconds)
		if err != nil {
			return err
		}
		b.add(pair, addCell(q, rawBytes, rawWindow(sh)), "quire", v)
		raw[sh] = v
	}
	s := &session{dir: filepath.Join(cluster.Dir(), "quire"), profiles: b.Profiles}
	// The etcd of the cluster knows the folder of the server that came first.
	if s.server, err = peer.NewQuire(ctx, peer.Options{Dir: s.dir, Overrides: peer.OnBookies(cluster, q)}); err != nil {
		return err
	}
	defer func() {
		if s.client != nil {
			s.client.Close()
		}
		err = errors.Join(err, s.server.Kill())
	}()
	if err := s.server.Start(ctx); err != nil {
		return err
	}
	if err := s.connect(); err != nil {
		return err
	}
	ours := contender{Key: "quire", Server: "quire"}
	for _, sh := range wanted {
		unix.Sync()
		warm := perfRun{Records: int(bookiesPerSecond * b.Warmup)}
		_, first, _, err := s.produce(ctx, "warm-up", sh, ours, warm)
		if err != nil {
			return err
		}
		// The client's JVM compiles for seconds, on processors that bookies need.
		n := int(bookiesPerSecond * b.Seconds)
		run := perfRun{Records: 2 * n, Warmup: n}
		_, res, cpu, err := s.produce(ctx, onBookiesCell(q, sh), sh, ours, run)
		if err != nil {
			return err
		}
		usage, err := s.server.Process().Usage()
		if err != nil {
			return err
		}
		gb := float64(run.Records*sh.RecordBytes) / gigabyte
		v := map[string]float64{
			recordsPerSecond: res.RecordsPerSecond,
			megabytesPerSec:  res.RecordsPerSecond * float64(sh.RecordBytes) / megabyte,
			serverCPUPerGB:   cpu.Seconds() / gb,
			clientCPUPerGB:   res.ClientCPU.Seconds() / gb,
			rssMB:            float64(usage.RSSBytes) / megabyte,
			ofRaw:            res.RecordsPerSecond * float64(sh.RecordBytes) / megabyte / raw[sh][megabytesPerSec],
		}
		// What the tool takes to start does not grow with what it sends.
		more := float64((run.Records-warm.Records)*sh.RecordBytes) / gigabyte
		if tool := (res.ClientCPU - first.ClientCPU).Seconds() / more; tool > 0 {
			v[ceilingOfRaw] = ceilingBeside(tool, raw[sh])
		}
		addPercentiles(v, res)
		b.add(pair, onBookiesCell(q, sh), "quire", v)
	}
	if catchUp {
		return b.catchUp(ctx, pair, s, ours)
	}
	return nil
}

// Figures of the catch-up cell.
const (
	p99Alone    = "p99 alone"
	p99Beside   = "p99 beside ÷ alone"
	readAlone   = "MB/s read alone"
	machineBusy = "machine CPU %"
)

// catchUp has a reader of old records beside a paced producer.
func (b *bench) catchUp(ctx context.Context, pair int, s *session, c contender) error {
	fill := perfRun{Records: int(b.GB / 2 * gigabyte / float64(catchUpOn.RecordBytes))}
	old, full, _, err := s.produce(ctx, catchUpCell+" before", catchUpOn, c, fill)
	if err != nil {
		return err
	}
	ends, err := s.ends(ctx, old)
	if err != nil {
		return err
	}
	read := func(ctx context.Context) (int64, error) {
		r, err := newReader(ctx, s.server.Addr(), old, map[int32]int64{0: 0})
		if err != nil {
			return 0, err
		}
		defer r.close()
		return r.readTo(ctx, ends)
	}
	begun := time.Now()
	bytes, err := read(ctx)
	if err != nil {
		return err
	}
	v := map[string]float64{readAlone: float64(bytes) / megabyte / time.Since(begun).Seconds()}

	run := b.paced(int(full.RecordsPerSecond / 2))
	_, alone, _, err := s.produce(ctx, catchUpCell+" alone", catchUpOn, c, run)
	if err != nil {
		return err
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	type outcome struct {
		bytes int64
		took  time.Duration
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		begun := time.Now()
		for o.err == nil && reading.Err() == nil {
			var n int64
			n, o.err = read(reading)
			o.bytes += n
		}
		if reading.Err() != nil {
			o.err = nil
		}
		o.took = time.Since(begun)
		done <- o
	}()
	busy, total, err := machineCPU()
	if err != nil {
		return err
	}
	_, res, _, err := s.produce(ctx, catchUpCell+" beside", catchUpOn, c, run)
	busyAfter, totalAfter, err2 := machineCPU()
	stop()
	o := <-done
	if err := errors.Join(err, err2, o.err); err != nil {
		return err
	}
	v[megabytesPerSec] = float64(o.bytes) / megabyte / o.took.Seconds()
	v[machineBusy] = 100 * (busyAfter - busy) / (totalAfter - total)
	v[recordsPerSecond], v[p99Alone] = res.RecordsPerSecond, alone.P99
	if alone.P99 > 0 { // the tool counts whole milliseconds
		v[p99Beside] = res.P99 / alone.P99
	}
	addPercentiles(v, res)
	b.add(pair, catchUpCell, "quire", v)
	return nil
}

// machineCPU returns the time that all processors have spent so far on anything but
// waiting, and all of their time, in ticks.
func machineCPU() (busy, total float64, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := strings.Cut(string(stat), "\n")
	const idle, wait, steal = 4, 5, 8
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseFloat(f, 64)
		if i == 0 || i > steal {
			continue
		}
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %q: %w", line, err)
		}
		total += n
		if i != idle && i != wait {
			busy += n
		}
	}
	return busy, total, nil
}

const (
	// ofRaw is what part of its own client's loop a server reaches.
	ofRaw = "of raw"
	// ceilingOfRaw is what part of it a server that costs nothing could reach.
	ceilingOfRaw = "of raw, costing nothing"
	// bookiesCPUPerGB is what the bookies of a loop take.
	bookiesCPUPerGB = "bookies' CPU s/GB"
)

// ceilingBeside is what part of a loop a server would reach that takes no processor
// time, on bookies that take as much as in the loop, if nobody ever waited: the tool
// and the bookies share the processors, and tool are its seconds for a GB.
func ceilingBeside(tool float64, loop map[string]float64) float64 {
	return float64(runtime.NumCPU()) / (tool + loop[bookiesCPUPerGB]) * gigabyte / megabyte / loop[megabytesPerSec]
}

// An addLoop keeps a window of adds going to one ledger for some seconds.
type addLoop func(ctx context.Context, cluster *peer.BookKeeper, q [3]int, bytes, window int, secs float64) (map[string]float64, error)

type addLoops struct {
	java, quire addLoop
	recovery    func(context.Context, *peer.BookKeeper) (seconds float64, err error)
}

// buildAddLoop compiles the loop of Quire's client: a benchmark of the module above.
func buildAddLoop(ctx context.Context) (addLoops, error) {
	root, err := peer.ModuleRoot()
	if err != nil {
		return addLoops{}, err
	}
	work, err := peer.WorkDir()
	if err != nil {
		return addLoops{}, err
	}
	binary := filepath.Join(work, "bin", "bookkeeper.test")
	cmd := exec.CommandContext(ctx, "go", "test", "-tags=bookies", "-c", "-o", binary, "./storage/bookkeeper")
	cmd.Dir = filepath.Dir(root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return addLoops{}, fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	benchmark := func(ctx context.Context, cluster *peer.BookKeeper, name, time string) (string, error) {
		cmd := exec.CommandContext(ctx, binary, "-test.run", "^$", "-test.bench", name, "-test.benchtime", time)
		cmd.Dir = filepath.Join(filepath.Dir(root), "storage", "bookkeeper")
		cmd.Env = append(os.Environ(), "QUIRE_BOOKIES="+cluster.Etcd.Endpoints())
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return string(out), nil
	}
	return addLoops{
		java: javaLoop,
		quire: func(ctx context.Context, cluster *peer.BookKeeper, q [3]int, bytes, window int, secs float64) (map[string]float64, error) {
			before, err := bookiesCPU(cluster)
			if err != nil {
				return nil, err
			}
			out, err := benchmark(ctx, cluster, fmt.Sprintf("^BenchmarkRealBookies$/^%s$/^%d$/^%d$", quorumsText(q), bytes, window), fmt.Sprintf("%gs", secs))
			if err != nil {
				return nil, err
			}
			after, err := bookiesCPU(cluster)
			if err != nil {
				return nil, err
			}
			v, gb, err := parseLoop(out, bytes)
			if err != nil {
				return nil, err
			}
			v[bookiesCPUPerGB] = (after - before).Seconds() / gb
			return v, nil
		},
		recovery: func(ctx context.Context, cluster *peer.BookKeeper) (float64, error) {
			out, err := benchmark(ctx, cluster, "^BenchmarkRealBookiesRecovery$", "1x")
			if err != nil {
				return 0, err
			}
			m := recoveryFigure.FindStringSubmatch(out)
			if m == nil {
				return 0, fmt.Errorf("the recovery printed\n%s", out)
			}
			return strconv.ParseFloat(m[1], 64)
		},
	}, nil
}

var recoveryFigure = regexp.MustCompile(`\s([0-9.e+-]+) recovery-s`)

// bookiesCPU is what all bookies have taken so far.
func bookiesCPU(cluster *peer.BookKeeper) (used time.Duration, err error) {
	for _, b := range cluster.Bookies {
		usage, err := b.Process().Usage()
		if err != nil {
			return 0, err
		}
		used += usage.CPU
	}
	return used, nil
}

// parseLoop reads the line of a benchmark: pairs of a value and its unit. gb is what
// it has written in all.
func parseLoop(out string, bytes int) (v map[string]float64, gb float64, err error) {
	v = map[string]float64{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) == 0 || !strings.HasPrefix(f[0], "BenchmarkRealBookies/") {
			continue
		}
		for i := 2; i+1 < len(f); i += 2 {
			n, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return nil, 0, fmt.Errorf("%q: %w", line, err)
			}
			switch f[i+1] {
			case "GB":
				gb = n
			case "adds/s":
				v[perSecond], v[megabytesPerSec] = n, n*float64(bytes)/megabyte
			case "p50-µs":
				v[p50] = n / 1000
			case "p99-µs":
				v[p99] = n / 1000
			case "CPU-s/GB":
				v[clientCPUPerGB] = n
			}
		}
	}
	const figures = 5
	if len(v) != figures || gb == 0 {
		return nil, 0, fmt.Errorf("the loop printed\n%s", out)
	}
	return v, gb, nil
}

// javaLoop runs in a fresh JVM with the collector and the compilers that it chooses.
func javaLoop(ctx context.Context, cluster *peer.BookKeeper, q [3]int, bytes, window int, secs float64) (map[string]float64, error) {
	client, err := cluster.StartJavaClient(ctx, "v2", "-Xms512m", "-Xmx512m", "-XX:MaxDirectMemorySize=512m")
	if err != nil {
		return nil, err
	}
	defer client.Kill()
	words, err := client.Do(ctx, "load", q[0], q[1], q[2], bytes, window, int(addWarmup.Seconds()), int(secs))
	if err != nil {
		return nil, err
	}
	var n [4]float64
	if len(words) != len(n) {
		return nil, fmt.Errorf("the Java client says %v", words)
	}
	for i := range n {
		if n[i], err = strconv.ParseFloat(words[i], 64); err != nil {
			return nil, err
		}
	}
	return map[string]float64{
		perSecond: n[0], megabytesPerSec: n[0] * float64(bytes) / megabyte, p50: n[1] / 1000, p99: n[2] / 1000, clientCPUPerGB: n[3],
	}, nil
}

func (w *writer) bookkeeper() {
	header := false
	for _, q := range quorumSets {
		for _, bytes := range addSizes {
			for _, window := range addWindows {
				cell := addCell(q, bytes, window)
				if !w.any(cell) {
					continue
				}
				if !header {
					w.linef("\n| adds to one ledger, on three bookies and on one | adds/s: Java client | Quire's | ÷ | p50 / p99 ms: Java | Quire's | ÷ | client CPU s/GB: Java | Quire's | ÷ |\n|---|---|---|---|---|---|---|---|---|---|")
					header = true
				}
				w.linef("| %s, %d KiB, %d under way | %s | %s | %s | %s | %s | %s | %s | %s | %s |", strings.ReplaceAll(quorumsText(q), "-", "/"), bytes>>10, window,
					w.cellText(cell, javaClient, perSecond), w.cellText(cell, "quire", perSecond), w.ratioText(cell, javaClient, perSecond),
					w.medians(cell, javaClient, p50, p99), w.medians(cell, "quire", p50, p99), w.ratios(cell, javaClient, p50, p99),
					w.cellText(cell, javaClient, clientCPUPerGB), w.cellText(cell, "quire", clientCPUPerGB), w.ratioText(cell, javaClient, clientCPUPerGB))
			}
		}
	}
	header = false
	for _, q := range quorumSets {
		for _, sh := range shapes {
			cell := onBookiesCell(q, sh)
			if !w.any(cell) {
				continue
			}
			if !header {
				w.linef("\n| produce through Quire, on three bookies and on one | records/s | MB/s | of its client's loop, 16 KiB entries, 5 under way for each partition | of the loop, a server that costs nothing | p50 / p99 ms | server CPU s/GB | RSS MB |\n|---|---|---|---|---|---|---|---|")
				header = true
			}
			w.linef("| %s, %s | %s | %s | %s | %s | %s | %s | %s |", strings.ReplaceAll(quorumsText(q), "-", "/"), sh, w.cellText(cell, "quire", recordsPerSecond),
				w.medians(cell, "quire", megabytesPerSec), w.cellText(cell, "quire", ofRaw), w.cellText(cell, "quire", ceilingOfRaw), w.medians(cell, "quire", p50, p99),
				w.cellText(cell, "quire", serverCPUPerGB), w.cellText(cell, "quire", rssMB))
		}
	}
	w.catchUpTable()
}

// catchUpTable is what a reader of old records reaches, and what it costs producers.
func (w *writer) catchUpTable() {
	if !w.any(catchUpCell) {
		return
	}
	w.linef("\n| reader of old records beside a producer at half load, %s, %s | records/s produced | p99 ms alone | with the reader | MB/s read alone | beside the producer | machine CPU %% |\n|---|---|---|---|---|---|---|", strings.ReplaceAll(quorumsText(catchUpQuorums), "-", "/"), catchUpOn)
	w.linef("| on three bookies | %s | %s | %s | %s | %s | %s |", w.cellText(catchUpCell, "quire", recordsPerSecond), w.cellText(catchUpCell, "quire", p99Alone),
		w.cellText(catchUpCell, "quire", p99), w.cellText(catchUpCell, "quire", readAlone), w.cellText(catchUpCell, "quire", megabytesPerSec), w.cellText(catchUpCell, "quire", machineBusy))
}

// bookkeeperBars are what the tables above are held to.
func (w *writer) bookkeeperBars() []bar {
	rate := bar{title: "adds/s ÷ Java client, same bookies", limit: 1}
	cpu := bar{title: "client CPU s/GB ÷ Java client", atMost: true, limit: 0.5}
	tail := bar{title: "p99 of an add ÷ Java client", atMost: true, limit: 1}
	through := bar{title: "MB/s through Quire ÷ its client's loop, 16 KiB entries, as many under way", limit: 0.7}
	for _, q := range quorumSets {
		for _, bytes := range addSizes {
			for _, window := range addWindows {
				cell := addCell(q, bytes, window)
				w.addRatio(&rate, cell, javaClient, perSecond)
				w.addRatio(&cpu, cell, javaClient, clientCPUPerGB)
				w.addRatio(&tail, cell, javaClient, p99)
			}
		}
		for _, sh := range shapes {
			w.addMedian(&through, onBookiesCell(q, sh), "quire", ofRaw)
		}
	}
	return []bar{
		rate, cpu, tail, through, w.absolute("recovery of an open ledger of 100,000 entries, s", recoveryCell, seconds, 2),
		w.absolute("p99 of produce beside a reader of old records on bookies ÷ alone", catchUpCell, p99Beside, 2),
	}
}
