package bookies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A quire is one server over a cluster, with a client.
type quire struct {
	t       *testing.T
	cluster *peer.BookKeeper
	server  *peer.Server
	client  *kgo.Client
	admin   *kadm.Client
}

var threeThreeTwo = [3]int{3, 3, 2}

// quireOn starts Quire on a cluster with ledgers that roll soon.
func quireOn(t *testing.T, cluster *peer.BookKeeper, quorums [3]int, overrides ...string) *quire {
	t.Helper()
	server, err := peer.NewQuire(t.Context(), peer.Options{
		// The metadata name the folder of their server.
		Dir: filepath.Join(cluster.Dir(), "quire"), Overrides: slices.Concat(peer.OnBookies(cluster, quorums), overrides),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	q := &quire{t: t, cluster: cluster, server: server}
	t.Cleanup(func() {
		if err := server.Kill(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the end of Quire's log:\n%s", server.Process().LogTail(40))
		}
	})
	q.client, err = kgo.NewClient(kgo.SeedBrokers(server.Addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.AlwaysRetryEOF(),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProduceRequestTimeout(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.client.Close)
	q.admin = kadm.NewClient(q.client)
	return q
}

// topic makes a topic of one partition whose ledgers roll at segmentBytes.
func (q *quire) topic(name string, segmentBytes int) string {
	q.t.Helper()
	created, err := q.admin.CreateTopic(step(q.t), 1, 1, map[string]*string{"segment.bytes": kadm.StringPtr(strconv.Itoa(segmentBytes))}, name)
	if err := errors.Join(err, created.Err); err != nil {
		q.t.Fatal(err)
	}
	return name
}

// value is the i-th value of a topic: unlike any other, and long.
func value(topic string, i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "<%s %d>", topic, i), 40)
}

// produce appends the values from from to to-1, so many at a time, each lot
// acknowledged before the next one is sent.
func (q *quire) produce(topic string, from, to, lot int) {
	q.t.Helper()
	ctx := step(q.t)
	for from < to {
		var records []*kgo.Record
		for first := from; from < min(to, first+lot); from++ {
			records = append(records, &kgo.Record{Topic: topic, Value: value(topic, from)})
		}
		if err := q.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			q.t.Fatalf("%d records of %s before %d: %v", len(records), topic, from, err)
		}
	}
}

// check reads a topic from offset first to its end and compares every value.
func (q *quire) check(topic string, first, end int) {
	q.t.Helper()
	reader, err := kgo.NewClient(kgo.SeedBrokers(q.server.Addr()), kgo.AlwaysRetryEOF(), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(int64(first))}}))
	if err != nil {
		q.t.Fatal(err)
	}
	defer reader.Close()
	next := first
	for ctx := step(q.t); next < end; {
		fetches := reader.PollFetches(ctx)
		if err := errors.Join(fetches.Err(), ctx.Err()); err != nil {
			q.t.Fatalf("read %s at offset %d: %v", topic, next, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset != int64(next) || !bytes.Equal(r.Value, value(topic, next)) {
				q.t.Fatalf("%s: offset %d with %.60q, want offset %d with %.60q", topic, r.Offset, r.Value, next, value(topic, next))
			}
			next++
		})
	}
}

// restart ends the server with SIGKILL and starts it again: what it had in
// memory is gone.
func (q *quire) restart() {
	q.t.Helper()
	if err := q.server.Kill(); err != nil {
		q.t.Fatal(err)
	}
	if err := q.server.Start(step(q.t)); err != nil {
		q.t.Fatal(err)
	}
}

// id is the topic's, as ledgers' metadata name it.
func (q *quire) id(topic string) string {
	q.t.Helper()
	topics, err := q.admin.ListTopics(step(q.t), topic)
	if err := errors.Join(err, topics[topic].Err); err != nil {
		q.t.Fatal(err)
	}
	return fmt.Sprintf("%x", [16]byte(topics[topic].ID))
}

