package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/storage/ledger"
)

// broken returns a batch of three records after f has changed it; its CRC is
// right unless f spoils it by spoil.
func broken(h batch.Header, f func(b batch.Batch) batch.Batch) batch.Batch {
	b := makeBatch(h, 1_700_000_000_000, 3, "v")
	if f != nil {
		b = f(b)
	}
	// A timestamp that is not there yet makes SetMaxTimestamp sum again.
	t := b.MaxTimestamp()
	binary.BigEndian.PutUint64(b[35:], uint64(t+1))
	if !b.LogAppendTime() {
		b.SetMaxTimestamp(t)
	} else {
		b.SetLogAppendTime(t)
	}
	return b
}

func poke(at int, v ...byte) func(batch.Batch) batch.Batch {
	return func(b batch.Batch) batch.Batch {
		copy(b[at:], v)
		return b
	}
}

func TestOneBatch(t *testing.T) {
	b := makeBatch(batch.Plain, 1, 1, "v")
	short := append([]byte(nil), b...)
	binary.BigEndian.PutUint32(short[8:], 3)
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"one", b, nil},
		{"none", nil, batch.ErrInvalid},
		{"two", append(append([]byte(nil), b...), b...), batch.ErrInvalid},
		{"trailing bytes", append(append([]byte(nil), b...), 1, 2, 3), nil},
		{"a second one, cut off", append(append([]byte(nil), b...), b[:len(b)-1]...), nil},
		{"a second one, of size 0", append(append([]byte(nil), b...), make([]byte, 20)...), batch.ErrCorrupt},
		{"a second one, of magic 3", append(append([]byte(nil), b...), poke(16, 3)(append(batch.Batch(nil), b[:20]...))...), batch.ErrCorrupt},
		{"a second one, of magic 1", append(append([]byte(nil), b...), poke(16, 1)(append(batch.Batch(nil), b...))...), batch.ErrInvalid},
		{"magic 1", poke(16, 1)(append(batch.Batch(nil), b...)), batch.ErrInvalid},
		{"magic 3", poke(16, 3)(append(batch.Batch(nil), b...)), batch.ErrCorrupt},
		{"length below the minimum", short, batch.ErrCorrupt},
		{"cut off", b[:len(b)-1], batch.ErrInvalid},
	} {
		got, err := OneBatch(c.in)
		if !errors.Is(err, c.want) || err == nil && len(got) != len(b) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestProduceChecks has a row for each check that Append makes, in its order.
func TestProduceChecks(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	zstd := batch.Header{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Codec: batch.Zstd}
	verified := func(c *LogConfig) { c.VerifyCompressed = true }
	fewer := func(b batch.Batch) batch.Batch {
		copy(b[57:], []byte{0, 0, 0, 4})
		copy(b[23:], []byte{0, 0, 0, 3})
		return b
	}
	for _, c := range []struct {
		name   string
		b      batch.Batch
		conf   func(*LogConfig)
		want   error
		faults []int32
	}{
		{name: "good", b: broken(batch.Plain, nil)},
		{name: "good, compressed", b: broken(zstd, nil)},
		{name: "base offset", b: broken(batch.Header{BaseOffset: 5, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}, nil), want: batch.ErrInvalid},
		{name: "max.message.bytes", b: broken(batch.Plain, nil), conf: func(c *LogConfig) { c.MaxMessageBytes = 80 }, want: ErrMessageTooLarge},
		{name: "max.message.bytes comes before the CRC", b: poke(60, 9)(broken(batch.Plain, nil)), conf: func(c *LogConfig) { c.MaxMessageBytes = 80 }, want: ErrMessageTooLarge},
		{name: "segment.bytes", b: broken(batch.Plain, nil), conf: func(c *LogConfig) { c.SegmentBytes = 80 }, want: ErrListTooLarge},
		{name: "CRC", b: poke(70, 9)(broken(batch.Plain, nil)), want: batch.ErrCorrupt},
		{name: "no header", b: broken(batch.Plain, nil)[:40], want: batch.ErrCorrupt},
		{name: "cut off", b: broken(batch.Plain, nil)[:90], want: batch.ErrCorrupt},
		{name: "no records", b: broken(batch.Plain, poke(57, 0, 0, 0, 0)), want: batch.ErrInvalid},
		{name: "negative last offset delta", b: broken(batch.Plain, poke(23, 255, 255, 255, 255)), want: batch.ErrInvalid},
		{name: "last offset delta and count", b: broken(batch.Plain, poke(23, 0, 0, 0, 5)), want: batch.ErrInvalid},
		{name: "control batch", b: broken(batch.Header{ProducerID: 1, Control: true}, nil), want: batch.ErrInvalid},
		{name: "producer without sequence", b: broken(idempotent(1, 0, -1), nil), want: batch.ErrInvalid},
		{name: "transaction without producer", b: broken(batch.Header{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Transactional: true}, nil), want: batch.ErrInvalid},
		{name: "unknown codec", b: broken(batch.Plain, poke(21, 0, 5)), want: batch.ErrUnknownCodec},
		{name: "LogAppendTime", b: broken(batch.Plain, poke(21, 0, 8)), want: batch.ErrTimestamp, faults: []int32{0, 1, 2}},
		{name: "no key in a compacted topic", b: broken(batch.Plain, nil), conf: func(c *LogConfig) { c.Compact = true }, want: batch.ErrInvalid, faults: []int32{0, 1, 2}},
		{name: "no key in a compacted topic, compressed", b: broken(zstd, nil), conf: func(c *LogConfig) { c.Compact = true }, want: batch.ErrInvalid, faults: []int32{0, 1, 2}},
		{name: "too old", b: makeBatch(batch.Plain, now.UnixMilli()-101, 3, "v"), conf: func(c *LogConfig) { c.TimestampBeforeMax = 100 * time.Millisecond }, want: batch.ErrTimestamp, faults: []int32{0}},
		{name: "too old, compressed", b: makeBatch(zstd, now.UnixMilli()-101, 3, "v"), conf: func(c *LogConfig) { c.TimestampBeforeMax = 100 * time.Millisecond }, want: batch.ErrTimestamp, faults: []int32{0}},
		{name: "too new", b: makeBatch(batch.Plain, now.UnixMilli()+99, 3, "v"), conf: func(c *LogConfig) { c.TimestampAfterMax = 100 * time.Millisecond }, want: batch.ErrTimestamp, faults: []int32{2}},
		{name: "too new, compressed", b: makeBatch(zstd, now.UnixMilli()+99, 3, "v"), conf: func(c *LogConfig) { c.TimestampAfterMax = 100 * time.Millisecond }, want: batch.ErrTimestamp, faults: []int32{2}},
		{name: "no timestamp is never too old", b: makeBatch(batch.Plain, -1, 1, "v"), conf: func(c *LogConfig) { c.TimestampBeforeMax = 100 * time.Millisecond }},
		{name: "any time where the broker stamps", b: makeBatch(batch.Plain, 5, 1, "v"), conf: func(c *LogConfig) { c.TimestampBeforeMax = 0; c.LogAppendTime = true }},
		{name: "records do not parse", b: broken(batch.Plain, poke(61, 1)), want: batch.ErrInvalid},
		{name: "fewer records than counted", b: broken(batch.Plain, fewer), want: batch.ErrInvalid},
		{name: "more records than counted", b: broken(batch.Plain, func(b batch.Batch) batch.Batch {
			copy(b[57:], []byte{0, 0, 0, 2})
			copy(b[23:], []byte{0, 0, 0, 1})
			return b
		}), want: batch.ErrInvalid},
		{name: "compressed bytes that are none, recompressed", b: broken(zstd, poke(61, 1, 2, 3, 4)), conf: func(c *LogConfig) { c.KeepCompression = false; c.Compression = batch.LZ4 }, want: batch.ErrInvalid},
		{name: "compressed bytes that are none, kept", b: broken(zstd, poke(61, 1, 2, 3, 4))},
		{name: "compressed bytes that are none, verified", b: broken(zstd, poke(61, 1, 2, 3, 4)), conf: verified, want: batch.ErrInvalid},
		{name: "fewer compressed records than counted", b: broken(zstd, fewer), conf: verified, want: batch.ErrInvalid},
		{name: "fewer compressed records than counted, kept", b: broken(zstd, fewer)},
		{name: "another codec than said, verified", b: broken(zstd, poke(22, 3)), conf: verified, want: batch.ErrInvalid},
		{name: "compressed records, verified", b: broken(zstd, nil), conf: verified},
		{name: "records, verified", b: broken(batch.Plain, nil), conf: verified},
		{name: "too large after recompression", b: makeBatch(batch.Header{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Codec: batch.Gzip}, now.UnixMilli(), 300, "v"),
			conf: func(c *LogConfig) { c.KeepCompression = false; c.Compression = batch.None; c.MaxMessageBytes = 2000 }, want: ErrMessageTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			conf := plain()
			if c.conf != nil {
				c.conf(conf)
			}
			l := w.log(conf)
			r := send(l, c.b).wait(t)
			if !errors.Is(r.Err, c.want) {
				t.Fatalf("got %v, want %v", r.Err, c.want)
			}
			var faults []int32
			for _, f := range r.RecordErrors {
				faults = append(faults, f.Index)
			}
			if fmt.Sprint(faults) != fmt.Sprint(c.faults) {
				t.Fatalf("faults of records %v, want %v", faults, c.faults)
			}
			if c.want == nil {
				if r.BaseOffset != 0 || r.LogStartOffset != 0 {
					t.Fatalf("offset %d, start %d", r.BaseOffset, r.LogStartOffset)
				}
				return
			}
			if r.BaseOffset != -1 || r.LogAppendTime != -1 || r.LogStartOffset != -1 {
				t.Fatalf("results beside the error: %d %d %d", r.BaseOffset, r.LogAppendTime, r.LogStartOffset)
			}
			// The next good batch gets the offset that the bad one did not.
			l.SetConfig(plain())
			if at := put(t, l, makeBatch(batch.Plain, 1, 1, "good")); at != 0 {
				t.Fatalf("a refused batch took %d offsets", at)
			}
		})
	}
}

