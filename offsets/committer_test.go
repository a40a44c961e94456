package offsets

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/meta"
	"github.com/quirelog/quire/storage/meta/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a committer over a store that can be told to fail.
type fixture struct {
	t     *testing.T
	base  *mem.Store
	store *faulty
	c     *Committer
}

const prefix = "quire/c/"

func newFixture(t *testing.T, change ...func(*Config)) *fixture {
	base := mem.New(nil)
	x := &fixture{t: t, base: base, store: &faulty{Store: base}}
	config := Config{Store: x.store, Keys: Keys{Prefix: prefix}, Name: "1-0"}
	for _, f := range change {
		f(&config)
	}
	x.c = NewCommitter(config)
	t.Cleanup(func() { x.c.Close(t.Context()); base.Close() })
	return x
}

func ownerKey(slot int) string { return fmt.Sprintf("%sown/%04d", prefix, slot) }

// claim makes somebody the owner of a slot, by whatever was there.
func claim(t testing.TB, store meta.Store, slot int) meta.Cond {
	t.Helper()
	revision, _, err := store.Txn(context.Background(), nil, []meta.Op{meta.Put(ownerKey(slot), []byte("somebody"))})
	if err != nil {
		t.Fatal(err)
	}
	return meta.Cond{Key: ownerKey(slot), Modified: revision}
}

func (x *fixture) load(slot int) *Slot {
	x.t.Helper()
	s, err := x.c.Load(x.t.Context(), slot, claim(x.t, x.base, slot), func(string, []byte) error { return nil })
	if err != nil {
		x.t.Fatal(err)
	}
	return s
}

// reread is what a new owner finds.
func (x *fixture) reread(slot int) (records map[string]string, s *Slot) {
	x.t.Helper()
	c := NewCommitter(Config{Store: x.base, Keys: Keys{Prefix: prefix}, Name: "reader"})
	defer c.Close(x.t.Context())
	records = map[string]string{}
	s, err := c.Load(x.t.Context(), slot, meta.Cond{Key: ownerKey(slot)}, func(group string, record []byte) error {
		records[group] = string(record)
		return nil
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return records, s
}

func set(topic TopicID, partition int32, offset int64) Update {
	return Update{PartitionOffset: PartitionOffset{Partition{topic, partition}, Offset{Offset: offset, CommitTime: 1000, ExpireTime: NoExpireTime, LeaderEpoch: -1}}}
}

// answer is where an item's answer goes.
type answer chan error

func commit(t *testing.T, s *Slot, group string, updates ...Update) answer {
	t.Helper()
	a := make(answer, 1)
	if err := s.Commit(group, updates, func(err error) { a <- err }); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a answer) want(t *testing.T, want error) {
	t.Helper()
	if err := <-a; !errors.Is(err, want) {
		t.Fatalf("answer is %v, want %v", err, want)
	}
}

func wantOffset(t *testing.T, s *Slot, group string, topic TopicID, partition int32, want int64) {
	t.Helper()
	o, ok := s.Get(group, Partition{topic, partition})
	if want < 0 && ok || want >= 0 && (!ok || o.Offset != want) {
		t.Fatalf("offset of group %q partition %d is %d, %v, want %d", group, partition, o.Offset, ok, want)
	}
}

func TestCommitAndFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic, other := id(1), id(2)
		note := set(topic, 130, 7)
		note.Metadata, note.LeaderEpoch, note.ExpireTime = "note", 4, 99
		commit(t, s, "g", set(topic, 0, 5), note, set(other, 0, 9)).want(t, nil)
		commit(t, s, "", set(topic, 0, 1)).want(t, nil)
		_, again := x.reread(3)
		for _, s := range []*Slot{s, again} {
			if o, ok := s.Get("g", note.Partition); !ok || o != note.Offset {
				t.Fatalf("offset %+v, want %+v", o, note.Offset)
			}
			wantOffset(t, s, "g", topic, 0, 5)
			wantOffset(t, s, "", topic, 0, 1)
			wantOffset(t, s, "g", topic, 1, -1)
			wantOffset(t, s, "unknown", topic, 0, -1)
			var all []int64
			for p := range s.Group("g") {
				all = append(all, p.Offset.Offset)
			}
			var ofTopic []int32
			for p := range s.Topic("g", topic) {
				ofTopic = append(ofTopic, p)
			}
			if !slices.Equal(all, []int64{5, 7, 9}) || !slices.Equal(ofTopic, []int32{0, 130}) {
				t.Fatalf("group has offsets %v, the topic has partitions %v", all, ofTopic)
			}
			if !s.HasOffsets("g") || s.HasOffsets("unknown") {
				t.Fatal("HasOffsets is wrong")
			}
		}
	})
}

