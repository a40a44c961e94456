package group

// A Ticket names a request that waits for its answer. The driver chooses it;
// no two waiting requests of one group may have the same.
type Ticket uint64

// Effects is what an event asks of the driver. It belongs to one group between
// two Resets. If it collects several events, the one Write it holds is the
// latest, which covers those before.
type Effects struct {
	// Replies are to be sent now, in any order.
	Replies []Reply
	// Write is to be made durable, in the order of Seq; then Written is due.
	// Seq 0 means that there is nothing to write.
	Write Write
	// Reload asks the driver to forget the group and Load it from what is
	// stored, because memory and storage may differ. No ticket is waiting then.
	Reload bool
	// Rebalances counts the classic generations that became Stable, for a metric.
	Rebalances int
}

// Reply is the answer to one waiting request.
type Reply struct {
	Ticket Ticket
	// Response is a *JoinGroupResponse, *SyncGroupResponse, *LeaveGroupResponse,
	// *ConsumerHeartbeatResponse or *DeleteResponse, as the request was. It is shared
	// with the group and must only be read.
	Response response
}

// Write is the group's record to be stored in the place of the last one, or
// to be deleted.
type Write struct {
	// Seq grows by one with each write of a Group value, from 1.
	Seq    uint64
	Record []byte // nil if Delete
	Delete bool
}

// Reset empties e and keeps its memory.
func (e *Effects) Reset() {
	clear(e.Replies)
	*e = Effects{Replies: e.Replies[:0]}
}

// Empty says whether there is nothing to do.
func (e *Effects) Empty() bool { return len(e.Replies) == 0 && e.Write.Seq == 0 && !e.Reload }

func (e *Effects) reply(t Ticket, response response) {
	e.Replies = append(e.Replies, Reply{t, response})
}
