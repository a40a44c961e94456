package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Names of values in a sample.
const (
	recordsPerSecond = "records/s"
	megabytesPerSec  = "MB/s"
	p50, p95         = "p50 ms", "p95 ms"
	p99, p99_9       = "p99 ms", "p99.9 ms"
	serverCPUPerGB   = "server CPU s/GB"
	clientCPUPerGB   = "client CPU s/GB"
	rssMB            = "RSS MB"
	seconds          = "s"
	perSecond        = "1/s"
	cores            = "cores"
)

const megabyte, gigabyte = 1e6, 1e9

// A sample is one measurement of one cell for one contender.
type sample struct {
	Pair      int
	Cell      string
	Contender string
	Values    map[string]float64
}

// settings are the flags.
type settings struct {
	Pairs       int
	Seconds     float64 // of a throughput or paced cell, about
	Warmup      float64 // seconds of load before a shape's cells
	Contenders  []string
	Sections    []string
	Cells       *regexp.Regexp
	Rate        int // of paced cells; 0 takes PacedShare of Kafka's own maximum
	GB          float64
	Connections int
	Topics      int
	KafkaTopics int
	Groups      int
	DataDir     string
	Profiles    string
}

// pacedShare of Kafka's maximum is the rate of a latency cell.
const pacedShare = 0.45

// pacedWarmup is left out of a latency cell: the JIT of both JVMs.
const pacedWarmup = 6.0

// fanOut is how many readers follow a paced producer.
const fanOut = 4

// A bench collects samples.
type bench struct {
	settings
	samples []sample
	maximum map[string]float64 // records/s of the first pair, by contender and shape
	logf    func(format string, args ...any)
}

func (b *bench) has(section string) bool { return slices.Contains(b.Sections, section) }

func (b *bench) wants(cell string) bool { return b.Cells.MatchString(cell) }

func (b *bench) add(pair int, cell, contender string, values map[string]float64) {
	b.samples = append(b.samples, sample{pair, cell, contender, values})
	names := make([]string, 0, len(values))
	for n := range values {
		names = append(names, n)
	}
	slices.Sort(names)
	line := ""
	for _, n := range names {
		line += fmt.Sprintf("  %.4g %s", values[n], n)
	}
	b.logf("pair %d  %-28s %-12s%s", pair+1, cell, contender, line)
}

// servers returns the servers of the chosen contenders, Kafka first in even
// pairs and last in odd ones, so that neither always runs on the rested
// machine.
func (b *bench) servers(pair int) []string {
	var servers []string
	for _, c := range everybody() {
		if slices.Contains(b.Contenders, c.Key) && !slices.Contains(servers, c.Server) {
			servers = append(servers, c.Server)
		}
	}
	if pair%2 == 1 {
		slices.Reverse(servers)
	}
	return servers
}

func (b *bench) of(server string) []contender {
	var out []contender
	for _, c := range everybody() {
		if c.Server == server && slices.Contains(b.Contenders, c.Key) {
			out = append(out, c)
		}
	}
	return out
}

func (b *bench) run(ctx context.Context) error {
	if b.has("throughput") || b.has("latency") || b.has("fetch") {
		for pair := range b.Pairs {
			for _, sh := range shapes {
				if !b.anyCell(sh) {
					continue
				}
				for _, server := range b.servers(pair) {
					if server == outside.Server || server == floor.Server && !(b.has("latency") && sh.paced()) {
						continue
					}
					if err := b.runShape(ctx, pair, sh, server); err != nil {
						return err
					}
				}
			}
		}
	}
	for pair := range b.Pairs {
		for _, server := range b.servers(pair) {
			if server == outside.Server && b.has("commits") {
				if err := b.commits(ctx, pair, server); err != nil {
					return err
				}
			}
			if partial(server) {
				continue
			}
			if err := b.groupSections(ctx, pair, server); err != nil {
				return err
			}
			if err := b.footprint(ctx, pair, server); err != nil {
				return err
			}
		}
	}
	if b.has("oldclients") {
		if err := errors.Join(b.oldClients(ctx), b.oldConsumers(ctx)); err != nil {
			return err
		}
	}
	if b.has("bookkeeper") {
		if err := b.bookkeeper(ctx); err != nil {
			return err
		}
	}
	if b.has("hop") {
		return b.hop(ctx)
	}
	return nil
}

// groupSections runs the cells of consumer groups, each on a server of its own.
func (b *bench) groupSections(ctx context.Context, pair int, server string) error {
	if b.has("consume") {
		for _, sh := range shapes {
			if !sh.paced() {
				continue
			}
			if err := b.consume(ctx, pair, sh, server); err != nil {
				return err
			}
		}
	}
	if b.has("commits") {
		if err := b.commits(ctx, pair, server); err != nil {
			return err
		}
	}
	if b.has("groups") {
		return b.groups(ctx, pair, server)
	}
	return nil
}