func TestRewrittenBatches(t *testing.T) {
	w := newWorld(t)
	c := plain()
	l := w.log(c)
	read := func(offset int64) batch.Batch {
		t.Helper()
		r := Read{Offset: offset, MaxBytes: 1, MinOne: true}
		if !l.ReadTail(&r) || r.Err != nil || len(r.Records) != 1 {
			t.Fatalf("read at %d: %+v", offset, r)
		}
		b := append(batch.Batch(nil), r.Records[0]...)
		for _, b := range r.Bufs {
			b.Release()
		}
		if err := b.VerifyStored(); err != nil {
			t.Fatal(err)
		}
		return b
	}

	// A wrong max timestamp is put right.
	b := makeBatch(batch.Plain, 1000, 3, "v")
	b.SetMaxTimestamp(5)
	at := put(t, l, b)
	if got := read(at).MaxTimestamp(); got != 1002 {
		t.Fatalf("max timestamp %d", got)
	}

	stamped := *c
	stamped.LogAppendTime = true
	l.SetConfig(&stamped)
	r := send(l, makeBatch(batch.Plain, 1000, 3, "v")).wait(t)
	if r.Err != nil || r.LogAppendTime != w.clock.Load() {
		t.Fatalf("log append time %d, %v", r.LogAppendTime, r.Err)
	}
	if b := read(r.BaseOffset); !b.LogAppendTime() || b.MaxTimestamp() != w.clock.Load() {
		t.Fatalf("stored %v with %d", b.LogAppendTime(), b.MaxTimestamp())
	}

	for _, codec := range []batch.Codec{batch.None, batch.Gzip, batch.Snappy, batch.LZ4, batch.Zstd} {
		recoded := *c
		recoded.KeepCompression, recoded.Compression = false, codec
		l.SetConfig(&recoded)
		sent := makeBatch(batch.Header{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, Codec: batch.LZ4}, 1000, 3, "v")
		if want := codec != batch.LZ4; l.NeedsWorker(sent) != want {
			t.Fatalf("%v: NeedsWorker is not %v", codec, want)
		}
		at := put(t, l, sent)
		if b := read(at); b.Codec() != codec || b.Count() != 3 || b.BaseOffset() != at {
			t.Fatalf("stored as %v, %d records at %d", b.Codec(), b.Count(), b.BaseOffset())
		}
	}
	l.SetConfig(c)
	if l.NeedsWorker(makeBatch(batch.Header{ProducerID: -1, Codec: batch.LZ4}, 1, 1, "v")) {
		t.Fatal("a batch that is kept as it is needs a worker")
	}
	verified := *c
	verified.VerifyCompressed = true
	l.SetConfig(&verified)
	if !l.NeedsWorker(makeBatch(batch.Header{ProducerID: -1, Codec: batch.LZ4}, 1, 1, "v")) || l.NeedsWorker(makeBatch(batch.Plain, 1, 1, "v")) {
		t.Fatal("a batch that is looked into does not need a worker, or one that is not compressed does")
	}
}

