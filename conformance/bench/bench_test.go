package main

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/wire"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestParsePerf(t *testing.T) {
	const steady = `Warmup first 10000 records. Steady state results will print after the complete test summary.
In steady state.
17328 records sent, 3420.5 records/sec (3.26 MB/sec), 5483.7 ms avg latency, 6758.0 ms max latency.
30000 records sent, 2386.255170 records/sec (2.28 MB/sec), 4719.62 ms avg latency, 6792.00 ms max latency, 5097 ms 50th, 6708 ms 95th, 6755 ms 99th, 6788 ms 99.9th.
20000 steady state records sent, 1893.043067 records/sec (1.81 MB/sec), 5641.30 ms avg latency, 6792.00 ms max latency, 5208 ms 50th, 6732 ms 95th, 6762 ms 99th, 6789 ms 99.9th.
`
	got, err := parsePerf(steady, 20_000)
	if err != nil {
		t.Fatal(err)
	}
	if want := (perfResult{RecordsPerSecond: 1893.043067, P50: 5208, P95: 6732, P99: 6762, P99_9: 6789}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	fast := strings.Replace(strings.Split(steady, "\n")[3], "2386.255170", "1.2345678901E7", 1)
	if got, err = parsePerf(fast, 30_000); err != nil || got.RecordsPerSecond != 12345678.901 {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		out     string
		records int
	}{
		"no summary":          {"org.apache.kafka.common.errors.TimeoutException\n", 1},
		"only interim lines":  {strings.Join(strings.Split(steady, "\n")[:3], "\n"), 17328},
		"other record counts": {steady, 30_000},
	} {
		if got, err := parsePerf(c.out, c.records); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

func TestWalkCountsWholeBatches(t *testing.T) {
	var stored []byte
	for offset := range uint64(3) {
		b := wire.Batch(-1, -1, -1, 0, "value")
		binary.BigEndian.PutUint64(b, offset)
		stored = append(stored, b...)
	}
	size := int64(len(stored)) / 3
	next, n, err := walk(stored[:len(stored)-1], 0) // the last one is cut off
	if err != nil || next != 2 || n != 2*size {
		t.Errorf("next %d, %d bytes, %v; want 2 and %d", next, n, err, 2*size)
	}
	if _, _, err := walk(stored, 5); err == nil {
		t.Error("a batch before the asked offset goes unnoticed")
	}
	bad := append([]byte(nil), stored...)
	binary.BigEndian.PutUint32(bad[8:], math.MaxUint32)
	if _, _, err := walk(bad, 0); err == nil {
		t.Error("a negative length goes unnoticed")
	}
}

func sampleResults() *results {
	cell := produceCell(shapes[2], defaults)
	values := func(rate float64) map[string]float64 {
		return map[string]float64{recordsPerSecond: rate, megabytesPerSec: rate / 1000, p50: 1, p95: 2, p99: 3, p99_9: 4, serverCPUPerGB: 2, rssMB: 100}
	}
	res := &results{Machine: "a machine", Date: "2026-01-02"}
	for pair, rates := range [][2]float64{{100_000, 150_000}, {200_000, 220_000}, {50_000, 100_000}} {
		res.Samples = append(res.Samples,
			sample{pair, cell, "kafka", values(rates[0])},
			sample{pair, cell, "quire", values(rates[1])})
	}
	res.Samples = append(res.Samples, sample{0, idleCell, "quire", map[string]float64{rssMB: 61}})
	return res
}

func TestReportPairsItsRatios(t *testing.T) {
	got := report(sampleResults())
	for _, want := range []string{
		// Medians 100k and 150k; the pairs say 1.5, 1.1 and 2.
		"| 1 KB, 1 partition | 100k (50k–200k) | – | 150k (100k–220k) | **1.50** | – |",
		"| records/s ÷ Kafka as shipped, each cell | ≥ 1 | 1.50 | met |",
		"| server CPU s/GB produced ÷ Kafka, each cell | ≤ 0.50 | 1 | **missed** |",
		"| RSS idle, MB | ≤ 60 | 61 | **missed** |",
		"Medians of 3 paired runs",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "flush.messages=1, each cell") {
		t.Errorf("a bar without a measurement is judged:\n%s", got)
	}
}

// Two cores and 10 s of the tool's processor time per GB are 200 MB/s.
func TestCeilingIsTheToolsOwn(t *testing.T) {
	cell := produceCell(shapes[2], defaults)
	w := &writer{res: &results{Cores: 2, Samples: []sample{
		{0, cell, "quire", map[string]float64{clientCPUPerGB: 10}},
		{0, cell, "kafka-flush", map[string]float64{megabytesPerSec: 16}},
	}}}
	if got := w.ceiling(cell); got != "12.5" {
		t.Errorf("200 MB/s over 16 is told as %s", got)
	}
}

func TestHopIsHeldAgainstTheOwner(t *testing.T) {
	res := &results{}
	for pair, rates := range [][2]float64{{100, 70}, {80, 40}, {100, 90}} {
		cell := hopCell("produce", shapes[2], defaults.Key)
		res.Samples = append(res.Samples,
			sample{pair, cell, throughOwner, map[string]float64{megabytesPerSec: rates[0], serverCPUPerGB: 3}},
			sample{pair, cell, throughOther, map[string]float64{megabytesPerSec: rates[1], serverCPUPerGB: 5}})
	}
	cell := hopCell("latency", shapes[3], "single")
	res.Samples = append(res.Samples,
		sample{0, cell, throughOwner, map[string]float64{p50: 1.5, p95: 2, p99: 3, p99_9: 4}},
		sample{0, cell, throughOther, map[string]float64{p50: 2.25, p95: 3, p99: 4.5, p99_9: 5, added + p50: 0.75, added + p99: 1.5}})
	got := report(res)
	for _, want := range []string{
		"| 1 KB, 1 partition, produce | 100 (80–100) | 70 (40–90) | **0.70** | – | – | 3 | 5 |",
		"| 1 KB, 8 partitions | 1.50 / 2 / 3 / 4 | 2.25 / 3 / 4.50 / 5 | 0.75 | 1.50 |",
		"| MB/s produced through a node that forwards ÷ through the owner, each cell | ≥ 0.60 | 0.70 | met |",
		"| p50 added by a hop, ms | ≤ 0.50 | 0.75 | **missed** |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Contains(got, "MB/s consumed") {
		t.Errorf("a bar without a measurement is judged:\n%s", got)
	}
}

// answer is a broker of one connection that answers every Produce request, the last of
// them with the error code.
func answer(conn net.Conn, requests int, code int16) {
	for i := range requests {
		var size [4]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
			return
		}
		resp := kmsg.NewPtrProduceResponse()
		resp.SetVersion(9)
		part := kmsg.NewProduceResponseTopicPartition()
		if i == requests-1 {
			part.ErrorCode = code
		}
		topic := kmsg.NewProduceResponseTopic()
		topic.Partitions = []kmsg.ProduceResponseTopicPartition{part}
		resp.Topics = []kmsg.ProduceResponseTopic{topic}
		body := resp.AppendTo(append(binary.BigEndian.AppendUint32(nil, uint32(i)), 0))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)); err != nil {
			return
		}
	}
}