func produceCell(sh shape, c client) string { return "produce/" + sh.key() + "/" + c.Key }
func latencyCell(sh shape) string           { return "latency/" + sh.key() }
func flushLatencyCell(sh shape) string      { return "latency-flush/" + sh.key() }
func fetchCell(sh shape) string             { return "fetch/" + sh.key() }
func followCell(sh shape) string            { return "follow/" + sh.key() }

func (b *bench) anyCell(sh shape) bool {
	if b.has("throughput") && (b.wants(produceCell(sh, defaults)) || b.wants(produceCell(sh, lz4))) {
		return true
	}
	if !sh.paced() {
		return false
	}
	return b.has("latency") && (b.wants(latencyCell(sh)) || b.wants(flushLatencyCell(sh))) ||
		b.has("fetch") && (b.wants(fetchCell(sh)) || b.wants(followCell(sh)))
}

func (b *bench) runShape(ctx context.Context, pair int, sh shape, server string) error {
	s, err := open(ctx, b.DataDir, server, b.Profiles)
	if err != nil {
		return err
	}
	err = b.shapeCells(ctx, s, pair, sh, server)
	if err != nil {
		err = fmt.Errorf("%w\nend of its log:\n%s", err, s.server.Process().LogTail(15))
	}
	return errors.Join(err, s.close())
}

func (b *bench) shapeCells(ctx context.Context, s *session, pair int, sh shape, server string) error {
	all := b.of(server)
	warm := perfRun{Records: max(1, int(float64(nominal(sh, defaults, all[0].Key))*b.Warmup))}
	if _, _, _, err := s.produce(ctx, "warm-up", sh, all[0], warm); err != nil {
		return err
	}
	if server == floor.Server {
		return b.latency(ctx, s, pair, sh, floor)
	}
	for _, c := range all {
		if err := b.throughput(ctx, s, pair, sh, c); err != nil {
			return err
		}
	}
	if !sh.paced() {
		return nil
	}
	for _, c := range all {
		if err := b.latency(ctx, s, pair, sh, c); err != nil {
			return err
		}
	}
	if all[0].Key != "kafka-flush" {
		return b.fetch(ctx, s, pair, sh, all[0])
	}
	return nil
}

func (b *bench) throughput(ctx context.Context, s *session, pair int, sh shape, c contender) error {
	for _, cl := range []client{defaults, lz4} {
		cell := produceCell(sh, cl)
		// A paced cell needs Kafka's maximum even when the table does not.
		needed := cl.Key == defaults.Key && sh.paced() && pair == 0 && c.Server == "kafka" && b.Rate == 0 && (b.has("latency") || b.has("fetch"))
		if !(b.has("throughput") && b.wants(cell)) && !needed {
			continue
		}
		run := perfRun{Records: max(1, int(float64(nominal(sh, cl, c.Key))*b.Seconds)), Properties: cl.Properties}
		_, res, cpu, err := s.produce(ctx, cell+" "+c.Key, sh, c, run)
		if err != nil {
			return err
		}
		if cl.Key == defaults.Key && pair == 0 {
			b.maximum[c.Key+" "+sh.key()] = res.RecordsPerSecond
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
		}
		addPercentiles(v, res)
		b.add(pair, cell, c.Key, v)
	}
	return nil
}

func addPercentiles(v map[string]float64, res perfResult) {
	v[p50], v[p95], v[p99], v[p99_9] = res.P50, res.P95, res.P99, res.P99_9
}

// rate returns the records per second of a paced cell, fixed by the first
// pair so that all pairs are alike.
func (b *bench) rate(sh shape, contender string) int {
	if b.Rate > 0 {
		return b.Rate
	}
	most := b.maximum[contender+" "+sh.key()]
	if most == 0 {
		most = float64(nominal(sh, defaults, contender))
	}
	return max(1, int(most*pacedShare))
}

func (b *bench) paced(rate int) perfRun {
	warm := int(pacedWarmup * float64(rate))
	return perfRun{Records: warm + int(b.Seconds*float64(rate)), Warmup: warm, PerSecond: rate}
}

func (b *bench) latency(ctx context.Context, s *session, pair int, sh shape, c contender) error {
	if !b.has("latency") {
		return nil
	}
	type paced struct {
		cell string
		rate int
	}
	var cells []paced
	if c.Key != "kafka-flush" {
		cells = append(cells, paced{latencyCell(sh), b.rate(sh, "kafka")})
	}
	if c.Key != "kafka" && c.Key != floor.Key && slices.Contains(b.Contenders, "kafka-flush") {
		cells = append(cells, paced{flushLatencyCell(sh), b.rate(sh, "kafka-flush")})
	}
	for _, p := range cells {
		if !b.wants(p.cell) {
			continue
		}
		run := b.paced(p.rate)
		_, res, cpu, err := s.produce(ctx, p.cell+" "+c.Key, sh, c, run)
		if err != nil {
			return err
		}
		v := map[string]float64{
			recordsPerSecond: res.RecordsPerSecond,
			serverCPUPerGB:   cpu.Seconds() / (float64(run.Records*sh.RecordBytes) / gigabyte),
		}
		addPercentiles(v, res)
		b.add(pair, p.cell, c.Key, v)
	}
	return nil
}

