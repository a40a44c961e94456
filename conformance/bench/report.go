package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// report renders the samples as Markdown.
func report(res *results) string {
	r := &writer{res: res}
	r.linef("Measured %s on %s; client and server share the machine and the disk; load averages before: %s. `kafka-producer-perf-test` 4.3.1 with acks=all; Apache Kafka 4.4.0.", res.Date, res.Machine, res.Load)
	r.linef("Medians of %d paired runs (least–greatest); ÷ is the median of the pairs' own ratios. Both are warmed by the same load on fresh folders. MB = 10⁶ B.", r.pairs())
	r.linef("An acknowledgement of Quire means fsynced. Kafka as shipped does not fsync; with `flush.messages=1` it makes three fsyncs for each batch.")
	r.throughput()
	r.cost()
	r.latency()
	r.fetch()
	r.consume()
	r.commits()
	r.groups()
	r.footprint()
	r.oldClients()
	r.oldConsumers()
	r.bookkeeper()
	r.hop()
	r.bars()
	return r.b.String()
}

type writer struct {
	b   strings.Builder
	res *results
}

func (w *writer) linef(format string, args ...any) { fmt.Fprintf(&w.b, format+"\n", args...) }

func (w *writer) pairs() int {
	n := 0
	for _, s := range w.res.Samples {
		n = max(n, s.Pair+1)
	}
	return n
}

// values returns what a contender measured, by pair.
func (w *writer) values(cell, contender, value string) map[int]float64 {
	out := map[int]float64{}
	for _, s := range w.res.Samples {
		if v, ok := s.Values[value]; ok && s.Cell == cell && s.Contender == contender {
			out[s.Pair] = v
		}
	}
	return out
}

func (w *writer) stats(cell, contender, value string) (stats, bool) {
	var all []float64
	for _, v := range w.values(cell, contender, value) {
		all = append(all, v)
	}
	return summarize(all)
}

// ratio is the median of what the pairs say about Quire over another.
func (w *writer) ratio(cell, other, value string) (float64, bool) {
	return w.ratioOf(cell, "quire", other, value)
}

// ratioOf is the median of what the pairs say about one contender over another.
func (w *writer) ratioOf(cell, one, other, value string) (float64, bool) {
	var ratios []float64
	theirs := w.values(cell, other, value)
	for pair, ours := range w.values(cell, one, value) {
		if their, ok := theirs[pair]; ok {
			ratios = append(ratios, quotient(ours, their))
		}
	}
	s, ok := summarize(ratios)
	return s.median, ok
}

// quotient of two measurements; the tool prints whole milliseconds, so both
// can be 0.
func quotient(a, b float64) float64 {
	if a == b {
		return 1
	}
	return a / b
}

func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsInf(v, 0) || math.IsNaN(v):
		return "–"
	case a >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.0fk", v/1e3)
	case a >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// cellText is the median with the extremes, or a dash.
func (w *writer) cellText(cell, contender, value string) string {
	s, ok := w.stats(cell, contender, value)
	if !ok {
		return "–"
	}
	if s.min == s.max {
		return number(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.median), number(s.min), number(s.max))
}

func (w *writer) ratioText(cell, other, value string) string {
	if r, ok := w.ratio(cell, other, value); ok {
		return "**" + number(r) + "**"
	}
	return "–"
}

func (w *writer) medians(cell, contender string, values ...string) string {
	var out []string
	for _, v := range values {
		s, ok := w.stats(cell, contender, v)
		if !ok {
			return "–"
		}
		out = append(out, number(s.median))
	}
	return strings.Join(out, " / ")
}

func (w *writer) ratios(cell, other string, values ...string) string {
	var out []string
	for _, v := range values {
		r, ok := w.ratio(cell, other, v)
		if !ok {
			return "–"
		}
		out = append(out, number(r))
	}
	return strings.Join(out, " / ")
}

func (w *writer) any(cell string) bool {
	for _, s := range w.res.Samples {
		if s.Cell == cell {
			return true
		}
	}
	return false
}

type produceRow struct {
	cell, title string
	shape       shape
	client      client
}

