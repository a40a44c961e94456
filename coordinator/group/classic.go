package group

import "time"

// classic is a group of the classic protocol.
type classic struct {
	g            *Group
	state        State
	protocolType string
}

func newClassic(g *Group) *classic { return &classic{g: g, state: Empty} }

func (c *classic) blank() bool { panic("unwritten") }
func (c *classic) die()        { panic("unwritten") }

// release answers every parked join and sync with err and forgets them.
func (c *classic) release(err error, e *Effects) { panic("unwritten") }

func (c *classic) join(now time.Time, ticket Ticket, r *JoinGroupRequest, e *Effects) {
	panic("unwritten")
}

func (c *classic) sync(now time.Time, ticket Ticket, r *SyncGroupRequest, e *Effects) {
	panic("unwritten")
}
func (c *classic) heartbeat(now time.Time, r *HeartbeatRequest) error { panic("unwritten") }
func (c *classic) leave(now time.Time, ticket Ticket, r *LeaveGroupRequest, e *Effects) {
	panic("unwritten")
}
func (c *classic) checkCommit(now time.Time, id *CommitIdentity) error { panic("unwritten") }
func (c *classic) subscribedTo(topic string) bool                      { panic("unwritten") }
func (c *classic) expiry() Expiry                                      { panic("unwritten") }
func (c *classic) tick(now time.Time, e *Effects)                      { panic("unwritten") }
func (c *classic) written(now time.Time, seq uint64, e *Effects)       { panic("unwritten") }
func (c *classic) writeFailed(now time.Time, seq uint64, e *Effects)   { panic("unwritten") }
func (c *classic) appendRecord(b []byte) []byte                        { panic("unwritten") }
func (c *classic) describe() *Description                              { panic("unwritten") }
func (c *classic) restored(now time.Time)                              { panic("unwritten") }
func loadClassic(g *Group, r *reader) *classic                         { panic("unwritten") }