// fetch measures reading what was just written from its first offset, and
// following a paced producer at the tail.
func (b *bench) fetch(ctx context.Context, s *session, pair int, sh shape, c contender) error {
	if !b.has("fetch") {
		return nil
	}
	if b.wants(fetchCell(sh)) {
		fill := perfRun{Records: max(1, int(float64(nominal(sh, defaults, "kafka"))*b.Seconds))}
		topic, _, _, err := s.produce(ctx, fetchCell(sh)+" fill "+c.Key, sh, c, fill)
		if err != nil {
			return err
		}
		ends, err := s.ends(ctx, topic)
		if err != nil {
			return err
		}
		start := map[int32]int64{}
		for p := range ends {
			start[p] = 0
		}
		// The second reading counts: the first has brought both servers'
		// code and files into memory.
		for round := range 2 {
			r, err := newReader(ctx, s.server.Addr(), topic, start)
			if err != nil {
				return err
			}
			var bytes int64
			began := time.Now()
			cpu, err := s.cpu(func() error {
				bytes, err = r.readTo(ctx, ends)
				return err
			})
			took := time.Since(began)
			r.close()
			if err != nil {
				return fmt.Errorf("%s on %s: %w", fetchCell(sh), s.server.Name(), err)
			}
			if round == 1 {
				b.add(pair, fetchCell(sh), c.Key, map[string]float64{
					megabytesPerSec: float64(bytes) / megabyte / took.Seconds(),
					serverCPUPerGB:  cpu.Seconds() / (float64(bytes) / gigabyte),
				})
			}
		}
	}
	if b.wants(followCell(sh)) {
		return b.follow(ctx, s, pair, sh, c)
	}
	return nil
}

// follow runs the same paced producer twice, without and with readers at the
// tail; the difference is what the readers cost the server.
func (b *bench) follow(ctx context.Context, s *session, pair int, sh shape, c contender) error {
	run := b.paced(b.rate(sh, "kafka") / 2)
	_, _, alone, err := s.produce(ctx, followCell(sh)+" alone "+c.Key, sh, c, run)
	if err != nil {
		return err
	}
	topic, err := s.newTopic(ctx, sh.Partitions, c.Configs)
	if err != nil {
		return err
	}
	start := map[int32]int64{}
	for p := range int32(sh.Partitions) {
		start[p] = 0
	}
	followCtx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bytes int64
	var failed error
	for range fanOut {
		r, err := newReader(ctx, s.server.Addr(), topic, start)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer r.close()
			n, err := r.follow(followCtx)
			mu.Lock()
			defer mu.Unlock()
			bytes += n
			failed = errors.Join(failed, err)
		})
	}
	run.Topic, run.RecordBytes = topic, sh.RecordBytes
	var res perfResult
	stopProfile := s.profile(ctx, followCell(sh)+" "+c.Key)
	with, err := s.cpu(func() error {
		res, err = run.run(ctx, s.server.Addr())
		return err
	})
	err = errors.Join(err, stopProfile())
	stop()
	wg.Wait()
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("%s on %s: %w", followCell(sh), s.server.Name(), err)
	}
	v := map[string]float64{
		megabytesPerSec: float64(bytes) / megabyte / (float64(run.Records) / float64(run.PerSecond)),
		serverCPUPerGB:  (with - alone).Seconds() / (float64(bytes) / gigabyte),
	}
	addPercentiles(v, res)
	b.add(pair, followCell(sh), c.Key, v)
	return nil
}

const (
	startEmptyCell  = "start/empty"
	startLoadedCell = "start/loaded"
	idleCell        = "rss/idle"
	loadedCell      = "rss/loaded"
	connectionsCell = "rss/connections"
	topicsCell      = "topics"
)

// footprint measures start, memory, connections and topics.
func (b *bench) footprint(ctx context.Context, pair int, server string) error {
	contender := b.of(server)[0]
	if b.has("footprint") {
		if err := b.startAndMemory(ctx, pair, server, contender); err != nil {
			return err
		}
	}
	// Once is enough for what takes minutes and hardly varies.
	if pair == 0 && b.has("topics") {
		return b.manyTopics(ctx, pair, server, contender)
	}
	return nil
}

// idleWait is how long a server rests before its memory is read.
const idleWait = 3 * time.Second