// Nothing is shown before it is committed, and what waits goes together.
func TestOneTransactionInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s, other := x.load(3), x.load(4)
		x.store.started, x.store.proceed = make(chan []meta.Op), make(chan struct{})
		topic := id(1)
		first := commit(t, s, "a", set(topic, 0, 1))
		<-x.store.started
		second := commit(t, s, "a", set(topic, 0, 2))
		third := commit(t, s, "a", set(topic, 1, 3))
		fourth := commit(t, other, "b", set(topic, 0, 4))
		fifth := commit(t, s, "a", set(topic, 0, 5))
		synctest.Wait()
		wantOffset(t, s, "a", topic, 0, -1)
		x.store.proceed <- struct{}{}
		first.want(t, nil)
		ops := <-x.store.started
		if len(ops) != 3 {
			t.Fatalf("four commits of two keys are %d operations, want these and the sequence", len(ops))
		}
		wantOffset(t, s, "a", topic, 0, 1)
		x.store.proceed <- struct{}{}
		for _, a := range []answer{second, third, fourth, fifth} {
			a.want(t, nil)
		}
		wantOffset(t, s, "a", topic, 0, 5)
		wantOffset(t, s, "a", topic, 1, 3)
		wantOffset(t, other, "b", topic, 0, 4)
		x.store.started = nil
	})
}

// A commit larger than a transaction takes several, in order.
func TestCommitOfManyTopics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		var updates []Update
		for i := range 300 {
			updates = append(updates, set(TopicID{byte(i), byte(i >> 8)}, int32(i), int64(i)))
		}
		a := commit(t, s, "g", updates...)
		b := commit(t, s, "h", set(id(9), 0, 1))
		a.want(t, nil)
		b.want(t, nil)
		if len(x.store.txns) != 3 {
			t.Fatalf("%d transactions, want 3", len(x.store.txns))
		}
		for i := range updates {
			wantOffset(t, s, "g", updates[i].Topic, int32(i), int64(i))
		}
	})
}

func TestUnchangedCommitWritesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic := id(1)
		commit(t, s, "g", set(topic, 0, 5)).want(t, nil)
		commit(t, s, "g", set(topic, 0, 5)).want(t, nil)
		if n := len(x.store.txns); n != 1 {
			t.Fatalf("%d writes for one offset twice, want 1", n)
		}
		later := set(topic, 0, 5)
		later.CommitTime += time.Hour.Milliseconds()
		commit(t, s, "g", later).want(t, nil)
		if o, _ := s.Get("g", later.Partition); o.CommitTime != later.CommitTime {
			t.Fatalf("commit time %d, want %d", o.CommitTime, later.CommitTime)
		}
		// The store going on elsewhere is nothing to the chain, compared or written.
		claim(t, x.base, 9)
		commit(t, s, "g", later).want(t, nil)
		commit(t, s, "g", set(topic, 0, 6)).want(t, nil)
		commit(t, s, "g", later).want(t, nil)
		// Who is not the owner any more does not say that it is stored.
		claim(t, x.base, 3)
		commit(t, s, "g", later).want(t, ErrNotOwner)
	})
}

func TestLostSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		lost, kept := x.load(3), x.load(4)
		topic := id(1)
		commit(t, lost, "a", set(topic, 0, 1)).want(t, nil)
		claim(t, x.base, 3)
		x.store.started, x.store.proceed = make(chan []meta.Op), make(chan struct{})
		first := commit(t, kept, "b", set(topic, 0, 1))
		<-x.store.started
		second := commit(t, lost, "a", set(topic, 0, 2))
		third := commit(t, kept, "b", set(topic, 0, 3))
		x.store.started = nil
		x.store.proceed <- struct{}{}
		first.want(t, nil)
		second.want(t, ErrNotOwner)
		third.want(t, nil)
		wantOffset(t, lost, "a", topic, 0, 1)
		if err := lost.Commit("a", nil, nil); !errors.Is(err, ErrNotOwner) {
			t.Fatalf("a commit after the loss: %v, want %v", err, ErrNotOwner)
		}
		_, again := x.reread(3)
		wantOffset(t, again, "a", topic, 0, 1)
	})
}

func TestGroupRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		put := func(group, record string) answer {
			a := make(answer, 1)
			if err := s.PutRecord(group, []byte(record), func(err error) { a <- err }); err != nil {
				t.Fatal(err)
			}
			return a
		}
		put("g", "one").want(t, nil)
		put("g", "two").want(t, nil)
		put("h", "").want(t, nil)
		commit(t, s, "g", set(id(1), 0, 1)).want(t, nil)
		commit(t, s, "simple", set(id(1), 0, 1)).want(t, nil)
		records, _ := x.reread(3)
		if len(records) != 3 || records["g"] != "two" {
			t.Fatalf("records are %q", records)
		}

		// Somebody writes the record behind the owner's back: that group stops,
		// and no other.
		key := Keys{Prefix: prefix}.Record(3, "g")
		if _, _, err := x.base.Txn(t.Context(), nil, []meta.Op{meta.Put(key, []byte("foreign"))}); err != nil {
			t.Fatal(err)
		}
		a, b := commit(t, s, "g", set(id(1), 0, 2)), commit(t, s, "h", set(id(1), 0, 3))
		a.want(t, ErrGroupChanged)
		b.want(t, nil)
		put("g", "mine").want(t, ErrGroupChanged)
		wantOffset(t, s, "g", id(1), 0, 1)
		done := make(chan []byte, 1)
		if err := s.Reload("g", func(record []byte, err error) {
			if err != nil {
				t.Error(err)
			}
			done <- record
		}); err != nil {
			t.Fatal(err)
		}
		if got := <-done; string(got) != "foreign" {
			t.Fatalf("reloaded record is %q", got)
		}
		put("g", "three").want(t, nil)
		commit(t, s, "g", set(id(1), 0, 2)).want(t, nil)

		// The order of the calls is the order in the store.
		last := []answer{put("g", "four"), commit(t, s, "g", set(id(1), 1, 9))}
		deleted := make(answer, 1)
		if err := s.DeleteRecord("g", func(err error) { deleted <- err }); err != nil {
			t.Fatal(err)
		}
		for _, a := range append(last, deleted, put("g", "five")) {
			a.want(t, nil)
		}
		records, again := x.reread(3)
		if records["g"] != "five" {
			t.Fatalf("records are %q", records)
		}
		wantOffset(t, again, "g", id(1), 1, 9)
	})
}

func TestDeleteGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		done := func(a answer) func(error) { return func(err error) { a <- err } }
		var updates []Update
		for i := range 300 {
			updates = append(updates, set(TopicID{byte(i), byte(i >> 8)}, int32(i), int64(i)))
		}
		commit(t, s, "g", updates...).want(t, nil)
		commit(t, s, "g/x", updates[0]).want(t, nil)
		commit(t, s, "gx", updates[0]).want(t, nil)
		before := len(x.store.txns)

		// Queued together: what comes before is gone with the group, what comes after stays.
		x.store.started, x.store.proceed = make(chan []meta.Op), make(chan struct{})
		answers := []answer{commit(t, s, "gx", set(id(2), 0, 5))}
		<-x.store.started
		record, deleted := make(answer, 1), make(answer, 1)
		answers = append(answers, commit(t, s, "g", set(id(2), 0, 6)), record, deleted)
		if err := errors.Join(s.PutRecord("g", []byte("r"), done(record)), s.DeleteGroup("g", done(deleted))); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, commit(t, s, "g", set(id(2), 0, 7)))
		x.store.started = nil
		x.store.proceed <- struct{}{}
		for _, a := range answers {
			a.want(t, nil)
		}
		if n := len(x.store.txns) - before; n != 3 {
			t.Fatalf("%d transactions, want 3", n)
		}
		records, again := x.reread(3)
		if _, ok := records["g"]; !ok || records["g"] != "" || len(records) != 3 {
			t.Fatalf("records are %q", records)
		}
		for _, s := range []*Slot{s, again} {
			wantOffset(t, s, "g", id(2), 0, 7)
			wantOffset(t, s, "g", updates[0].Topic, 0, -1)
			wantOffset(t, s, "g/x", updates[0].Topic, 0, 0)
			wantOffset(t, s, "gx", updates[0].Topic, 0, 0)
		}
	})
}