// TestInflation: no more batches are inflated at a time than there are slots, whatever
// becomes of them, and no slot keeps the memory of a large one.
func TestInflation(t *testing.T) {
	slots := newInflation()
	most := int64(cap(slots))
	zeros := makeBatch(batch.Header{ProducerID: -1, Codec: batch.Gzip}, 1, 1, string(make([]byte, 2*maxScratchBytes)))
	small := makeBatch(batch.Header{ProducerID: -1, Codec: batch.LZ4}, 1, 1, "v")
	bad := makeBatch(batch.Header{ProducerID: -1, Codec: batch.Zstd}, 1, 1, "v")[:70]
	var running atomic.Int64
	var done sync.WaitGroup
	for i := range 10 * cap(slots) {
		done.Go(func() {
			look := func(records []byte) error {
				if n := running.Add(1); n > most {
					t.Errorf("%d batches at a time, of at most %d", n, most)
				}
				runtime.Gosched()
				running.Add(-1)
				return nil
			}
			_ = slots.records([]batch.Batch{zeros, small, bad}[i%3], look)
		})
	}
	done.Wait()
	if len(slots) != cap(slots) {
		t.Fatalf("%d of %d slots are free", len(slots), cap(slots))
	}
	for range cap(slots) {
		if kept := <-slots; cap(kept) > maxScratchBytes {
			t.Errorf("a slot keeps %d bytes", cap(kept))
		}
	}
	slots = newInflation()
	if err := slots.records(bad, func([]byte) error { return nil }); !errors.Is(err, batch.ErrInvalid) {
		t.Errorf("a batch that is cut off: %v", err)
	}
	if err := slots.records(small, func([]byte) error { return errTest }); !errors.Is(err, errTest) {
		t.Errorf("the error of look: %v", err)
	}
}