func (w *writer) produceRows() []produceRow {
	var rows []produceRow
	for _, sh := range shapes {
		for _, c := range []client{defaults, lz4} {
			title := sh.String()
			if c.Key == "lz4" {
				title += ", lz4, linger 5 ms, batch 64 KB"
			}
			if cell := produceCell(sh, c); w.any(cell) {
				rows = append(rows, produceRow{cell, title, sh, c})
			}
		}
	}
	return rows
}

func (w *writer) throughput() {
	rows := w.produceRows()
	if len(rows) == 0 {
		return
	}
	w.linef("\n| produce, records/s | Kafka as shipped | Kafka flush.messages=1 | Quire | ÷ shipped | ÷ flush | ÷ flush of a server that costs nothing |\n|---|---|---|---|---|---|---|")
	for _, r := range rows {
		w.linef("| %s | %s | %s | %s | %s | %s | %s |", r.title,
			w.cellText(r.cell, "kafka", recordsPerSecond), w.cellText(r.cell, "kafka-flush", recordsPerSecond), w.cellText(r.cell, "quire", recordsPerSecond),
			w.ratioText(r.cell, "kafka", recordsPerSecond), w.ratioText(r.cell, "kafka-flush", recordsPerSecond), w.ceiling(r.cell))
	}
}

// ceiling is how many times Kafka with flush.messages=1 the tool itself could
// send if it had all cores, by the processor time that it takes beside Quire.
func (w *writer) ceiling(cell string) string {
	client, ok := w.stats(cell, "quire", clientCPUPerGB)
	flush, known := w.stats(cell, "kafka-flush", megabytesPerSec)
	if !ok || !known || w.res.Cores == 0 {
		return "–"
	}
	return number(float64(w.res.Cores) / client.median * gigabyte / megabyte / flush.median)
}

func (w *writer) cost() {
	rows := w.produceRows()
	if len(rows) == 0 {
		return
	}
	w.linef("\n| the same runs | MB/s: shipped / flush / Quire | p50 / p99 / p99.9 ms, shipped | Quire | server CPU s/GB: shipped | flush | Quire | ÷ shipped | RSS MB: Kafka / Quire |\n|---|---|---|---|---|---|---|---|---|")
	for _, r := range rows {
		mb := []string{}
		rss := []string{}
		for _, c := range contenders {
			mb = append(mb, w.medians(r.cell, c.Key, megabytesPerSec))
			if c.Key != "kafka-flush" {
				rss = append(rss, w.medians(r.cell, c.Key, rssMB))
			}
		}
		w.linef("| %s | %s | %s | %s | %s | %s | %s | %s | %s |", r.title, strings.Join(mb, " / "),
			w.medians(r.cell, "kafka", p50, p99, p99_9), w.medians(r.cell, "quire", p50, p99, p99_9),
			w.cellText(r.cell, "kafka", serverCPUPerGB), w.cellText(r.cell, "kafka-flush", serverCPUPerGB), w.cellText(r.cell, "quire", serverCPUPerGB),
			w.ratioText(r.cell, "kafka", serverCPUPerGB), strings.Join(rss, " / "))
	}
}

func (w *writer) latency() {
	header := false
	for _, sh := range shapes {
		for _, l := range []struct{ cell, other, title string }{
			{latencyCell(sh), "kafka", "Kafka as shipped"},
			{flushLatencyCell(sh), "kafka-flush", "Kafka flush.messages=1"},
		} {
			if !w.any(l.cell) {
				continue
			}
			if !header {
				w.linef("\n| paced at 45 %% of the other's maximum, first %.0f s left out: p50 / p95 / p99 / p99.9 ms | records/s | %s | Quire | ÷ p50 / p99 / p99.9 | floor: Quire on tmpfs |\n|---|---|---|---|---|---|", pacedWarmup, "the other")
				header = true
			}
			rate := w.medians(l.cell, "quire", recordsPerSecond)
			w.linef("| %s, against %s | %s | %s | %s | **%s** | %s |", sh, l.title, rate,
				w.medians(l.cell, l.other, p50, p95, p99, p99_9), w.medians(l.cell, "quire", p50, p95, p99, p99_9), w.ratios(l.cell, l.other, p50, p99, p99_9),
				w.medians(l.cell, floor.Key, p50, p95, p99, p99_9))
		}
	}
}