// A removal of what expired does not take a commit with it that came meanwhile.
func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic := id(1)
		commit(t, s, "g", set(topic, 0, 5), set(topic, 1, 6), set(topic, 2, 7)).want(t, nil)
		facts := GroupFacts{State: Empty}
		expired := Expired(10_000, 1000, &facts, s.Group("g"))
		if len(expired) != 3 {
			t.Fatalf("%d offsets expired, want 3", len(expired))
		}
		meanwhile := set(topic, 1, 6)
		meanwhile.CommitTime = 9_999_000
		for _, a := range []answer{
			commit(t, s, "g", meanwhile),
			commit(t, s, "g", expired...),
			commit(t, s, "g", Update{PartitionOffset: PartitionOffset{Partition: Partition{topic, 2}}, Action: Remove}),
		} {
			a.want(t, nil)
		}
		_, again := x.reread(3)
		for _, s := range []*Slot{s, again} {
			wantOffset(t, s, "g", topic, 0, -1)
			wantOffset(t, s, "g", topic, 1, 6)
			wantOffset(t, s, "g", topic, 2, -1)
		}
		commit(t, s, "g", Update{PartitionOffset: PartitionOffset{Partition: Partition{topic, 1}}, Action: Remove}).want(t, nil)
		records, _ := x.reread(3)
		if s.HasOffsets("g") || len(records) != 0 {
			t.Fatalf("the group still has offsets, or keys: %v", records)
		}
	})
}

func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic := id(1)
		commit(t, s, "g", set(topic, 0, 1)).want(t, nil)
		x.store.away = true
		start := time.Now()
		commit(t, s, "g", set(topic, 0, 2)).want(t, ErrUnavailable)
		if waited := time.Since(start); waited != 5*time.Second {
			t.Fatalf("answered after %v, want 5 s", waited)
		}
		back := commit(t, s, "g", set(topic, 1, 3))
		time.Sleep(4 * time.Second) // of the bubble's clock: how long the store is away
		x.store.heal()
		back.want(t, nil)
		if waited := time.Since(start); waited >= 10*time.Second {
			t.Fatalf("answered after %v", waited)
		}
		wantOffset(t, s, "g", topic, 0, 1)
	})
}

// Nothing that hangs holds an answer back for longer than CommitTimeout, and
// what is not known is not claimed.
func TestStoreHangs(t *testing.T) {
	for _, test := range []struct {
		fault  fault
		stored int64
	}{{noAnswer, 1}, {noAnswerDone, 2}, {noAnswerLate, 1}} {
		synctest.Test(t, func(t *testing.T) {
			x := newFixture(t)
			s := x.load(3)
			topic := id(1)
			commit(t, s, "g", set(topic, 0, 1)).want(t, nil)
			x.store.plan = append([]fault{test.fault}, slices.Repeat([]fault{noAnswer}, 10)...)
			start := time.Now()
			first := commit(t, s, "g", set(topic, 0, 2))
			time.Sleep(time.Second) // of the bubble's clock: so much later the second waits
			second := commit(t, s, "g", set(topic, 1, 3))
			first.want(t, ErrUnknownOutcome)
			if waited := time.Since(start); waited != 5*time.Second {
				t.Fatalf("answered after %v, want 5 s", waited)
			}
			second.want(t, ErrUnavailable)
			if waited := time.Since(start); waited != 6*time.Second {
				t.Fatalf("answered after %v, want 6 s", waited)
			}
			wantOffset(t, s, "g", topic, 0, 1)
			_, again := x.reread(3)
			wantOffset(t, again, "g", topic, 0, test.stored)
			// When the store is back, the chain goes on from what it has.
			x.store.heal()
			commit(t, s, "g", set(topic, 1, 4)).want(t, nil)
			x.store.flush()
			_, again = x.reread(3)
			for _, s := range []*Slot{s, again} {
				wantOffset(t, s, "g", topic, 0, 2)
				wantOffset(t, s, "g", topic, 1, 4)
			}
		})
	}
}

