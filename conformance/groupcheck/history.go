// Package groupcheck decides whether consumer groups went through a run as
// Kafka would let them: what was committed stayed committed, nobody shared a
// partition, nobody was rebalanced or thrown out without a reason, and whoever
// fell silent was. It is pure: a history goes in, violations come out.
//
// A history has three witnesses. The run says what it did to members and to the
// server. The client libraries say what they told their applications:
// assignments, revocations, answers to commits. The wire between them and the
// server says which generation a member was in and what the server answered.
// All times are nanoseconds on one monotonic clock.
package groupcheck

import (
	"fmt"
	"time"
)

// A Partition names one log.
type Partition struct {
	Topic  string
	Number int32
}

func (p Partition) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.Number) }

// A Group is what is fixed about one group.
type Group struct {
	Partitions []Partition   // what its members share
	Session    time.Duration // session timeout of every member
}

// A Commit is one partition's part in a commit: called before it is handed to
// the library, done when the library has answered. The answer to a commit that
// is not acknowledged may be lost, so it may have happened, or may yet.
type Commit struct {
	Group, Member string
	Partition     Partition
	Offset        int64
	Called, Done  int64
	Acked         bool
}

// An Attempt is one partition's part in a commit that was sent over a connection which
// ended before it was answered. The library sends it again over another one, and the
// first may be executed all the same: later, if it is held up on its way.
type Attempt struct {
	Group, Member string
	Partition     Partition
	Offset        int64
	Sent, Ended   int64 // Ended: the connection, at the client
}

// None is the offset of a read that found nothing committed.
const None = -1

// A Read is one partition's committed offset as somebody was told it.
type Read struct {
	Group, Reader   string
	Partition       Partition
	Offset          int64 // or None
	Asked, Answered int64
}

// Kind is what an Event tells.
type Kind string

// The kinds of events.
const (
	// What the run did.
	Joined   Kind = "joined"      // a member is about to start
	Left     Kind = "left"        // a member is about to be closed
	Silenced Kind = "silenced"    // nothing that a member sends arrives any more
	Up       Kind = "server up"   // the server answers; of no group
	Down     Kind = "server down" // the server is about to be killed; of no group

	// What a member's library told its application.
	Assigned Kind = "assigned"
	Revoked  Kind = "revoked"
	Lost     Kind = "lost"

	// What passed on the wire. Began is when the request went to the server, At
	// when its answer came.
	Joins     Kind = "joins"     // a request to join went out; no answer yet, Began is At
	Told      Kind = "told"      // the server gave a member its whole assignment
	Owns      Kind = "owns"      // a member told the server what it holds (KIP-848); Began is At
	Heard     Kind = "heard"     // the server took a heartbeat or commit for a member's sign of life
	Committed Kind = "committed" // the server took a commit of a member of a generation
	Expelled  Kind = "expelled"  // the server does not know the member any more
	Departed  Kind = "departed"  // the server took a member's leave
)

// An Event is one thing that happened to a member of a group.
type Event struct {
	At, Began  int64
	Group      string
	Member     string // as the run names it
	Kind       Kind
	Partitions []Partition // of Assigned, Revoked, Lost, Told and Owns
	ID         string      // of the member as the server names it; of events of the wire
	Generation int32       // or member epoch; of events of the wire
	Classic    bool        // of events of the wire: the classic protocol
}

// A History is everything that is known of a run. Events are ordered by At.
type History struct {
	Groups   map[string]Group
	Commits  []Commit
	Attempts []Attempt // that were not answered
	Reads    []Read
	Events   []Event
	End      int64 // the groups had time to settle before it
}

// Violation is one finding.
type Violation struct {
	Rule   Rule
	Group  string
	At     int64
	Detail string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: group %s at %.3f s: %s", v.Rule, v.Group, float64(v.At)/1e9, v.Detail)
}

// Rule is a promise that a server can break.
type Rule string

// The rules.
const (
	RolledBack Rule = "rolled back"          // a read gives less than what was acknowledged or read before
	Undone     Rule = "undone"               // likewise, by an attempt of the same member that was not answered; see Attempt
	Invented   Rule = "invented"             // a read gives what nobody committed
	Shared     Rule = "shared"               // two members were given one partition at a time
	Stale      Rule = "stale"                // a member of an older generation committed
	Uncaused   Rule = "uncaused rebalance"   // members were disturbed though nobody had come or gone
	ThrownOut  Rule = "thrown out"           // a member was forgotten within its session timeout
	TooEarly   Rule = "session ended early"  // a silent member's partitions went on before its session timeout
	TooLate    Rule = "session ended late"   // a silent member's partitions were kept long after it
	Stuck      Rule = "stuck in a rebalance" // at the end some partitions belonged to nobody
)
