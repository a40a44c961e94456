// Package check decides whether what a log gave back agrees with what its
// clients were told while they wrote it. It is pure: histories and reads go
// in, violations come out.
//
// The rules are those of Jepsen's Kafka workload that concern plain writes,
// made stricter by dense offsets: every acknowledged record is there, at its
// offset, once, in the order its producer sent it; no two readers ever see
// different records at one offset, and what one has seen stays; a record that was
// refused is never read; leader epochs and the ends that are told never go back.
package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// A Partition names one log.
type Partition struct {
	Topic  string
	Number int32
}

func (p Partition) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.Number) }

func comparePartitions(a, b Partition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
}

// An ID stands for one record: the producer that sent it and its place in that
// producer's sends. No two records of a history share one.
type ID uint64

const sequenceBits = 48

// MaxSequence is the last sequence that an ID can hold.
const MaxSequence = 1<<sequenceBits - 1

// NewID returns the ID of a producer's sequence-th record.
func NewID(producer uint16, sequence uint64) ID {
	return ID(uint64(producer)<<sequenceBits | sequence&MaxSequence)
}

// Producer returns which producer sent the record.
func (id ID) Producer() uint16 { return uint16(id >> sequenceBits) }

// Sequence returns the record's place in its producer's sends.
func (id ID) Sequence() uint64 { return uint64(id) & MaxSequence }

func (id ID) String() string { return fmt.Sprintf("%d/%d", id.Producer(), id.Sequence()) }

// A Send is a record handed to a client library, at a time in nanoseconds on
// the recorder's monotonic clock, taken before the call.
type Send struct {
	ID ID
	At int64
}

// An Ack is a success that a client library reported, at a time in
// nanoseconds on the same clock, taken after the report. Its offset is Untold if the
// library knows only that the record is stored: an answer was lost, and that to a
// later batch of the same idempotent producer says that this one is there too.
type Ack struct {
	ID     ID
	Offset int64
	At     int64
}

// Untold is the offset of a success without one; no server tells it.
const Untold = math.MinInt64

// A Refusal is a record that the server did not want: it must be in no log. At
// is taken after the report.
type Refusal struct {
	ID  ID
	At  int64
	Why string
}

// A Record is what a reader found.
type Record struct {
	Offset int64
	ID     ID
	Epoch  int32 // leader epoch of its batch; 0 in a history that knows none
}

// An End is an answer to the question for a partition's end offset.
type End struct {
	Offset          int64
	Asked, Answered int64
}

// A History is everything that the producers of a run know, and those who asked
// for ends of logs. Sends of one producer to one partition are in the order of the
// calls.
type History struct {
	Sends    map[Partition][]Send
	Acks     map[Partition][]Ack
	Refusals map[Partition][]Refusal
	Ends     map[Partition][]End
	// Plain are the producers that are not idempotent: after a lost answer their
	// library sends a record again, and then it may be stored more than once.
	Plain map[uint16]bool
	// Once are the producers whose library sends each record once at most: none is
	// stored twice, but one whose answer was lost may be stored at any later time.
	Once map[uint16]bool
}

// A Read is what one reader saw, partition by partition, in the order it saw
// it. A complete read began at the log start and ended at the end offset after
// the last acknowledgement; any other is checked only for what it holds.
type Read struct {
	Name     string
	Complete bool
	Records  map[Partition][]Record
	// Stuck are the partitions that a complete read could not read to their end, each
	// with the reason: of these it is not complete.
	Stuck map[Partition]string
}

// complete says whether the read has all of a partition.
func (r Read) complete(p Partition) bool {
	_, stuck := r.Stuck[p]
	return r.Complete && !stuck
}

// Kind is a way in which a log can break its word.
type Kind string