var errTest = errors.New("found")

// TestIdempotence runs scripts of batches of one producer: epoch, first sequence
// and count, and what becomes of each.
func TestIdempotence(t *testing.T) {
	type step struct {
		epoch int16
		seq   int32
		n     int
		at    int64 // expected offset, -1 if err
		err   error
	}
	const last = math.MaxInt32
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"in sequence", []step{{0, 0, 2, 0, nil}, {0, 2, 1, 2, nil}, {0, 3, 3, 3, nil}}},
		{"an unknown producer begins anywhere", []step{{3, 77, 2, 0, nil}, {3, 79, 1, 2, nil}, {3, 81, 1, -1, ErrOutOfSequence}}},
		{"duplicate of the last", []step{{0, 0, 2, 0, nil}, {0, 0, 2, 0, nil}, {0, 2, 1, 2, nil}}},
		{"duplicates of all five", []step{{0, 0, 1, 0, nil}, {0, 1, 1, 1, nil}, {0, 2, 1, 2, nil}, {0, 3, 1, 3, nil}, {0, 4, 1, 4, nil},
			{0, 0, 1, 0, nil}, {0, 1, 1, 1, nil}, {0, 2, 1, 2, nil}, {0, 3, 1, 3, nil}, {0, 4, 1, 4, nil}, {0, 5, 1, 5, nil}}},
		{"older than five", []step{{0, 0, 1, 0, nil}, {0, 1, 1, 1, nil}, {0, 2, 1, 2, nil}, {0, 3, 1, 3, nil}, {0, 4, 1, 4, nil}, {0, 5, 1, 5, nil},
			{0, 0, 1, -1, ErrOutOfSequence}, {0, 1, 1, 1, nil}}},
		{"same first sequence, other count", []step{{0, 0, 2, 0, nil}, {0, 0, 1, -1, ErrOutOfSequence}}},
		{"a gap", []step{{0, 0, 2, 0, nil}, {0, 3, 1, -1, ErrOutOfSequence}, {0, 2, 1, 2, nil}}},
		{"older epoch", []step{{5, 0, 1, 0, nil}, {4, 1, 1, -1, ErrProducerEpoch}, {5, 1, 1, 1, nil}}},
		{"newer epoch begins at 0", []step{{5, 0, 1, 0, nil}, {6, 1, 1, -1, ErrOutOfSequence}, {6, 0, 1, 1, nil}, {6, 1, 1, 2, nil}}},
		{"duplicate of an older epoch", []step{{5, 0, 1, 0, nil}, {6, 0, 1, 1, nil}, {5, 0, 1, -1, ErrProducerEpoch}}},
		{"wrap between batches", []step{{0, last - 1, 2, 0, nil}, {0, 0, 1, 2, nil}, {0, last - 1, 2, 0, nil}}},
		{"wrap within a batch", []step{{0, last - 1, 5, 0, nil}, {0, 3, 1, 5, nil}, {0, last - 1, 5, 0, nil}}},
		{"wrap only after the last sequence", []step{{0, last - 5, 2, 0, nil}, {0, 0, 1, -1, ErrOutOfSequence}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, reopen := range []bool{false, true} {
				w := newWorld(t)
				l := w.log(plain())
				for i, s := range c.steps {
					b := makeBatch(idempotent(9, s.epoch, s.seq), 1000+int64(s.seq), s.n, "v")
					r := send(l, b).wait(t)
					if !errors.Is(r.Err, s.err) || r.BaseOffset != s.at {
						t.Fatalf("step %d (reopening %v): offset %d, %v; want %d, %v", i, reopen, r.BaseOffset, r.Err, s.at, s.err)
					}
					if reopen {
						w.crash(func(n int) int { return n })
						l = w.log(plain())
					}
				}
			}
		})
	}
}