func (b *bench) startAndMemory(ctx context.Context, pair int, server string, c contender) error {
	s, err := prepare(ctx, b.DataDir, server, "")
	if err != nil {
		return err
	}
	defer s.close()
	const topic = "first"
	started := func(create bool) (time.Duration, error) {
		if err := s.server.Exec(ctx); err != nil {
			return 0, err
		}
		err := s.firstAck(ctx, topic, create)
		return time.Since(s.server.Process().Started()), err
	}
	took, err := started(true)
	if err != nil {
		return err
	}
	b.add(pair, startEmptyCell, c.Key, map[string]float64{seconds: took.Seconds()})
	if err := b.memory(ctx, s, pair, idleCell, c); err != nil {
		return err
	}
	if err := s.connect(); err != nil {
		return err
	}
	if pair == 0 && b.Connections > 0 {
		if err := b.connections(ctx, s, pair, c); err != nil {
			return err
		}
	}
	if b.GB <= 0 {
		return nil
	}
	sh := shape{1000, 8}
	if _, _, _, err := s.produce(ctx, "fill", sh, c, perfRun{Records: max(1, int(b.GB*gigabyte/float64(sh.RecordBytes)))}); err != nil {
		return err
	}
	if err := b.memory(ctx, s, pair, loadedCell, c); err != nil {
		return err
	}
	if err := s.server.Kill(); err != nil {
		return err
	}
	if took, err = started(false); err != nil {
		return err
	}
	b.add(pair, startLoadedCell, c.Key, map[string]float64{seconds: took.Seconds()})
	return nil
}

func (b *bench) memory(ctx context.Context, s *session, pair int, cell string, c contender) error {
	select {
	case <-time.After(idleWait):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	usage, err := s.server.Process().Usage()
	if err != nil {
		return err
	}
	b.add(pair, cell, c.Key, map[string]float64{rssMB: float64(usage.RSSBytes) / megabyte})
	return nil
}

// connections opens idle connections that each have asked once, as clients do.
func (b *bench) connections(ctx context.Context, s *session, pair int, c contender) error {
	open := make([]net.Conn, 0, b.Connections)
	defer func() {
		for _, conn := range open {
			conn.Close()
		}
	}()
	for range b.Connections {
		conn, err := wire.Dial(ctx, s.server.Addr())
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(open)+1, err)
		}
		open = append(open, conn)
		callCtx, cancel := context.WithTimeout(ctx, 30*time.Second)
		_, err = conn.Call(callCtx, kmsg.NewPtrApiVersionsRequest(), 0)
		cancel()
		if err != nil {
			return fmt.Errorf("connection %d: %w", len(open), err)
		}
	}
	return b.memory(ctx, s, pair, connectionsCell, c)
}

// manyTopics creates topics of one partition in requests of topicsPerRequest,
// and restarts the server.
func (b *bench) manyTopics(ctx context.Context, pair int, server string, c contender) error {
	const topicsPerRequest = 1000
	count := b.Topics
	if server == "kafka" {
		count = b.KafkaTopics
	}
	if count <= 0 {
		return nil
	}
	s, err := open(ctx, b.DataDir, server, "")
	if err != nil {
		return err
	}
	defer s.close()
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprintf("many-%06d", i)
	}
	began := time.Now()
	for chunk := range slices.Chunk(names, topicsPerRequest) {
		created, err := s.admin.CreateTopics(ctx, 1, 1, nil, chunk...)
		if err == nil {
			err = created.Error()
		}
		if err != nil {
			return fmt.Errorf("create topics on %s: %w", s.server.Name(), err)
		}
	}
	v := map[string]float64{"topics": float64(count), perSecond: float64(count) / time.Since(began).Seconds()}
	if err := s.listed(ctx, count); err != nil {
		return err
	}
	select {
	case <-time.After(idleWait):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	usage, err := s.server.Process().Usage()
	if err != nil {
		return err
	}
	v[rssMB] = float64(usage.RSSBytes) / megabyte
	if err := s.server.Kill(); err != nil {
		return err
	}
	if err := s.server.Exec(ctx); err != nil {
		return err
	}
	if err := s.firstAck(ctx, names[count/2], false); err != nil {
		return err
	}
	v["restart s"] = time.Since(s.server.Process().Started()).Seconds()
	if err := s.listed(ctx, count); err != nil {
		return err
	}
	if usage, err = s.server.Process().Usage(); err != nil {
		return err
	}
	v["RSS MB after restart"] = float64(usage.RSSBytes) / megabyte
	b.add(pair, topicsCell, c.Key, v)
	return nil
}

// listed waits until Metadata names all topics.
func (s *session) listed(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		topics, err := s.admin.ListTopics(ctx)
		if err == nil && len(topics) >= count {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s lists %d topics of %d: %w", s.server.Name(), len(topics), count, errors.Join(err, context.Cause(ctx)))
		}
	}
}
