// Package planted holds bugs on purpose: lies that a program could tell about what
// it keeps. The fault harness (conformance/cluster) has to find each of them, else
// its silence about the true program would prove nothing.
//
// They are in no program but one that is built with the tag planted, and there the
// environment says which one acts. Without the tag Is is the constant false, and the
// compiler leaves out what hangs on it.
package planted

// Bug is a planted bug: a line at the place that it is in asks Is.
type Bug string

// Environment names the variable with the bug that acts.
const Environment = "PLANTED_BUG"

// The bugs.
const (
	AckBeforeQuorum    Bug = "ack-before-quorum"    // an entry counts as stored as soon as one bookie has it
	NoFence            Bug = "no-fence"             // opening a log does not fence the ledger of its owner before
	ShortRecovery      Bug = "short-recovery"       // recovery of a ledger does not read past the last entry known to be confirmed
	EpochBack          Bug = "epoch-back"           // each leader of a log has a smaller epoch than the one before
	EarlyHighWatermark Bug = "early-high-watermark" // records are visible before they are stored
	LostProducers      Bug = "lost-producers"       // opening a log forgets which batches it has of idempotent producers
	LostHandover       Bug = "lost-handover"        // a log that is handed over is sealed before its last records
	ZeroEnd            Bug = "zero-end"             // the end of a log is told to be 0 until something is appended after its opening
	ZombieEnds         Bug = "zombie-ends"          // ends of logs are told without proof that this node still leads them
	ServeAfterExpiry   Bug = "serve-after-expiry"   // a lease is taken to last for ever
	StaleOffsets       Bug = "stale-offsets"        // requests of groups are served without proof that this node still coordinates them
	UnguardedCommits   Bug = "unguarded-commits"    // offsets are written whoever owns the slot, and without proof
	ForgottenGroups    Bug = "forgotten-groups"     // the next coordinator of a group does not read who is in it
	ForwardTwice       Bug = "forward-twice"        // a request for another node is sent there twice
	MixedAnswers       Bug = "mixed-answers"        // the answers to two requests over one link are exchanged
)

// All lists them.
var All = []Bug{
	AckBeforeQuorum, NoFence, ShortRecovery, EpochBack, EarlyHighWatermark, LostProducers, LostHandover, ZeroEnd,
	ZombieEnds, ServeAfterExpiry, StaleOffsets, UnguardedCommits, ForgottenGroups, ForwardTwice, MixedAnswers,
}