func TestDuplicateInFlightWaits(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.tier.hold(true)
	first := send(l, makeBatch(idempotent(1, 0, 0), 500, 2, "b"))
	again, third := send(l, makeBatch(idempotent(1, 0, 0), 500, 2, "b")), send(l, makeBatch(idempotent(1, 0, 0), 500, 2, "b"))
	if again.decided() || third.decided() {
		t.Fatal("answered before the first one is durable")
	}
	w.tier.hold(false)
	for _, r := range []*result{first, again, third} {
		if r.wait(t).Err != nil || r.BaseOffset != 1 {
			t.Fatalf("offset %d, %v", r.BaseOffset, r.Err)
		}
	}
	if again.LogAppendTime != 501 {
		t.Fatalf("a duplicate has time %d", again.LogAppendTime)
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "b-0", "b-1")

	// If the first one fails, so does what waits for it.
	w.tier.hold(true)
	first, again = send(l, makeBatch(idempotent(1, 0, 2), 500, 1, "c")), send(l, makeBatch(idempotent(1, 0, 2), 500, 1, "c"))
	w.tier.setNoSpace(true)
	w.tier.hold(false)
	wantErr(t, first.wait(t).Err, ErrNoSpace)
	wantErr(t, again.wait(t).Err, ErrNoSpace)
	w.tier.setNoSpace(false)
	if at := put(t, l, makeBatch(idempotent(1, 0, 2), 500, 1, "c")); at != 3 {
		t.Fatalf("offset %d", at)
	}
}