// A transaction that is executed after a later one was acknowledged would roll
// it back.
func TestLateTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic := id(1)
		commit(t, s, "g", set(topic, 0, 1)).want(t, nil)
		x.store.plan = []fault{unknownLate}
		commit(t, s, "g", set(topic, 0, 2)).want(t, nil)
		commit(t, s, "g", set(topic, 0, 3)).want(t, nil)
		x.store.flush()
		_, again := x.reread(3)
		wantOffset(t, again, "g", topic, 0, 3)
	})
}

func TestNoSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic := id(1)
		start := time.Now()
		x.store.plan = []fault{noSpace}
		commit(t, s, "g", set(topic, 0, 1)).want(t, ErrNoSpace)
		wantOffset(t, s, "g", topic, 0, -1)
		x.store.plan = []fault{noSpaceDone}
		commit(t, s, "g", set(topic, 0, 2)).want(t, nil)
		wantOffset(t, s, "g", topic, 0, 2)
		if waited := time.Since(start); waited != 0 {
			t.Fatalf("answered after %v, want at once", waited)
		}
	})
}

// A store without space still takes what only removes, also when it comes
// together with what does not.
func TestNoSpaceDeletes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic := id(1)
		for _, group := range []string{"gone", "empty", "part", "live"} {
			commit(t, s, group, set(topic, 0, 1), set(topic, 1, 2)).want(t, nil)
		}
		x.store.started, x.store.proceed = make(chan []meta.Op), make(chan struct{})
		first := commit(t, s, "live", set(topic, 0, 5))
		<-x.store.started
		// All of these wait, and go in one transaction.
		remove := func(partitions ...int32) (all []Update) {
			for _, p := range partitions {
				all = append(all, Update{PartitionOffset: PartitionOffset{Partition: Partition{topic, p}}, Action: Remove})
			}
			return all
		}
		gone := make(answer, 1)
		lost := commit(t, s, "live", set(topic, 0, 6))
		if err := s.DeleteGroup("gone", func(err error) { gone <- err }); err != nil {
			t.Fatal(err)
		}
		empty, part := commit(t, s, "empty", remove(0, 1)...), commit(t, s, "part", remove(0)...)
		lostToo := commit(t, s, "live", set(topic, 1, 6))
		x.store.proceed <- struct{}{}
		first.want(t, nil)
		ops := <-x.store.started
		if len(ops) < 5 {
			t.Fatalf("the transaction has %d operations, want all that waits", len(ops))
		}
		x.store.started, x.store.full = nil, true
		x.store.proceed <- struct{}{}

		lost.want(t, ErrNoSpace)
		gone.want(t, nil)
		empty.want(t, nil)
		part.want(t, ErrNoSpace) // what is left of the key is a put
		lostToo.want(t, ErrNoSpace)
		wantOffset(t, s, "gone", topic, 0, -1)
		wantOffset(t, s, "empty", topic, 1, -1)
		wantOffset(t, s, "part", topic, 0, 1)
		wantOffset(t, s, "live", topic, 0, 5)

		x.store.full = false
		commit(t, s, "live", set(topic, 0, 7)).want(t, nil)
		commit(t, s, "gone", set(topic, 0, 8)).want(t, nil)
		_, again := x.reread(3)
		wantOffset(t, again, "live", topic, 0, 7)
		wantOffset(t, again, "gone", topic, 0, 8)
		wantOffset(t, again, "gone", topic, 1, -1)
		wantOffset(t, again, "empty", topic, 0, -1)
		wantOffset(t, again, "part", topic, 0, 1)
	})
}