// The kinds of violation.
const (
	Lost       Kind = "lost"       // acknowledged, and in no place of a complete read
	Misplaced  Kind = "misplaced"  // acknowledged at one offset, read at another
	Duplicated Kind = "duplicated" // at two offsets, or acknowledged at two
	Reordered  Kind = "reordered"  // not in the order of its producer, or of real time
	Diverged   Kind = "diverged"   // two readers, or a reader and an acknowledgement, disagree about an offset
	Gap        Kind = "gap"        // an offset that a reader should have seen and did not
	Invented   Kind = "invented"   // read, and never sent to that partition
	Vanished   Kind = "vanished"   // seen by one reader, and not in a complete read
	Unwritten  Kind = "unwritten"  // read, though the server had refused it
	EpochBack  Kind = "epoch back" // the leader epoch of a record is older than that of one before it
	StaleEnd   Kind = "stale end"  // an end offset below what was acknowledged or told before it was asked for
	ZeroEnd    Kind = "zero end"   // the same, and the end is 0: as if the log were empty
	BeyondEnd  Kind = "beyond end" // an end offset that the log never reached
	Unreadable Kind = "unreadable" // a reader that waited long enough got nothing from there on, short of the end
)

// A Violation is one finding.
type Violation struct {
	Kind      Kind
	Partition Partition
	Offset    int64
	ID        ID
	Detail    string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s offset %d record %s: %s", v.Kind, v.Partition, v.Offset, v.ID, v.Detail)
}

// Check returns every violation, ordered by partition. No reads, no complete
// one among them, or a history without acknowledgements proves nothing; the
// caller has to see to those.
func Check(h History, reads ...Read) []Violation {
	partitions := map[Partition]bool{}
	for p := range h.Sends {
		partitions[p] = true
	}
	for p := range h.Acks {
		partitions[p] = true
	}
	for _, r := range reads {
		for p := range r.Records {
			partitions[p] = true
		}
	}
	sorted := make([]Partition, 0, len(partitions))
	for p := range partitions {
		sorted = append(sorted, p)
	}
	slices.SortFunc(sorted, comparePartitions)

	var found []Violation
	for _, p := range sorted {
		c := checker{partition: p, sends: h.Sends[p], acks: h.Acks[p], refusals: h.Refusals[p], plain: h.Plain, once: h.Once}
		c.index()
		c.checkAcks()
		c.checkRealTime()
		c.findStoredAgain(reads)
		for _, r := range reads {
			c.checkRead(r)
		}
		c.checkVanished(reads)
		c.checkEnds(h.Ends[p], reads)
		found = append(found, c.found...)
	}
	return found
}

// checker holds one partition's history and what was found in it.
type checker struct {
	partition Partition
	sends     []Send
	acks      []Ack
	refusals  []Refusal
	plain     map[uint16]bool
	once      map[uint16]bool
	sentAt    map[ID]int64
	refused   map[ID]string
	again     map[ID][]int64 // offsets of what plain producers stored more than once
	ackedAt   map[ID]int64   // offset
	holder    map[int64]ID   // of every offset that anyone has named so far
	found     []Violation
}

func (c *checker) report(kind Kind, offset int64, id ID, format string, args ...any) {
	c.found = append(c.found, Violation{kind, c.partition, offset, id, fmt.Sprintf(format, args...)})
}

func (c *checker) index() {
	c.sentAt = make(map[ID]int64, len(c.sends))
	for _, s := range c.sends {
		c.sentAt[s.ID] = s.At
	}
	c.ackedAt = make(map[ID]int64, len(c.acks))
	c.holder = make(map[int64]ID, len(c.acks))
	c.refused = make(map[ID]string, len(c.refusals))
	for _, r := range c.refusals {
		c.refused[r.ID] = r.Why
	}
}