// ledgers returns the ids of the ledgers whose metadata name the topic.
func (q *quire) ledgers(topic string) []int64 {
	q.t.Helper()
	name := []byte(q.id(topic))
	all, err := q.cluster.Ledgers(step(q.t))
	if err != nil {
		q.t.Fatal(err)
	}
	var ids []int64
	for id, metadata := range all {
		if bytes.Contains(metadata, name) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// holders counts the bookies that answer a read of a ledger's first entry with code.
func (q *quire) holders(ctx context.Context, ledger int64, code int32) (count int, err error) {
	for _, b := range q.cluster.Bookies {
		got, _, err := b.ReadEntry(ctx, ledger, 0)
		if err != nil {
			return 0, err
		}
		if got == code {
			count++
		}
	}
	return count, nil
}

func (q *quire) waitFor(what string, cond func(context.Context) (bool, error)) {
	q.t.Helper()
	if err := q.cluster.WaitFor(step(q.t), what, cond); err != nil {
		q.t.Fatal(err)
	}
}

// collected waits until the bookies have collected garbage since now: a ledger
// without metadata, written here, is gone from all of them.
func (q *quire) collected(j *javaClient) {
	q.t.Helper()
	id := j.do("create CRC32C - 3 3 3")
	j.do("add", id, 2, 100)
	j.do("close", id)
	ledger, _ := strconv.ParseInt(id, 10, 64)
	if err := q.cluster.DropLedger(step(q.t), ledger); err != nil {
		q.t.Fatal(err)
	}
	for range 2 { // the second round began after the first one had ended
		q.waitFor("no bookie collects garbage", func(ctx context.Context) (bool, error) {
			n, err := q.holders(ctx, ledger, peer.BookieNoLedger)
			return n == len(q.cluster.Bookies), err
		})
	}
}

// What Quire writes is an ordinary ledger to everything else: the bookies'
// garbage collection keeps it, their shell and the Java client read it, and it
// goes from the bookies when the topic or its first records go.
func TestLedgersOfATopic(t *testing.T) {
	q := quireOn(t, shared(t), threeThreeTwo)
	const records = 3000
	topic := q.topic("readable", 1<<18)
	q.produce(topic, 0, records, 200)
	q.restart()
	q.check(topic, 0, records)
	// A ledger that was made just before the kill is in no chain, and has no entry: the
	// janitor takes it after its time of grace.
	ids := slices.DeleteFunc(q.ledgers(topic), func(id int64) bool {
		n, err := q.holders(step(t), id, peer.BookieNoLedger)
		if err != nil {
			t.Fatal(err)
		}
		return n == len(q.cluster.Bookies)
	})
	if len(ids) < 2 {
		t.Fatalf("ledgers that name the topic: %v, want several", ids)
	}
	reader := java(t, q.cluster, "v2")
	q.collected(reader)
	for _, id := range ids {
		if n, err := q.holders(step(t), id, peer.BookieOK); err != nil || n < threeThreeTwo[2] {
			t.Errorf("ledger %d: %d bookies have its first entry after garbage collection, error %v", id, n, err)
		}
	}
	q.restart()
	q.check(topic, 0, records)

	var inJava int
	for _, id := range ids {
		confirmed := reader.do("open", id, "CRC32C - look")
		last, _, _ := strings.Cut(confirmed, " ")
		if last == "-1" {
			continue // the open ledger, nothing of which is known to be acknowledged
		}
		words := strings.Fields(reader.do("read", id, 0, last))
		n, err := strconv.Atoi(words[1])
		if err != nil {
			t.Fatal(err)
		}
		inJava += n
		custom := reader.do("custom", id)
		for _, want := range []string{"application=quire", q.id(topic)} {
			if !strings.Contains(custom, want) {
				t.Errorf("custom metadata of ledger %d: %s, want %s in it", id, custom, want)
			}
		}
	}
	if want := records * len(value(topic, 1)) / 2; inJava < want {
		t.Errorf("the Java client reads %d bytes out of the topic's ledgers, want at least %d", inJava, want)
	}
	first := strconv.FormatInt(ids[0], 10)
	type call struct {
		command []string
		want    string
	}
	calls := []call{{[]string{"ledgermetadata", "-ledgerid", first}, "state=CLOSED"}}
	if full {
		calls = append(calls, call{[]string{"readledger", "-ledgerid", first, "-msg"}, "readable"}, call{[]string{"listunderreplicated"}, ""})
	}
	for _, c := range calls {
		out, err := q.cluster.Shell(step(t), c.command...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: error %v, want %q in\n%s", c.command, err, c.want, out)
		}
	}
	if marked, err := q.cluster.Marked(step(t)); err != nil || len(marked) > 0 {
		t.Errorf("under-replicated: %v, error %v", marked, err)
	}

	half := int64(records / 2)
	deleted, err := q.admin.DeleteRecords(step(t), kadm.Offsets{topic: {0: {Topic: topic, At: half}}})
	if err := errors.Join(err, deleted.Error()); err != nil {
		t.Fatal(err)
	}
	q.gone(ids[:1])
	q.check(topic, int(half), records)
	if _, err := q.admin.DeleteTopic(step(t), topic); err != nil {
		t.Fatal(err)
	}
	q.gone(ids)
}

// gone waits until ledgers are nowhere any more, neither in etcd nor on bookies.
func (q *quire) gone(ids []int64) {
	q.t.Helper()
	for _, id := range ids {
		q.waitFor(fmt.Sprintf("ledger %d is not deleted", id), func(ctx context.Context) (bool, error) {
			all, err := q.cluster.Ledgers(ctx)
			_, there := all[id]
			return !there, err
		})
		q.waitFor(fmt.Sprintf("bookies still have ledger %d", id), func(ctx context.Context) (bool, error) {
			n, err := q.holders(ctx, id, peer.BookieNoLedger)
			return n == len(q.cluster.Bookies), err
		})
	}
}

// Another owner fences the ledger that is being written: Quire settles it, goes
// on in a new one, and every offset is there once.
func TestFencedByTheJavaClient(t *testing.T) {
	q := quireOn(t, shared(t), threeThreeTwo)
	other := java(t, q.cluster, "v3")
	topic := q.topic("fenced", 1<<30)
	const rounds, each = 3, 200
	for round := range rounds {
		q.produce(topic, round*each, (round+1)*each, 200)
		ids := q.ledgers(topic)
		if len(ids) != round+1 {
			t.Fatalf("ledgers: %v, want %d", ids, round+1)
		}
		other.do("open", ids[round], "CRC32C - recover")
	}
	q.produce(topic, rounds*each, (rounds+1)*each, 1)
	q.check(topic, 0, (rounds+1)*each)
	q.restart()
	q.check(topic, 0, (rounds+1)*each)
	if _, err := q.admin.DeleteTopic(step(t), topic); err != nil {
		t.Fatal(err)
	}
}

// A ledger deleted under its readers, as an operator may: the reader gets an
// error that it retries, and the server serves other topics.
func TestLedgerDeletedUnderAReader(t *testing.T) {
	q := quireOn(t, shared(t), threeThreeTwo)
	topic, other := q.topic("deleted-below", 1<<18), q.topic("beside", 1<<30)
	q.produce(topic, 0, 1500, 200)
	q.produce(other, 0, 100, 200)
	ids := q.ledgers(topic)
	if len(ids) < 2 {
		t.Fatalf("ledgers: %v, want several", ids)
	}
	if err := q.cluster.DropLedger(step(t), ids[0]); err != nil {
		t.Fatal(err)
	}
	q.restart()
	reader, err := kgo.NewClient(kgo.SeedBrokers(q.server.Addr()), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.KeepRetryableFetchErrors(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fetches := reader.PollFetches(step(t))
	if fetches.NumRecords() > 0 || fetches.Err() == nil {
		t.Errorf("a reader of what is gone gets %d records and error %v", fetches.NumRecords(), fetches.Err())
	}
	q.check(other, 0, 100)
	q.produce(other, 100, 200, 1)
	for _, name := range []string{topic, other} {
		if _, err := q.admin.DeleteTopic(step(t), name); err != nil {
			t.Fatal(err)
		}
	}
}

// One copy of what is on disk is not what was written: another one answers.
func TestCorruptCopies(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 3})
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("corrupt", 1<<18)
	const records = 2000
	q.produce(topic, 0, records, 200)
	for n, b := range cluster.Bookies[:2] {
		if err := b.Stop(step(t)); err != nil {
			t.Fatal(err)
		}
		// The first bookie loses the values with odd numbers, the second those
		// with even ones.
		damaged := 0
		for i := 1 - n; i < records; i += 2 {
			damaged += damage(t, b.Dir(), value(topic, i)[:20])
			if i > 100 {
				break
			}
		}
		if damaged == 0 {
			t.Fatalf("%s: no value was found on disk", b.ID)
		}
		if err := b.Start(step(t)); err != nil {
			t.Fatal(err)
		}
	}
	q.restart()
	q.check(topic, 0, records)
}

// damage flips a bit of every copy of needle in the files below dir and says how
// many there were.
func damage(t *testing.T, dir string, needle []byte) (count int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".log") && !strings.HasSuffix(path, ".txn") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		before := count
		for at := 0; ; at++ {
			i := bytes.Index(b[at:], needle)
			if i < 0 {
				break
			}
			at += i
			b[at] ^= 1
			count++
		}
		if count == before {
			return nil
		}
		return os.WriteFile(path, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// A bookie that takes no writes any more is replaced under the writer, new ledgers
// leave it alone, and what it holds is read.
func TestReadOnlyBookie(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 4})
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("read-only", 1<<18)
	const records = 1500
	q.produce(topic, 0, records, 200)
	b := cluster.Bookies[0]
	if err := b.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartReadOnly(step(t)); err != nil {
		t.Fatal(err)
	}
	q.waitFor(b.ID+" is not read-only", func(ctx context.Context) (bool, error) {
		_, readOnly, err := cluster.Registered(ctx, b)
		return readOnly, err
	})
	q.produce(topic, records, 2*records, 200)
	q.check(topic, 0, 2*records)
	q.restart()
	q.check(topic, 0, 2*records)
}

// Without enough bookies producers wait, and nothing else stops: they go on when
// bookies come back.
func TestTooFewBookies(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 3})
	for _, up := range []int{0, 1} {
		for _, b := range cluster.Bookies[up:] {
			if err := b.Stop(step(t)); err != nil {
				t.Fatal(err)
			}
		}
		q := quireOn(t, cluster, threeThreeTwo)
		topic := q.topic(fmt.Sprintf("waiting-%d", up), 1<<30)
		impatient, err := kgo.NewClient(kgo.SeedBrokers(q.server.Addr()), kgo.RecordRetries(0), kgo.RequestRetries(0), kgo.DefaultProduceTopic(topic))
		if err != nil {
			t.Fatal(err)
		}
		defer impatient.Close()
		if err := impatient.ProduceSync(step(t), &kgo.Record{Value: value(topic, 0)}).FirstErr(); !retriable(err) {
			t.Errorf("produce with %d bookies: %v, want an error that is retried", up, err)
		}
		for _, b := range cluster.Bookies[up:] {
			if err := b.Start(step(t)); err != nil {
				t.Fatal(err)
			}
		}
		q.produce(topic, 0, 10, 1)
		q.check(topic, 0, 10)
		if err := q.server.Kill(); err != nil {
			t.Fatal(err)
		}
	}
}