// A deletion whose outcome is not known is repeated until it is, and an attempt
// of it that comes late does not reach what was committed afterwards.
func TestLateDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		topic := id(1)
		commit(t, s, "g", set(topic, 0, 1)).want(t, nil)
		x.store.plan = []fault{unknownLate}
		commit(t, s, "g", Update{PartitionOffset: PartitionOffset{Partition: Partition{topic, 0}}, Action: Remove}).want(t, nil)
		wantOffset(t, s, "g", topic, 0, -1)
		commit(t, s, "g", set(topic, 0, 3)).want(t, nil)
		x.store.flush()
		_, again := x.reread(3)
		wantOffset(t, again, "g", topic, 0, 3)
	})
}

func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t, func(c *Config) { c.MaxQueuedBytes = 3 << 20 })
		s := x.load(3)
		none := func(error) { t.Error("answered") }
		if err := s.PutRecord("g", make([]byte, meta.MaxValueBytes+1), none); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("a record too large: %v", err)
		}
		if err := s.PutRecord(strings.Repeat("g", 4<<20), nil, none); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("an item too large: %v", err)
		}
		huge := set(id(1), 0, 1)
		huge.Metadata = strings.Repeat("m", meta.MaxValueBytes)
		a, b := commit(t, s, "g", huge), commit(t, s, "g", set(id(1), 1, 2))
		a.want(t, ErrTooLarge)
		b.want(t, nil)
		wantOffset(t, s, "g", id(1), 0, -1)

		// Two that do not fit into one transaction are two.
		record := bytes.Repeat([]byte("r"), meta.MaxValueBytes)
		answers := make(answer, 2)
		for _, group := range []string{"g", "h"} {
			if err := s.PutRecord(group, record, func(err error) { answers <- err }); err != nil {
				t.Fatal(err)
			}
		}
		answers.want(t, nil)
		answers.want(t, nil)
	})
}

// limited is a store set up with lower limits.
type limited struct {
	meta.Store
	ops int
}

func (l limited) Txn(ctx context.Context, conds []meta.Cond, ops []meta.Op) (meta.Revision, bool, error) {
	if len(conds) > l.ops || len(ops) > l.ops {
		return 0, false, meta.ErrTooLarge
	}
	return l.Store.Txn(ctx, conds, ops)
}

func TestStoreWithLowerLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t, func(c *Config) { c.Store = limited{c.Store, 8} })
		s := x.load(3)
		var updates []Update
		for i := range 100 {
			updates = append(updates, set(TopicID{byte(i)}, 0, 1))
		}
		a := commit(t, s, "g", updates...)
		b := commit(t, s, "h", set(id(1), 0, 2))
		a.want(t, nil)
		b.want(t, nil)
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t, func(c *Config) { c.MaxQueuedItems = 2 })
		s := x.load(3)
		x.store.away = true
		a, b := commit(t, s, "g", set(id(1), 0, 1)), commit(t, s, "g", set(id(1), 0, 2))
		if err := s.Commit("g", nil, nil); !errors.Is(err, ErrQueueFull) {
			t.Fatalf("a third item: %v, want %v", err, ErrQueueFull)
		}
		a.want(t, ErrUnavailable)
		b.want(t, ErrUnavailable)
		x.store.heal()
		commit(t, s, "g", set(id(1), 0, 3)).want(t, nil)
	})
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t, func(c *Config) { c.MaxQueuedBytes = 1000 })
		s := x.load(3)
		x.store.away = true
		long := set(id(1), 0, 1)
		long.Metadata = strings.Repeat("x", 400)
		a := commit(t, s, "g", long)
		if err := s.Commit("g", []Update{long}, nil); !errors.Is(err, ErrQueueFull) {
			t.Fatalf("too many bytes: %v, want %v", err, ErrQueueFull)
		}
		a.want(t, ErrUnavailable)
	})
}

func TestRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s, other := x.load(3), x.load(4)
		x.store.started, x.store.proceed = make(chan []meta.Op), make(chan struct{})
		inFlight := commit(t, s, "g", set(id(1), 0, 1))
		<-x.store.started
		waiting, kept := commit(t, s, "g", set(id(1), 0, 2)), commit(t, other, "g", set(id(1), 0, 3))
		s.Release()
		waiting.want(t, ErrNotOwner) // although nothing moves
		x.store.started = nil
		x.store.proceed <- struct{}{}
		inFlight.want(t, nil)
		kept.want(t, nil)
		s.Release()
	})
}

// Loading a slot again, by the same claim, waits for what is in flight.
func TestLoadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		owner := claim(t, x.base, 3)
		nothing := func(string, []byte) error { return nil }
		s, err := x.c.Load(t.Context(), 3, owner, nothing)
		if err != nil {
			t.Fatal(err)
		}
		x.store.started, x.store.proceed = make(chan []meta.Op), make(chan struct{})
		inFlight := commit(t, s, "g", set(id(1), 0, 1))
		<-x.store.started
		loaded := make(chan *Slot)
		go func() {
			s, err := x.c.Load(t.Context(), 3, owner, nothing)
			if err != nil {
				t.Error(err)
			}
			loaded <- s
		}()
		synctest.Wait()
		x.store.started = nil
		x.store.proceed <- struct{}{}
		inFlight.want(t, nil)
		s = <-loaded
		wantOffset(t, s, "g", id(1), 0, 1)
		commit(t, s, "g", set(id(1), 1, 2)).want(t, nil)
		_, again := x.reread(3)
		wantOffset(t, again, "g", id(1), 0, 1)
	})
}

// Whoever writes the sequence key of a running committer makes its tables
// doubtful: all slots are given up, and can be loaded again.
func TestSequenceOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s, other := x.load(3), x.load(4)
		commit(t, s, "g", set(id(1), 0, 1)).want(t, nil)
		key := Keys{Prefix: prefix}.Sequence("1-0")
		if _, _, err := x.base.Txn(t.Context(), nil, []meta.Op{meta.Put(key, nil)}); err != nil {
			t.Fatal(err)
		}
		commit(t, s, "g", set(id(1), 0, 2)).want(t, ErrNotOwner)
		if err := other.Commit("g", nil, nil); !errors.Is(err, ErrNotOwner) {
			t.Fatalf("the other slot: %v, want %v", err, ErrNotOwner)
		}
		s = x.load(3)
		wantOffset(t, s, "g", id(1), 0, 1)
		commit(t, s, "g", set(id(1), 0, 3)).want(t, nil)

		// A slot that is being read meanwhile is doubtful too.
		other = x.load(4)
		_, err := x.c.Load(t.Context(), 3, claim(t, x.base, 3), func(string, []byte) error {
			if _, _, err := x.base.Txn(t.Context(), nil, []meta.Op{meta.Put(key, nil)}); err != nil {
				t.Fatal(err)
			}
			commit(t, other, "g", set(id(1), 0, 2)).want(t, ErrNotOwner)
			return nil
		})
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("Load gives %v, want %v", err, ErrUnavailable)
		}
		wantOffset(t, x.load(3), "g", id(1), 0, 3)
	})
}

func TestLoadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		nothing := func(string, []byte) error { return nil }
		stop := errors.New("stop")
		commit(t, x.load(3), "g", set(id(1), 0, 1)).want(t, nil)
		if _, err := x.c.Load(t.Context(), 3, claim(t, x.base, 3), func(string, []byte) error { return stop }); !errors.Is(err, stop) {
			t.Fatalf("Load gives %v, want the callback's error", err)
		}
		x.store.plan = []fault{none, unavailable}
		if _, err := x.c.Load(t.Context(), 3, claim(t, x.base, 3), nothing); !errors.Is(err, meta.ErrUnavailable) {
			t.Fatalf("Load gives %v, want %v", err, meta.ErrUnavailable)
		}
		k := Keys{Prefix: prefix}
		// One group that is not readable when it is read again.
		s := x.load(9)
		if _, _, err := x.base.Txn(t.Context(), nil, []meta.Op{meta.Put(k.GroupOffsets(9, "g")+"x/0", nil)}); err != nil {
			t.Fatal(err)
		}
		a := make(answer, 1)
		if err := s.Reload("g", func(_ []byte, err error) { a <- err }); err != nil {
			t.Fatal(err)
		}
		a.want(t, ErrFormat)
	})
}