func (c *checker) checkAcks() {
	for _, a := range c.acks {
		if _, sent := c.sentAt[a.ID]; !sent {
			c.report(Invented, a.Offset, a.ID, "acknowledged and never sent to this partition")
		}
		if before, acked := c.ackedAt[a.ID]; acked {
			if before != a.Offset && before != Untold && a.Offset != Untold {
				c.report(Duplicated, a.Offset, a.ID, "acknowledged at offset %d before", before)
			}
			continue
		}
		c.ackedAt[a.ID] = a.Offset
		if a.Offset == Untold {
			continue
		}
		if other, named := c.holder[a.Offset]; named {
			c.report(Diverged, a.Offset, a.ID, "record %s was acknowledged at the same offset", other)
			continue
		}
		c.holder[a.Offset] = a.ID
	}
}

// checkRealTime holds the order of the log against the clock: a record whose
// send began after another's acknowledgement must lie behind it.
func (c *checker) checkRealTime() {
	byOffset := slices.DeleteFunc(slices.Clone(c.acks), func(a Ack) bool { return a.Offset == Untold })
	slices.SortFunc(byOffset, func(a, b Ack) int { return cmp.Compare(b.Offset, a.Offset) })
	earliest := Ack{At: math.MaxInt64}
	for _, a := range byOffset {
		if sent, ok := c.sentAt[a.ID]; ok && sent > earliest.At {
			c.report(Reordered, a.Offset, a.ID, "sent after record %s at offset %d was acknowledged", earliest.ID, earliest.Offset)
		}
		if a.At < earliest.At {
			earliest = a
		}
	}
}

func (c *checker) checkRead(r Read) {
	records := r.Records[c.partition]
	seen := make(map[ID]int64, len(records))
	last := map[uint16]ID{} // per producer
	next, epoch := int64(0), int32(0)
	if !r.Complete && len(records) > 0 {
		next = records[0].Offset
	}
	for _, rec := range records {
		if rec.Offset != next {
			c.report(Gap, rec.Offset, rec.ID, "%s: offset %d was due", r.Name, next)
		}
		next = rec.Offset + 1
		if other, named := c.holder[rec.Offset]; named && other != rec.ID {
			c.report(Diverged, rec.Offset, rec.ID, "%s: record %s was seen or acknowledged at this offset", r.Name, other)
		} else if !named {
			c.holder[rec.Offset] = rec.ID
		}
		if _, sent := c.sentAt[rec.ID]; !sent {
			c.report(Invented, rec.Offset, rec.ID, "%s: never sent to this partition", r.Name)
		}
		if why, refused := c.refused[rec.ID]; refused {
			c.report(Unwritten, rec.Offset, rec.ID, "%s: it was refused: %s", r.Name, why)
		}
		if rec.Epoch < epoch {
			c.report(EpochBack, rec.Offset, rec.ID, "%s: leader epoch %d behind %d", r.Name, rec.Epoch, epoch)
		}
		epoch = max(epoch, rec.Epoch)
		if offsets, ok := c.again[rec.ID]; ok {
			if acked, ok := c.ackedAt[rec.ID]; ok && acked != Untold && r.complete(c.partition) && !slices.Contains(offsets, acked) {
				c.report(Misplaced, rec.Offset, rec.ID, "%s: at offsets %v, acknowledged at %d", r.Name, offsets, acked)
			}
			seen[rec.ID] = rec.Offset
			continue
		}
		if before, twice := seen[rec.ID]; twice {
			c.report(Duplicated, rec.Offset, rec.ID, "%s: also at offset %d", r.Name, before)
			continue
		}
		seen[rec.ID] = rec.Offset
		producer := rec.ID.Producer()
		if _, acked := c.ackedAt[rec.ID]; !acked && c.once[producer] {
			continue
		}
		if previous, ok := last[producer]; ok && previous > rec.ID {
			c.report(Reordered, rec.Offset, rec.ID, "%s: behind record %s of the same producer", r.Name, previous)
		}
		last[producer] = rec.ID
		if acked, ok := c.ackedAt[rec.ID]; ok && acked != Untold && acked != rec.Offset {
			c.report(Misplaced, rec.Offset, rec.ID, "%s: acknowledged at offset %d", r.Name, acked)
		}
	}
	if why, stuck := r.Stuck[c.partition]; stuck {
		behind := 0
		for _, a := range c.acks {
			if a.Offset >= next {
				behind++
			}
		}
		c.report(Unreadable, next, 0, "%s: %s; %d records were acknowledged from there on", r.Name, why, behind)
	}
	if !r.complete(c.partition) {
		return
	}
	for _, a := range c.acks {
		if _, ok := seen[a.ID]; !ok {
			c.report(Lost, a.Offset, a.ID, "%s: %d records, ends at offset %d", r.Name, len(records), next)
		}
	}
}