func (w *writer) fetch() {
	header := false
	for _, sh := range shapes {
		for _, f := range []struct{ cell, title string }{
			{fetchCell(sh), sh.String() + ", from the first offset, just written"},
			{followCell(sh), fmt.Sprintf("%s, %d readers at the tail of a paced producer", sh, fanOut)},
		} {
			if !w.any(f.cell) {
				continue
			}
			if !header {
				w.linef("\n| fetch | MB/s: Kafka as shipped | Quire | server CPU s/GB: Kafka | Quire | ÷ |\n|---|---|---|---|---|---|")
				header = true
			}
			w.linef("| %s | %s | %s | %s | %s | %s |", f.title, w.cellText(f.cell, "kafka", megabytesPerSec), w.cellText(f.cell, "quire", megabytesPerSec),
				w.cellText(f.cell, "kafka", serverCPUPerGB), w.cellText(f.cell, "quire", serverCPUPerGB), w.ratioText(f.cell, "kafka", serverCPUPerGB))
		}
	}
}

func (w *writer) consume() {
	header := false
	for _, sh := range shapes {
		for _, from := range consumedFrom {
			cell := consumeCell(sh, from)
			if !w.any(cell) {
				continue
			}
			if !header {
				w.linef("\n| `kafka-consumer-perf-test`, subscribed by a group | MB/s while fetching: Kafka as shipped | Quire | ÷ | server CPU s/GB: Kafka | Quire | ÷ |\n|---|---|---|---|---|---|---|")
				header = true
			}
			w.linef("| %s, %s | %s | %s | %s | %s | %s | %s |", sh, from.title,
				w.cellText(cell, "kafka", megabytesPerSec), w.cellText(cell, "quire", megabytesPerSec), w.ratioText(cell, "kafka", megabytesPerSec),
				w.cellText(cell, "kafka", serverCPUPerGB), w.cellText(cell, "quire", serverCPUPerGB), w.ratioText(cell, "kafka", serverCPUPerGB))
		}
	}
}

func (w *writer) commits() {
	header := false
	for _, n := range commitConnections {
		cell := commitCell(n)
		if !w.any(cell) {
			continue
		}
		if !header {
			w.linef("\n| offset commits of %d groups, %d outstanding | commits/s: Kafka as shipped (not fsynced) | Quire (fsynced) | ÷ | p50 / p99 / p99.9 ms: Kafka | Quire | ÷ p99 | server cores: Kafka / Quire |\n|---|---|---|---|---|---|---|---|", commitGroups, commitOutstanding)
			header = true
		}
		plural := "s"
		if n == 1 {
			plural = ""
		}
		w.linef("| %d connection%s | %s | %s | %s | %s | %s | %s | %s / %s |", n, plural,
			w.cellText(cell, "kafka", perSecond), w.cellText(cell, "quire", perSecond), w.ratioText(cell, "kafka", perSecond),
			w.medians(cell, "kafka", p50, p99, p99_9), w.medians(cell, "quire", p50, p99, p99_9), w.ratioText(cell, "kafka", p99),
			w.medians(cell, "kafka", cores), w.medians(cell, "quire", cores))
	}
	for _, n := range commitConnections {
		if _, ok := w.stats(commitCell(n), outside.Key, perSecond); ok {
			w.linef("\nOver an etcd of one member in a process of its own, %d connection(s): %s commits/s, p50 / p99 / p99.9 %s ms, %s cores without those of etcd.", n,
				w.cellText(commitCell(n), outside.Key, perSecond), w.medians(commitCell(n), outside.Key, p50, p99, p99_9), w.medians(commitCell(n), outside.Key, cores))
		}
	}
}

func (w *writer) groups() {
	if w.any(joinCell) {
		w.linef("\n| groups | Kafka as shipped | Quire |\n|---|---|---|")
		w.linef("| %d members join at once, to the last assignment, s (the initial delay of %v included) | %s | %s |", joinersAtOnce, initialDelay,
			w.cellText(joinCell, "kafka", seconds), w.cellText(joinCell, "quire", seconds))
		if w.any(idleGroupsCell) {
			w.linef("| %s groups of %d members with a heartbeat every %v: server cores | – | %s |", w.medians(idleGroupsCell, "quire", "groups"), membersPerGroup, heartbeatEvery, w.cellText(idleGroupsCell, "quire", cores))
			w.linef("| the same: RSS MB | – | %s |", w.cellText(idleGroupsCell, "quire", rssMB))
		}
	}
}

