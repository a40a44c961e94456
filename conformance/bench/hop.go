package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sys/unix"
)

// The two ways to a partition: clients connect to the node that serves all of them, or
// to another one, which forwards whatever they ask.
const throughOwner, throughOther = "owner", "non-owner"

// hopQuorums keep the bookies' share of the machine small: what is compared is two
// ways to the same ledgers.
var hopQuorums = [3]int{1, 1, 1}

// hopPerSecond sizes the runs: about what 1 KB records reach.
const hopPerSecond = 60_000

// hopFrom is what is read from the first offset.
var hopFrom = []consumed{
	{"ledgers", "from the first offset, more than the tail cache holds", 500, 2},
	{"tail", "all of it in the tail cache", 100, 4},
}

// hopRequestsPerSecond are sent by hopLatency, one record each. hopTurn is for how long
// each way has its turn.
const (
	hopRequestsPerSecond = 500
	hopTurn              = time.Second
)

// added is what the second way takes longer than the first.
const added = "added "

func hopCell(kind string, sh shape, how string) string {
	return "hop/" + kind + "/" + sh.key() + "/" + how
}

// hop measures what it costs a client to be connected to a node that does not serve
// its partitions: two nodes over an etcd and a bookie, of which one serves all.
func (b *bench) hop(ctx context.Context) error {
	for pair := range b.Pairs {
		if err := b.hopPair(ctx, pair); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) hopPair(ctx context.Context, pair int) error {
	unix.Sync()
	dir, err := os.MkdirTemp(b.DataDir, "bench-hop-")
	if err != nil {
		return err
	}
	c, err := newHopCluster(ctx, dir, b.Profiles)
	if err == nil {
		if err = c.start(ctx); err == nil {
			err = b.hopCells(ctx, pair, c)
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, c.logTails())
		}
		err = errors.Join(err, c.kill())
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// hopCluster is the nodes and what they stand on.
type hopCluster struct {
	bookies      *peer.BookKeeper
	owner, other *peer.Server
	ways         []hopWay // the owner's first
}

// hopWay is a session with one of the nodes; both nodes' processor time is its cost.
type hopWay struct {
	key string
	*session
}

func newHopCluster(ctx context.Context, dir, profiles string) (*hopCluster, error) {
	c := &hopCluster{}
	var err error
	if c.bookies, err = peer.NewBookKeeper(ctx, benchBookies(dir, 1)); err != nil {
		return nil, err
	}
	for i, node := range []**peer.Server{&c.owner, &c.other} {
		name := fmt.Sprintf("quire-%d", i+1)
		// Each node names itself and nobody else: clients stay with the one that they
		// have connected to.
		clients, err := peer.FreeAddress("127.0.0.1")
		if err != nil {
			return nil, err
		}
		others, err := peer.FreeAddress("127.0.0.1")
		if err != nil {
			return nil, err
		}
		*node, err = peer.NewQuire(ctx, peer.Options{
			Dir: filepath.Join(dir, name), Addr: clients,
			Overrides: slices.Concat(peer.OnBookies(c.bookies, hopQuorums),
				peer.BehindOneAddress(name, others, "PLAINTEXT://"+clients), []string{"group.initial.rebalance.delay.ms=0"}),
		})
		if err != nil {
			return nil, err
		}
	}
	c.ways = []hopWay{
		{throughOwner, &session{server: c.owner, beside: []*peer.Server{c.other}, profiles: profiles, name: "-" + throughOwner}},
		{throughOther, &session{server: c.other, beside: []*peer.Server{c.owner}, profiles: profiles, name: "-" + throughOther}},
	}
	return c, nil
}

func (c *hopCluster) start(ctx context.Context) error {
	if err := c.bookies.Start(ctx); err != nil {
		return err
	}
	for _, n := range []*peer.Server{c.owner, c.other} {
		if err := n.Start(ctx); err != nil {
			return err
		}
	}
	if err := c.other.NodeVerb(ctx, "await", "--nodes", "2"); err != nil {
		return err
	}
	// A node that is drained serves no slot and takes none.
	if err := c.other.NodeVerb(ctx, "drain", "self"); err != nil {
		return err
	}
	for _, w := range c.ways {
		if err := w.connect(); err != nil {
			return err
		}
	}
	return c.ways[0].awaitCoordinator(ctx)
}

func (c *hopCluster) kill() error {
	for _, w := range c.ways {
		if w.client != nil {
			w.client.Close()
		}
	}
	return errors.Join(c.other.Kill(), c.owner.Kill(), c.bookies.Kill())
}

func (c *hopCluster) logTails() string {
	var b strings.Builder
	for _, w := range c.ways {
		if p := w.server.Process(); p != nil {
			fmt.Fprintf(&b, "end of the log of the %s:\n%s\n", w.key, p.LogTail(15))
		}
	}
	return b.String()
}

func (b *bench) hopCells(ctx context.Context, pair int, c *hopCluster) error {
	// Whoever comes first in one cell comes last in the next.
	turn := slices.Clone(c.ways)
	if pair%2 == 1 {
		slices.Reverse(turn)
	}
	next := func() []hopWay {
		ways := slices.Clone(turn)
		slices.Reverse(turn)
		return ways
	}
	for _, w := range c.ways {
		warm := perfRun{Records: max(1, int(hopPerSecond*b.Warmup))}
		if _, _, _, err := w.produce(ctx, "warm-up", shape{1000, 8}, contender{}, warm); err != nil {
			return err
		}
	}
	for _, sh := range shapes {
		if !sh.paced() {
			continue
		}
		for _, cl := range []client{defaults, lz4} {
			for _, w := range next() {
				if err := b.hopProduce(ctx, pair, w, sh, cl); err != nil {
					return err
				}
			}
		}
		for _, from := range hopFrom {
			if err := b.hopConsume(ctx, pair, next(), sh, from); err != nil {
				return err
			}
		}
		if err := b.hopLatency(ctx, pair, next(), sh); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) hopProduce(ctx context.Context, pair int, w hopWay, sh shape, cl client) error {
	cell := hopCell("produce", sh, cl.Key)
	if !b.wants(cell) {
		return nil
	}
	run := perfRun{Records: max(1, int(hopPerSecond*b.Seconds)), Properties: cl.Properties}
	_, res, cpu, err := w.produce(ctx, cell, sh, contender{}, run)
	if err != nil {
		return err
	}
	gb := float64(run.Records*sh.RecordBytes) / gigabyte
	v := map[string]float64{
		recordsPerSecond: res.RecordsPerSecond,
		megabytesPerSec:  res.RecordsPerSecond * float64(sh.RecordBytes) / megabyte,
		serverCPUPerGB:   cpu.Seconds() / gb,
		clientCPUPerGB:   res.ClientCPU.Seconds() / gb,
	}
	addPercentiles(v, res)
	b.add(pair, cell, w.key, v)
	return nil
}

// hopConsume runs kafka-consumer-perf-test over the same records on both ways in turn;
// the first round of each goes before those that count.
func (b *bench) hopConsume(ctx context.Context, pair int, ways []hopWay, sh shape, from consumed) error {
	cell := hopCell("consume", sh, from.key)
	if !b.wants(cell) {
		return nil
	}
	records := from.megabytes * megabyte / sh.RecordBytes
	topic, _, _, err := ways[0].produce(ctx, cell+" fill", sh, contender{}, perfRun{Records: records})
	if err != nil {
		return err
	}
	cpu, fetching := make([]time.Duration, len(ways)), make([]float64, len(ways))
	for round := range from.rounds + 1 {
		for i, w := range ways {
			var took float64
			stopProfile := func() error { return nil }
			if round > 0 {
				stopProfile = w.profile(ctx, cell)
			}
			used, err := w.cpu(func() error {
				took, err = consumePerf(ctx, w.server.Addr(), topic, fmt.Sprintf("%s-%s-%d", topic, w.key, round), records)
				return err
			})
			if err = errors.Join(err, stopProfile()); err != nil {
				return fmt.Errorf("%s through the %s: %w", cell, w.key, err)
			}
			if round > 0 {
				cpu[i] += used
				fetching[i] += took
			}
		}
	}
	bytes := float64(from.rounds * records * sh.RecordBytes)
	for i, w := range ways {
		b.add(pair, cell, w.key, map[string]float64{
			megabytesPerSec: bytes / megabyte / fetching[i],
			serverCPUPerGB:  cpu[i].Seconds() / (bytes / gigabyte),
		})
	}
	return nil
}

// hopLatency sends single records at a steady pace, on one connection to each node, by
// turns of hopTurn: what the disk does meanwhile is the same for both. Kafka's tool tells
// whole milliseconds, which is more than a hop takes.
func (b *bench) hopLatency(ctx context.Context, pair int, ways []hopWay, sh shape) error {
	cell := hopCell("latency", sh, "single")
	if !b.wants(cell) {
		return nil
	}
	topic, err := ways[0].newTopic(ctx, sh.Partitions, nil)
	if err != nil {
		return err
	}
	took := make([][]time.Duration, len(ways))
	var conns []*wire.Conn
	for _, w := range ways {
		conn, err := wire.Dial(ctx, w.server.Addr())
		if err != nil {
			return err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		conns = append(conns, conn)
	}
	warm := max(1, int(b.Warmup/2/hopTurn.Seconds()))
	for turn := range warm + max(1, int(b.Seconds/hopTurn.Seconds())) {
		for i, w := range ways {
			times, err := paceSingles(conns[i], topic, sh, hopRequestsPerSecond, hopTurn)
			if err != nil {
				return fmt.Errorf("%s through the %s: %w", cell, w.key, err)
			}
			if turn >= warm {
				took[i] = append(took[i], times...)
			}
		}
	}
	values := map[string]map[string]float64{}
	for i, w := range ways {
		slices.Sort(took[i])
		v := map[string]float64{recordsPerSecond: hopRequestsPerSecond}
		for name, share := range map[string]float64{p50: 0.50, p95: 0.95, p99: 0.99, p99_9: 0.999} {
			v[name] = took[i][int(share*float64(len(took[i])))].Seconds() * 1000
		}
		values[w.key] = v
	}
	for _, name := range []string{p50, p99} {
		values[throughOther][added+name] = values[throughOther][name] - values[throughOwner][name]
	}
	for _, w := range ways {
		b.add(pair, cell, w.key, values[w.key])
	}
	return nil
}

// paceSingles sends so many requests a second of one record each, whether the ones before
// are answered or not, and returns how long each took. After an error conn is closed.
func paceSingles(conn *wire.Conn, topic string, sh shape, perSecond int, d time.Duration) (took []time.Duration, err error) {
	const version = 9
	n := int(d.Seconds() * float64(perSecond))
	sent := make(chan time.Time, n)
	var failed error // read after sent is closed
	defer func() {
		if err != nil {
			conn.Close()
		}
		for range sent { // until the sender has ended
		}
		err = cmp.Or(err, failed)
	}()
	go func() {
		defer close(sent)
		format := kmsg.NewRequestFormatter(kmsg.FormatterClientID("bench"))
		value := strings.Repeat("x", sh.RecordBytes)
		var frame []byte
		for i, began := 0, time.Now(); i < n; i++ {
			req := wire.Produce(topic, int32(i%sh.Partitions), wire.Batch(-1, -1, -1, began.UnixMilli(), value))
			req.SetVersion(version)
			frame = format.AppendRequest(frame[:0], req, int32(i))
			time.Sleep(time.Until(began.Add(time.Duration(i) * d / time.Duration(n))))
			sent <- time.Now()
			if _, failed = conn.Write(frame); failed != nil {
				return
			}
		}
	}()
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(version)
	for at := range sent {
		body, err := conn.ReadFrame()
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(at))
		if len(body) < 5 || binary.BigEndian.Uint32(body) != uint32(len(took)-1) {
			return nil, fmt.Errorf("the answer to request %d is not to it", len(took)-1)
		}
		if err := resp.ReadFrom(body[5:]); err != nil {
			return nil, err
		}
		if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
			return nil, fmt.Errorf("request %d: %w", len(took)-1, err)
		}
	}
	return took, nil
}

func (w *writer) hop() {
	title := func(sh shape, how string) string { return fmt.Sprintf("%s, %s", sh, how) }
	header := false
	for _, sh := range shapes {
		for _, r := range []struct{ cell, title string }{
			{hopCell("produce", sh, defaults.Key), "produce"},
			{hopCell("produce", sh, lz4.Key), "produce, lz4, linger 5 ms, batch 64 KB"},
			{hopCell("consume", sh, hopFrom[0].key), "consume " + hopFrom[0].title},
			{hopCell("consume", sh, hopFrom[1].key), "consume, " + hopFrom[1].title},
		} {
			if !w.any(r.cell) {
				continue
			}
			if !header {
				w.linef("\n| one hop: two nodes, one bookie; Kafka's tools connected to | MB/s: the owner | a node that forwards | ÷ | p50 / p99 ms: owner | forwarded | CPU s/GB of both nodes: owner | forwarded |\n|---|---|---|---|---|---|---|---|")
				header = true
			}
			w.linef("| %s | %s | %s | %s | %s | %s | %s | %s |", title(sh, r.title), w.cellText(r.cell, throughOwner, megabytesPerSec), w.cellText(r.cell, throughOther, megabytesPerSec),
				w.hopRatio(r.cell, megabytesPerSec), w.medians(r.cell, throughOwner, p50, p99), w.medians(r.cell, throughOther, p50, p99),
				w.cellText(r.cell, throughOwner, serverCPUPerGB), w.cellText(r.cell, throughOther, serverCPUPerGB))
		}
	}
	header = false
	for _, sh := range shapes {
		cell := hopCell("latency", sh, "single")
		if !w.any(cell) {
			continue
		}
		if !header {
			w.linef("\n| one hop: %d requests/s of a record each | p50 / p95 / p99 / p99.9 ms: the owner | a node that forwards | added p50 | added p99 |\n|---|---|---|---|---|", hopRequestsPerSecond)
			header = true
		}
		w.linef("| %s | %s | %s | %s | %s |", sh, w.medians(cell, throughOwner, p50, p95, p99, p99_9), w.medians(cell, throughOther, p50, p95, p99, p99_9),
			w.cellText(cell, throughOther, added+p50), w.cellText(cell, throughOther, added+p99))
	}
}

func (w *writer) hopRatio(cell, value string) string {
	if r, ok := w.ratioOf(cell, throughOther, throughOwner, value); ok {
		return "**" + number(r) + "**"
	}
	return "–"
}

// hopBars are what the tables above are held to.
func (w *writer) hopBars() []bar {
	produce := bar{title: "MB/s produced through a node that forwards ÷ through the owner, each cell", limit: 0.6}
	consume := bar{title: "MB/s consumed through a node that forwards ÷ through the owner, each cell", limit: 0.6}
	latency := bar{title: "p50 added by a hop, ms", atMost: true, limit: 0.5}
	add := func(b *bar, cell string) {
		if r, ok := w.ratioOf(cell, throughOther, throughOwner, megabytesPerSec); ok {
			b.figures = append(b.figures, r)
		}
	}
	for _, sh := range shapes {
		for _, cl := range []client{defaults, lz4} {
			add(&produce, hopCell("produce", sh, cl.Key))
		}
		for _, from := range hopFrom {
			add(&consume, hopCell("consume", sh, from.key))
		}
		w.addMedian(&latency, hopCell("latency", sh, "single"), throughOther, added+p50)
	}
	return []bar{produce, consume, latency}
}