// Quorums that the cluster can never satisfy are refused at once, with the reason.
func TestImpossibleQuorums(t *testing.T) {
	cluster := shared(t)
	server, err := peer.NewQuire(t.Context(), peer.Options{Dir: t.TempDir(), Overrides: peer.OnBookies(cluster, [3]int{5, 3, 2})})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Kill()
	err = server.Start(step(t))
	if err == nil || server.Process().ExitCode() != 1 || !strings.Contains(server.Process().LogTail(1), "an ensemble of 5 bookies is impossible, the cluster has 3") {
		t.Errorf("Quire with 5 of 3 bookies: %v", err)
	}
}

// retriable says whether a client would have tried again.
func retriable(err error) bool {
	var code *kerr.Error
	return errors.As(err, &code) && code.Retriable
}

// A bookie that is lost for good after etcd was started anew, when no Java process
// hears of it any more: Quire marks its ledgers by itself, and what AutoRecovery
// does with the marks makes them whole.
func TestLostBookieIsReplaced(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 4, AutoRecovery: true})
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("repaired", 1<<18)
	const records = 2000
	q.produce(topic, 0, records, 200)
	if err := cluster.AutoRecovery.Kill(); err != nil {
		t.Fatal(err)
	}
	cluster.Etcd.Kill()
	if err := cluster.Etcd.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	lost := cluster.Bookies[1]
	if err := lost.Kill(); err != nil {
		t.Fatal(err)
	}
	named := func(ctx context.Context) (ids []int64, err error) {
		all, err := cluster.Ledgers(ctx)
		for id, metadata := range all {
			if bytes.Contains(metadata, []byte(lost.ID)) {
				ids = append(ids, id)
			}
		}
		return ids, err
	}
	q.produce(topic, records, 2*records, 200)
	// Quire bears a missing bookie for two minutes, and looks once a minute. What it
	// still writes to then ends with the next records.
	later := 2 * records
	const patience = 5 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := cluster.WaitFor(ctx, "the lost bookie's ledgers are not marked", func(ctx context.Context) (bool, error) {
		ids, err := named(ctx)
		marked, err2 := cluster.Marked(ctx)
		if len(marked) > 0 {
			q.produce(topic, later, later+1, 1)
			later++
		}
		for _, id := range ids {
			if !strings.Contains(marked[id], lost.ID) {
				return false, errors.Join(err, err2)
			}
		}
		return len(ids) > 0, errors.Join(err, err2)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.AutoRecovery.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	err = cluster.WaitFor(ctx, "the lost bookie's ledgers are not replicated anew", func(ctx context.Context) (bool, error) {
		left, err := named(ctx)
		return len(left) == 0, err
	})
	if err != nil {
		t.Fatal(err)
	}
	q.check(topic, 0, later)
	q.restart()
	q.check(topic, 0, later)
}
