// Package check decides whether what a log gave back agrees with what its
// clients were told while they wrote it. It is pure: histories and reads go
// in, violations come out.
//
// The rules are those of Jepsen's Kafka workload that concern plain writes,
// made stricter by dense offsets: every acknowledged record is there, at its
// offset, once, in the order its producer sent it, and no two readers ever see
// different records at one offset.
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
// nanoseconds on the same clock, taken after the report.
type Ack struct {
	ID     ID
	Offset int64
	At     int64
}

// A Record is what a reader found.
type Record struct {
	Offset int64
	ID     ID
}

// A History is everything that the producers of a run know. Sends of one
// producer to one partition are in the order of the calls.
type History struct {
	Sends map[Partition][]Send
	Acks  map[Partition][]Ack
}

// A Read is what one reader saw, partition by partition, in the order it saw
// it. A complete read began at the log start and ended at the end offset after
// the last acknowledgement; any other is checked only for what it holds.
type Read struct {
	Name     string
	Complete bool
	Records  map[Partition][]Record
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
		c := checker{partition: p, sends: h.Sends[p], acks: h.Acks[p]}
		c.index()
		c.checkAcks()
		c.checkRealTime()
		for _, r := range reads {
			c.checkRead(r)
		}
		found = append(found, c.found...)
	}
	return found
}

// checker holds one partition's history and what was found in it.
type checker struct {
	partition Partition
	sends     []Send
	acks      []Ack
	sentAt    map[ID]int64
	ackedAt   map[ID]int64 // offset
	holder    map[int64]ID // of every offset that anyone has named so far
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
}

func (c *checker) checkAcks() {
	for _, a := range c.acks {
		if _, sent := c.sentAt[a.ID]; !sent {
			c.report(Invented, a.Offset, a.ID, "acknowledged and never sent to this partition")
		}
		if before, acked := c.ackedAt[a.ID]; acked {
			if before != a.Offset {
				c.report(Duplicated, a.Offset, a.ID, "acknowledged at offset %d before", before)
			}
			continue
		}
		c.ackedAt[a.ID] = a.Offset
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
	byOffset := slices.Clone(c.acks)
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
	next := int64(0)
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
		if before, twice := seen[rec.ID]; twice {
			c.report(Duplicated, rec.Offset, rec.ID, "%s: also at offset %d", r.Name, before)
			continue
		}
		seen[rec.ID] = rec.Offset
		producer := rec.ID.Producer()
		if previous, ok := last[producer]; ok && previous > rec.ID {
			c.report(Reordered, rec.Offset, rec.ID, "%s: behind record %s of the same producer", r.Name, previous)
		}
		last[producer] = rec.ID
		if acked, ok := c.ackedAt[rec.ID]; ok && acked != rec.Offset {
			c.report(Misplaced, rec.Offset, rec.ID, "%s: acknowledged at offset %d", r.Name, acked)
		}
	}
	if !r.Complete {
		return
	}
	for _, a := range c.acks {
		if _, ok := seen[a.ID]; !ok {
			c.report(Lost, a.Offset, a.ID, "%s: %d records, ends at offset %d", r.Name, len(records), next)
		}
	}
}
