package group

import "time"

// consumer is a group of the KIP-848 protocol.
type consumer struct {
	g *Group
}

// state is Empty, Assigning, Reconciling, Stable or Dead.
func (c *consumer) state() State { panic("unwritten") }

// isEmpty says whether the group has no member.
func (c *consumer) isEmpty() bool { panic("unwritten") }

// becomeClassic replaces c by a classic group with c's classic members (none if
// it is empty), which then rebalances.
func (c *consumer) becomeClassic(now time.Time, e *Effects) { panic("unwritten") }

func (c *consumer) joinClassic(now time.Time, ticket Ticket, r *JoinGroupRequest, e *Effects) {
	panic("unwritten")
}

func (c *consumer) syncClassic(now time.Time, ticket Ticket, r *SyncGroupRequest, e *Effects) {
	panic("unwritten")
}

func (c *consumer) heartbeatClassic(now time.Time, r *HeartbeatRequest) error { panic("unwritten") }

func (c *consumer) leaveClassic(now time.Time, ticket Ticket, r *LeaveGroupRequest, e *Effects) {
	panic("unwritten")
}

func (c *consumer) checkCommit(now time.Time, id *CommitIdentity) error { panic("unwritten") }

func (c *consumer) checkFetch(now time.Time, id *CommitIdentity) error { panic("unwritten") }

func (c *consumer) subscribedTo(topic string) bool { panic("unwritten") }

func (c *consumer) expiry() Expiry { panic("unwritten") }

// tick does what is due at now and calls g.due for what is next.
func (c *consumer) tick(now time.Time, e *Effects) { panic("unwritten") }

// written is called when a write is durable, after the replies that waited for
// it; writeFailed when it is not, after they were refused.
func (c *consumer) written(now time.Time, seq uint64, e *Effects) { panic("unwritten") }

func (c *consumer) writeFailed(now time.Time, seq uint64, e *Effects) { panic("unwritten") }

// unload answers what is parked in c itself; withheld replies are the Group's.
func (c *consumer) unload(e *Effects) { panic("unwritten") }

// appendRecord appends c to a record, loadConsumer reads it again; the version
// and the type are written and read by the caller.
func (c *consumer) appendRecord(b []byte) []byte { panic("unwritten") }

func loadConsumer(g *Group, r *reader, now time.Time) *consumer { panic("unwritten") }

// restored is called once after loadConsumer: it starts sessions afresh and calls g.due.
func (c *consumer) restored(now time.Time) { panic("unwritten") }