// findStoredAgain finds the records of producers that are not idempotent which are
// in the log more than once: such a producer may store a record again at any later
// time.
func (c *checker) findStoredAgain(reads []Read) {
	c.again = map[ID][]int64{}
	for _, r := range reads {
		for _, rec := range r.Records[c.partition] {
			if c.plain[rec.ID.Producer()] && !slices.Contains(c.again[rec.ID], rec.Offset) {
				c.again[rec.ID] = append(c.again[rec.ID], rec.Offset)
			}
		}
	}
	for id, at := range c.again {
		if len(at) == 1 {
			delete(c.again, id)
		}
	}
}

// checkVanished: what any reader has seen is in every complete read. One that
// ended before it was written is no complete read.
func (c *checker) checkVanished(reads []Read) {
	for _, whole := range reads {
		if !whole.complete(c.partition) {
			continue
		}
		there := map[int64]bool{}
		for _, rec := range whole.Records[c.partition] {
			there[rec.Offset] = true
		}
		for _, r := range reads {
			for _, rec := range r.Records[c.partition] {
				if !there[rec.Offset] {
					c.report(Vanished, rec.Offset, rec.ID, "seen by %s, not by %s", r.Name, whole.Name)
				}
			}
		}
	}
}

// checkEnds: whoever asks for the end of the log is told at least the end of
// what was acknowledged before, and at least what anybody was told before.
func (c *checker) checkEnds(ends []End, reads []Read) {
	type fact struct {
		at   int64
		end  int64
		what string
	}
	facts := make([]fact, 0, len(c.acks)+len(ends))
	for _, a := range c.acks {
		facts = append(facts, fact{a.At, a.Offset + 1, "acknowledged"})
	}
	for _, e := range ends {
		facts = append(facts, fact{e.Answered, e.Offset, "told"})
	}
	slices.SortFunc(facts, func(a, b fact) int { return cmp.Compare(a.at, b.at) })
	byAsked := slices.Clone(ends)
	slices.SortFunc(byAsked, func(a, b End) int { return cmp.Compare(a.Asked, b.Asked) })
	highest, next := fact{}, 0
	for _, e := range byAsked {
		for ; next < len(facts) && facts[next].at < e.Asked; next++ {
			if facts[next].end > highest.end {
				highest = facts[next]
			}
		}
		if e.Offset < highest.end {
			kind := StaleEnd
			if e.Offset == 0 {
				kind = ZeroEnd
			}
			c.report(kind, e.Offset, 0, "asked at %.3f s: %d was %s at %.3f s", seconds(e.Asked), highest.end, highest.what, seconds(highest.at))
		}
	}
	for _, r := range reads {
		if !r.complete(c.partition) {
			continue
		}
		end := int64(0)
		if records := r.Records[c.partition]; len(records) > 0 {
			end = records[len(records)-1].Offset + 1
		}
		for _, e := range ends {
			if e.Offset > end {
				c.report(BeyondEnd, e.Offset, 0, "told at %.3f s; %s ends at %d", seconds(e.Answered), r.Name, end)
			}
		}
	}
}

func seconds(nanos int64) float64 { return float64(nanos) / 1e9 }