// One key that cannot be read is left out, and named; the others are there.
func TestUnreadableKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		k := Keys{Prefix: prefix}
		for slot, c := range map[int]struct {
			bad      meta.Op
			hasGroup bool
		}{
			5: {meta.Put(k.GroupOffsets(5, "g")+"x/0", nil), true},
			6: {meta.Put(string(appendChunk([]byte(k.GroupOffsets(6, "g")), &TopicID{}, 0)), []byte{9}), true},
			7: {meta.Put(k.Records(7)+"a%2", nil), false},
			8: {meta.Put(string(appendChunk([]byte(k.Offsets(8)+"a%2/"), &TopicID{}, 0)), []byte{chunkVersion, 0, 0, 0, 0}), false},
		} {
			commit(t, x.load(slot), "other", set(id(1), 0, 1)).want(t, nil)
			if _, _, err := x.base.Txn(t.Context(), nil, []meta.Op{c.bad}); err != nil {
				t.Fatal(err)
			}
			s := x.load(slot)
			wantOffset(t, s, "other", id(1), 0, 1)
			bad := s.Unreadable()
			if len(bad) != 1 || !errors.Is(bad[0].Err, ErrFormat) || !strings.Contains(bad[0].Err.Error(), c.bad.Key) || bad[0].HasGroup != c.hasGroup || c.hasGroup && bad[0].Group != "g" {
				t.Errorf("with key %s unreadable are %+v", c.bad.Key, bad)
			}
			// Deleting its group is the way out.
			if c.hasGroup {
				a := make(answer, 1)
				if err := s.DeleteGroup("g", func(err error) { a <- err }); err != nil {
					t.Fatal(err)
				}
				a.want(t, nil)
				if bad := x.load(slot).Unreadable(); len(bad) != 0 {
					t.Errorf("after the group's deletion unreadable are %+v", bad)
				}
			}
		}
	})
}

func TestClose(t *testing.T) {
	// What waits is finished.
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		x.store.plan = []fault{unavailable, unknownLost, unavailable}
		a := commit(t, s, "g", set(id(1), 0, 1))
		x.c.Close(t.Context())
		a.want(t, nil)
		if err := s.Commit("g", nil, nil); !errors.Is(err, ErrClosed) {
			t.Fatalf("a commit after Close: %v, want %v", err, ErrClosed)
		}
		if _, err := x.c.Load(t.Context(), 3, meta.Cond{}, nil); !errors.Is(err, ErrClosed) {
			t.Fatalf("Load after Close: %v, want %v", err, ErrClosed)
		}
	})
	// Or answered, when it takes too long.
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		commit(t, s, "g", set(id(1), 0, 1)).want(t, nil)
		x.store.plan = []fault{noAnswer, noAnswer, noAnswer}
		inFlight := commit(t, s, "g", set(id(1), 0, 2))
		synctest.Wait()
		waiting := commit(t, s, "g", set(id(1), 1, 1))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		x.c.Close(ctx)
		inFlight.want(t, ErrUnknownOutcome)
		waiting.want(t, ErrClosed)
	})
	// Or not at all, when nobody waits any more.
	synctest.Test(t, func(t *testing.T) {
		x := newFixture(t)
		s := x.load(3)
		commit(t, s, "g", set(id(1), 0, 1)).want(t, nil)
		x.store.plan = slices.Repeat([]fault{noAnswer}, 1000)
		commit(t, s, "g", set(id(1), 0, 2)).want(t, ErrUnknownOutcome)
		x.c.Close(t.Context())
	})
}
