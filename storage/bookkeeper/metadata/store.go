package metadata

import (
	"context"
	"errors"
)

var (
	// ErrNotFound: there is no such ledger.
	ErrNotFound = errors.New("no such ledger")
	// ErrExists: a ledger with this id exists already, and this call did not make it.
	ErrExists = errors.New("ledger exists already")
	// ErrConflict: the metadata was changed since the version given. Read it again
	// and decide anew.
	ErrConflict = errors.New("ledger metadata was changed by somebody else")
	// ErrUnavailable: the store did not answer; nothing was changed.
	ErrUnavailable = errors.New("ledger metadata store is not available")
	// ErrUnknownOutcome: the store did not answer in time; the change may or may
	// not have been made, or be made yet. Read before deciding.
	ErrUnknownOutcome = errors.New("outcome of the change of ledger metadata is not known")
	// ErrNewerVersion: the bytes are of a format newer than version 3.
	ErrNewerVersion = errors.New("ledger metadata is of a newer version")
	// ErrOldVersion: the bytes are of version 1 or 2, which BookKeeper wrote before 4.9.
	ErrOldVersion = errors.New("ledger metadata is of a version before 3")
	// ErrCorrupt: the bytes are not what they should be, or contradict themselves.
	ErrCorrupt = errors.New("metadata is damaged")
	// ErrInvalid: the ledger given makes no sense: quorums that contradict each
	// other, a segment of the wrong size, an id that cannot be.
	ErrInvalid = errors.New("invalid ledger metadata")
	// ErrNotInitialised: the store holds no cluster. Its operator has to run
	// BookKeeper's "initnewcluster" first.
	ErrNotInitialised = errors.New("no BookKeeper cluster in this metadata store")
	// ErrWrongCluster: the store, or a bookie's cookie, is of another cluster.
	ErrWrongCluster = errors.New("belongs to another BookKeeper cluster")
	// ErrClosed: the client that the store was given is closed.
	ErrClosed = errors.New("ledger metadata store is closed")
)

const (
	// NoID in Ledger.ID lets Create take a new id.
	NoID int64 = -1
	// AnyVersion in Delete asks for no comparison.
	AnyVersion Version = -1
)

// Store keeps what bookies and clients agree on. All methods may be called from
// any goroutine, and end early with ctx. Errors are the sentinels above or the
// context's, wrapped with the ledger's id; a change cut short by its context
// after it was sent is both the context's error and ErrUnknownOutcome. No method
// keeps or changes a Ledger that it is given, except Create, which completes it;
// a Ledger that it returns is the caller's.
type Store interface {
	// InstanceID returns the id of the cluster. ErrNotInitialised if there is
	// none. A caller that knows the cluster compares, see CheckInstance.
	InstanceID(ctx context.Context) (string, error)

	// Cookies returns the cookies of all bookies that belong to the cluster, up or
	// not: what has neither cookie nor registration was decommissioned. A cookie
	// that cannot be read is left out, and part of the error (ErrCorrupt), which
	// comes beside the others.
	Cookies(ctx context.Context) (map[BookieID]Cookie, error)

	// Create writes the metadata of a new ledger. Only then may entries be added
	// to it: bookies drop what is not in the store. If l.ID is NoID, it takes an id
	// above 0 that no ledger has had and sets l.ID; an id that the caller chose may
	// be ErrExists. It sets l.CToken if that is 0, and knows by it its own write whose
	// answer was lost. After ErrUnknownOutcome a ledger l.ID may exist or appear;
	// another Create with the same l finds out.
	Create(ctx context.Context, l *Ledger) (Version, error)

	// Read returns the ledger as of now (linearizably). ErrNotFound.
	Read(ctx context.Context, id int64) (*Ledger, Version, error)

	// Update replaces the metadata if it is still of the version given: ErrConflict
	// if it is not, ErrNotFound if it is gone. l must come from Read (or Create)
	// and be changed: what this code does not know of it is written back.
	Update(ctx context.Context, l *Ledger, v Version) (Version, error)

	// Delete removes the metadata if it is of the version given, ErrConflict if it
	// is not. That deletes the ledger: bookies drop its entries. No error if there
	// is no such ledger.
	Delete(ctx context.Context, id int64, v Version) error

	// List calls f for every ledger whose id is at least from, in order of ids,
	// until f returns false. A ledger that exists from beginning to end is given
	// once, one that comes or goes meanwhile at most once. It reads in pages, so it
	// may call f before it fails.
	List(ctx context.Context, from int64, f func(Listed) bool) error

	// Bookies begins to follow which bookies are registered. ctx bounds the first
	// reading alone; Close the registry.
	Bookies(ctx context.Context) (*Registry, error)

	// MarkUnderReplicated asks AutoRecovery to restore the replicas that a ledger
	// has on the bookies missing. Marks add up; one mark more changes nothing. The
	// replication worker takes a mark away when it is done.
	MarkUnderReplicated(ctx context.Context, id int64, missing []BookieID) error

	// ListUnderReplicated calls f for every mark in order of ids until f returns
	// false. It reads in pages, so it may call f before it fails.
	ListUnderReplicated(ctx context.Context, f func(Mark) bool) error
}

// Listed is one ledger of a listing. One whose bytes cannot be read has Err
// (ErrNewerVersion, ErrOldVersion, ErrCorrupt) and no Ledger: it exists all the same.
type Listed struct {
	ID      int64
	Version Version
	Ledger  *Ledger
	Err     error
}

// Mark is a ledger that lacks replicas.
type Mark struct {
	Ledger    int64
	Missing   []BookieID
	CreatedMS int64 // 0: not recorded
}

// Cookie is what a bookie wrote when it first started: the proof that a folder
// belongs to an identity and a cluster.
type Cookie struct {
	BookieHost string // host:port, or the id if the operator chose one
	InstanceID string // empty in cookies of very old bookies
}
