// Package group is the logic of consumer groups as a pure function of state,
// event and time: the classic protocol (JoinGroup, SyncGroup, Heartbeat,
// LeaveGroup) and the one of KIP-848. It has no clock, does no I/O and starts no
// goroutine; whoever drives it (package coordinator) gives it events and carries
// out the effects that it asks for.
//
//	request, time, written ──► Group ──► Effects: replies, one write, reload
//
// # Driving a group
//
// A Group is owned by one goroutine. Each event is a method that takes the
// current time and appends to an Effects; after each event the driver carries
// the Effects out (or gives the same one to the group's next event) and asks
// Deadline when Tick is due.
//
// A request that may wait comes with a Ticket. Each ticket is answered exactly
// once, through Effects.Replies, at once or in a later event: an answer that
// tells a client of a change leaves only after the change is durable.
//
// # Durability
//
// A change asks for a Write of the whole group and remembers which replies
// depend on it; Written releases them. At most one write is in flight: changes
// made meanwhile go into the next, so a group that changes fast is written once
// per round trip, not once per change.
//
// What a record holds is what a new owner needs to continue without anybody
// noticing: generation (or epochs), protocol, leader, members with their
// assignments. Sessions are not in it: Load starts them afresh, as Kafka does
// (GroupMetadataManager.onLoaded).
package group