func TestNoSpaceRollsBackAndHeals(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "a"))
	w.tier.hold(true)
	var all []*result
	for i := range 4 {
		all = append(all, send(l, makeBatch(idempotent(1, 0, int32(i+1)), 1, 1, "lost")), send(l, makeBatch(idempotent(2, 0, int32(i)), 1, 1, "lost")))
	}
	w.tier.setNoSpace(true)
	w.tier.hold(false)
	for _, r := range all {
		wantErr(t, r.wait(t).Err, ErrNoSpace)
		if r.BaseOffset != -1 {
			t.Fatalf("offset %d beside the error", r.BaseOffset)
		}
	}
	// Reads go on.
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0")
	wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "x")).wait(t).Err, ErrNoSpace)
	w.tier.setNoSpace(false)
	// What comes behind a refused batch of a producer that is not known does
	// not take its place.
	wantErr(t, send(l, makeBatch(idempotent(2, 0, 1), 1, 1, "y")).wait(t).Err, ErrOutOfSequence)
	put(t, l, makeBatch(idempotent(2, 0, 0), 1, 1, "b"))
	put(t, l, makeBatch(idempotent(1, 0, 1), 1, 1, "c"))
	if at := put(t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "a")); at != 0 {
		t.Fatalf("the duplicate of what is stored got offset %d", at)
	}
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "b-0", "c-0")
	w.crash(func(n int) int { return n })
	wantValues(t, values(t, w.log(plain()), 0, ReadUncommitted), "a-0", "b-0", "c-0")
}

// TestHole: a tier refuses one entry for lack of space and stores those queued behind it.
func TestHole(t *testing.T) {
	w := newWorld(t)
	w.tier.sloppy = true
	l := w.log(plain())
	put(t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "a"))
	w.tier.hold(true)
	lost, behind := send(l, makeBatch(idempotent(1, 0, 1), 1, 1, "b")), send(l, makeBatch(idempotent(1, 0, 2), 1, 1, "c"))
	w.tier.setNoSpace(true)
	w.tier.step()
	w.tier.setNoSpace(false)
	w.tier.step()
	w.tier.hold(false)
	wantErr(t, lost.wait(t).Err, ErrNoSpace)
	if behind.wait(t).Err == nil {
		t.Fatal("what was stored behind a hole is acknowledged")
	}
	wantErr(t, send(l, makeBatch(batch.Plain, 1, 1, "x")).wait(t).Err, ErrStorage)
	if w.store.Log(testLog) != nil {
		t.Fatal("the log is still open")
	}
	l = w.log(plain())
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0")
	put(t, l, makeBatch(idempotent(1, 0, 1), 1, 1, "b"))
	put(t, l, makeBatch(idempotent(1, 0, 2), 1, 1, "c"))
	wantValues(t, values(t, l, 0, ReadUncommitted), "a-0", "b-0", "c-0")
}