func (w *writer) footprint() {
	rows := []struct{ cell, value, title string }{
		{startEmptyCell, seconds, "start to first acknowledgement, empty folder, s"},
		{startLoadedCell, seconds, "the same on the written folder after `kill -9` (Kafka first waits for its old session to end), s"},
		{idleCell, rssMB, "RSS after start, MB"},
		{loadedCell, rssMB, "RSS after writing, MB"},
		{connectionsCell, rssMB, "RSS with idle connections, MB"},
		{topicsCell, "topics", "topics of 1 partition"},
		{topicsCell, perSecond, "created per second"},
		{topicsCell, "restart s", "`kill -9` and start to first acknowledgement with them, s"},
		{topicsCell, rssMB, "RSS with them, MB"},
		{topicsCell, "RSS MB after restart", "RSS with them after the restart, MB"},
	}
	header := false
	for _, r := range rows {
		if !w.any(r.cell) {
			continue
		}
		if !header {
			w.linef("\n| footprint | Kafka as shipped | Quire | ÷ |\n|---|---|---|---|")
			header = true
		}
		ratio := "–"
		// Kafka makes fewer topics, so only its rate compares.
		if r.cell != topicsCell || r.value == perSecond {
			ratio = w.ratioText(r.cell, "kafka", r.value)
		}
		w.linef("| %s | %s | %s | %s |", r.title, w.cellText(r.cell, "kafka", r.value), w.cellText(r.cell, "quire", r.value), ratio)
	}
}

// A bar is a promise and how it was kept, over every cell it is about.
type bar struct {
	title   string
	atMost  bool // else at least
	limit   float64
	figures []float64
	middle  bool // the median of the figures counts, not the worst
}