func TestPacedSinglesAreAllAnswered(t *testing.T) {
	for _, code := range []int16{0, kerr.NotLeaderForPartition.Code} {
		ours, theirs := net.Pipe()
		go answer(theirs, 20, code)
		took, err := paceSingles(&wire.Conn{Conn: ours}, "topic", shapes[3], 1000, 20*time.Millisecond)
		switch {
		case code == 0 && (err != nil || len(took) != 20):
			t.Errorf("%d answers of 20, %v", len(took), err)
		case code != 0 && !errors.Is(err, kerr.NotLeaderForPartition):
			t.Errorf("a failed request goes unnoticed: %v", err)
		}
		ours.Close()
		theirs.Close()
	}
}

func TestFloorRunsWithTheOthers(t *testing.T) {
	b := &bench{settings: settings{Contenders: []string{"quire", floor.Key}}}
	if got := strings.Join(b.servers(0), " "); got != "quire quire-tmpfs" {
		t.Errorf("got %s", got)
	}
}

func TestChartDrawsEachContender(t *testing.T) {
	got := chart(sampleResults())
	for _, want := range []string{"1 KB, 1 partition", "(1.50 × shipped)", chartColours["kafka"], chartColours["quire"]} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if empty := chart(&results{}); !strings.HasSuffix(empty, "</svg>\n") {
		t.Errorf("a chart of nothing is\n%s", empty)
	}
}

func TestInsertReplacesOnlyTheTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(path, []byte("before\n"+markBegin+"\nold\n"+markEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := insert(path, "new\n"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != "before\n"+markBegin+"\nnew\n"+markEnd+"\nafter\n" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := os.WriteFile(path, []byte("no marks"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := insert(path, "new\n"); err == nil {
		t.Error("a file without marks is taken")
	}
}

func TestServersTakeTurns(t *testing.T) {
	b := &bench{settings: settings{Contenders: []string{"quire", "kafka-flush", "kafka"}}}
	if got := strings.Join(append(b.servers(0), b.servers(1)...), " "); got != "kafka quire quire kafka" {
		t.Errorf("got %s", got)
	}
}

func TestWalkSetCountsWholeMessages(t *testing.T) {
	// A message of format 0: offset, size, and as many bytes.
	set := func(offsets ...uint64) (out []byte) {
		for _, o := range offsets {
			out = binary.BigEndian.AppendUint64(out, o)
			out = binary.BigEndian.AppendUint32(out, 20)
			out = append(out, make([]byte, 20)...)
		}
		return out
	}
	stored := set(4, 5, 9)
	next, n, err := walkSet(stored[:len(stored)-1], 4) // the last one is cut off
	if err != nil || next != 6 || n != 64 {
		t.Errorf("next %d, %d bytes, %v; want 6 and 64", next, n, err)
	}
	if _, _, err := walkSet(stored, 5); err == nil {
		t.Error("a message before the asked offset goes unnoticed")
	}
	binary.BigEndian.PutUint32(stored[8:], math.MaxUint32)
	if _, _, err := walkSet(stored, 0); err == nil {
		t.Error("a negative length goes unnoticed")
	}
}