func TestFailedLedgerReopens(t *testing.T) {
	w := newWorld(t)
	l := w.log(plain())
	put(t, l, makeBatch(idempotent(1, 0, 0), 1, 1, "a"))
	woken := make(chan struct{})
	l.Wait(&Waiter{Wake: func() { close(woken) }})
	w.tier.hold(true)
	b, c := send(l, makeBatch(idempotent(1, 0, 1), 1, 1, "b")), send(l, makeBatch(idempotent(1, 0, 2), 1, 1, "c"))
	w.tier.setFault(func(op string, _ ledger.ID) error {
		if op == "append" {
			return ledger.ErrFailed
		}
		return nil
	})
	w.tier.hold(false)
	wantErr(t, b.wait(t).Err, ErrStorage)
	wantErr(t, c.wait(t).Err, ErrStorage)
	await(t, woken)
	r := Read{Offset: 0, MaxBytes: 100}
	if !l.ReadTail(&r) || !errors.Is(r.Err, ErrStorage) {
		t.Fatalf("a failed log answers %+v", r)
	}
	l.Wait(&Waiter{Wake: func() { woken = nil }})
	if woken != nil {
		t.Fatal("a waiter of a failed log sleeps")
	}
	if e := w.store.Epoch(testLog); e != 1 {
		t.Fatalf("epoch %d is announced", e)
	}
	w.tier.setFault(nil)
	l = w.log(plain())
	if l.Epoch() != 1 {
		t.Fatalf("epoch %d", l.Epoch())
	}
	if at := put(t, l, makeBatch(idempotent(1, 0, 1), 1, 1, "b")); at != 1 {
		t.Fatalf("offset %d: a batch that is not stored was taken for a duplicate", at)
	}
}

func TestProducersExpire(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.MaxProducersPerLog = 3; c.ProducerExpiry = time.Hour })
	l := w.log(plain())
	for id := range int64(5) {
		put(t, l, makeBatch(idempotent(id, 0, 0), 1, 1, "v"))
	}
	var ids []int64
	for _, p := range l.Producers() {
		ids = append(ids, p.ProducerID)
		if p.LastSequence != 0 || p.TxnStartOffset != -1 || p.CoordinatorEpoch != -1 || p.LastTimestamp != 1 {
			t.Fatalf("%+v", p)
		}
	}
	if fmt.Sprint(ids) != "[2 3 4]" {
		t.Fatalf("producers %v are remembered", ids)
	}
	w.advance(30 * time.Minute)
	put(t, l, makeBatch(idempotent(3, 0, 1), 1, 1, "v"))
	w.advance(31 * time.Minute)
	w.store.sweep(time.UnixMilli(w.clock.Load()), true)
	if p := l.Producers(); len(p) != 1 || p[0].ProducerID != 3 {
		t.Fatalf("%+v", p)
	}
}

// TestIndexAfterNoSpace: what was taken back leaves no trace in the index.
func TestIndexAfterNoSpace(t *testing.T) {
	w := newWorld(t, func(c *StoreConfig) { c.TailCacheBytes = 1 })
	c := plain()
	c.IndexIntervalBytes = 1
	l := w.log(c)
	put(t, l, makeBatch(batch.Plain, 1, 1, "a"))
	w.tier.hold(true)
	var lost []*result
	for range 6 {
		lost = append(lost, send(l, makeBatch(batch.Plain, 1, 2, "lost")))
	}
	w.tier.setNoSpace(true)
	w.tier.hold(false)
	for _, r := range lost {
		wantErr(t, r.wait(t).Err, ErrNoSpace)
	}
	w.tier.setNoSpace(false)
	for range 3 {
		put(t, l, makeBatch(batch.Plain, 1, 10, "b"))
	}
	for at := range int64(31) {
		r := read(l, Read{Offset: at, MaxBytes: 1, MinOne: true})
		if r.Err != nil || len(r.Records) != 1 {
			t.Fatalf("at %d: %d batches, %v", at, len(r.Records), r.Err)
		}
		if b := batch.Batch(r.Records[0]); b.BaseOffset() > at || b.LastOffset() < at {
			t.Fatalf("at %d: a batch of [%d, %d]", at, b.BaseOffset(), b.LastOffset())
		}
	}
}