func (w *writer) bars() {
	toFlush, toShipped := bar{title: "records/s ÷ Kafka with flush.messages=1, each cell", limit: 5}, bar{title: "records/s ÷ Kafka as shipped, each cell", limit: 1}
	cpu := bar{title: "server CPU s/GB produced ÷ Kafka, each cell", atMost: true, limit: 0.5}
	for _, r := range w.produceRows() {
		w.addRatio(&toFlush, r.cell, "kafka-flush", recordsPerSecond)
		w.addRatio(&toShipped, r.cell, "kafka", recordsPerSecond)
		w.addRatio(&cpu, r.cell, "kafka", serverCPUPerGB)
	}
	inMedian := bar{title: "records/s ÷ Kafka as shipped, median of the cells", limit: 1.15, figures: toShipped.figures, middle: true}
	mid, tails := bar{title: "p50 ÷ Kafka as shipped, paced", atMost: true, limit: 1}, bar{title: "p99 and p99.9 ÷ Kafka as shipped, paced", atMost: true, limit: 0.5}
	flush := bar{title: "p50, p99 and p99.9 ÷ Kafka with flush.messages=1, at its pace", atMost: true, limit: 0.05}
	fetch := bar{title: "server CPU s/GB fetched at the tail ÷ Kafka", atMost: true, limit: 0.8}
	backlog := bar{title: "server CPU s/GB fetched from ledgers ÷ Kafka", atMost: true, limit: 1}
	for _, sh := range shapes {
		w.addRatio(&mid, latencyCell(sh), "kafka", p50)
		for _, v := range []string{p99, p99_9} {
			w.addRatio(&tails, latencyCell(sh), "kafka", v)
		}
		for _, v := range []string{p50, p99, p99_9} {
			w.addRatio(&flush, flushLatencyCell(sh), "kafka-flush", v)
		}
		w.addRatio(&backlog, fetchCell(sh), "kafka", serverCPUPerGB)
		w.addRatio(&fetch, followCell(sh), "kafka", serverCPUPerGB)
	}
	consumeRate := bar{title: "MB/s of kafka-consumer-perf-test ÷ Kafka", limit: 1}
	consumeTail := bar{title: "server CPU s/GB of it ÷ Kafka, from the tail cache", atMost: true, limit: 0.8}
	consumeLedgers := bar{title: "server CPU s/GB of it ÷ Kafka, from ledgers", atMost: true, limit: 1}
	for _, sh := range shapes {
		for i, cpu := range []*bar{&consumeLedgers, &consumeTail} {
			w.addRatio(&consumeRate, consumeCell(sh, consumedFrom[i]), "kafka", megabytesPerSec)
			w.addRatio(cpu, consumeCell(sh, consumedFrom[i]), "kafka", serverCPUPerGB)
		}
	}
	commitRate, commitTail := bar{title: "offset commits/s ÷ Kafka", limit: 2}, bar{title: "p99 of a commit ÷ Kafka", atMost: true, limit: 0.4}
	commits, commitP99 := bar{title: "offset commits/s, fsynced", limit: 20_000}, bar{title: "p99 of a commit, ms", atMost: true, limit: 50}
	outsideRate, outsideP99 := bar{title: "offset commits/s over an external etcd", limit: 10_000}, bar{title: "p99 of a commit over an external etcd, ms", atMost: true, limit: 50}
	for _, n := range commitConnections {
		w.addRatio(&commitRate, commitCell(n), "kafka", perSecond)
		w.addRatio(&commitTail, commitCell(n), "kafka", p99)
		w.addMedian(&commits, commitCell(n), "quire", perSecond)
		w.addMedian(&commitP99, commitCell(n), "quire", p99)
		w.addMedian(&outsideRate, commitCell(n), outside.Key, perSecond)
		w.addMedian(&outsideP99, commitCell(n), outside.Key, p99)
	}
	bars := []bar{toFlush, toShipped, inMedian, mid, tails, flush, cpu, fetch, backlog, consumeRate, consumeTail, consumeLedgers, commitRate, commitTail, commits, commitP99, outsideRate, outsideP99,
		w.absolute("start to first acknowledgement, empty folder, s", startEmptyCell, seconds, 1),
		w.absolute("start to first acknowledgement, written folder, s", startLoadedCell, seconds, 3),
		w.absolute("RSS idle, MB", idleCell, rssMB, 60),
		w.absolute("RSS after writing, MB", loadedCell, rssMB, 400),
		w.absolute("RSS with idle connections, MB", connectionsCell, rssMB, 200),
		w.absolute("members at once to their assignments, s", joinCell, seconds, initialDelay.Seconds()+1),
		w.absolute("cores for groups that only heartbeat", idleGroupsCell, cores, 0.15),
		w.absolute("RSS with groups that only heartbeat, MB", idleGroupsCell, rssMB, 250),
		w.absolute("restart with many topics, s", topicsCell, "restart s", 5),
		w.absolute("RSS with many topics, MB", topicsCell, rssMB, 300),
	}
	created := w.absolute("topics created per second", topicsCell, perSecond, 2000)
	created.atMost = false
	header := false
	for _, b := range slices.Concat(bars, []bar{created, w.oldClientsBar(), w.oldConsumersBar()}, w.bookkeeperBars(), w.hopBars()) {
		if len(b.figures) == 0 {
			continue
		}
		if !header {
			w.linef("\n| bar | wanted | Quire | |\n|---|---|---|---|")
			header = true
		}
		s, _ := summarize(b.figures)
		sign, worst := "≥", s.min
		if b.atMost {
			sign, worst = "≤", s.max
		}
		if b.middle {
			worst = s.median
		}
		verdict := "met"
		if b.atMost && worst > b.limit || !b.atMost && worst < b.limit {
			verdict = "**missed**"
		}
		w.linef("| %s | %s %s | %s | %s |", b.title, sign, number(b.limit), number(worst), verdict)
	}
}

func (w *writer) addRatio(b *bar, cell, other, value string) {
	if r, ok := w.ratio(cell, other, value); ok {
		b.figures = append(b.figures, r)
	}
}

func (w *writer) addMedian(b *bar, cell, contender, value string) {
	if s, ok := w.stats(cell, contender, value); ok {
		b.figures = append(b.figures, s.median)
	}
}

func (w *writer) absolute(title, cell, value string, limit float64) bar {
	b := bar{title: title, atMost: true, limit: limit}
	w.addMedian(&b, cell, "quire", value)
	return b
}
