package embedded

import (
	"sync"

	"github.com/quirelog/quire/storage/ledger"
)

// Scratch values of Append.Entry while the tier owns the Append.
const (
	entryQueued int64 = -1
	entryDoomed int64 = -2 // to be refused for lack of space
)

// tail is where a ledger ends, as the journal lays it out.
type tail struct {
	next      int64 // entry that comes next
	end       int64 // length of the ledger file
	bytes     int64 // sum of the lengths of the entries
	indexPos  int64 // the last index frame, 0 if none
	sinceIdx  int   // len(index) when it was written
	indexLen  int
	lastNoted int64 // pos of index[indexLen-1]
	sealed    bool
}

// ledgerState is what the process knows of a ledger. It is in Tier.ledgers
// while someone holds it, and costs a file only while its bytes move.
//
// Locks: mu may be taken with no lock held, or with Tier.mu. No I/O and no
// callback happens under mu.
type ledgerState struct {
	id ledger.ID
	t  *Tier

	loadOnce sync.Once
	loadErr  error
	props    ledger.Properties

	mu         sync.Mutex
	head, last *ledger.Append // appended, not yet taken by the journal
	inQueue    bool           // on the journal's ready list, or being taken by the journal
	doomed     int            // appends refused for lack of space whose Appended has not returned
	acked      int64          // last acknowledged entry
	ackedBytes int64
	sealed     bool // the seal is durable
	deleted    bool
	index      []indexEntry // positions, about one per indexEvery bytes; may reach beyond acked
	firstRun   *run         // acknowledged runs that are not in the file yet, in order
	lastRun    *run
	flushed    int64 // the file holds the bytes below, which are those before firstRun
	backlog    int64 // bytes of those runs

	nextReady *ledgerState // journal.mu

	// The journal goroutine's own.
	work  *ledger.Append // taken, not yet in a group
	tail  tail
	ended error // why appends fail from here on

	// The write-behind goroutine's own, but for listed and hot: writeBehind.mu.
	listed    bool // holds runs, is on the list
	hot       bool
	unsynced  bool
	written   int64 // the file holds the bytes below, perhaps a part of firstRun
	fileIndex int64 // position of the last index frame in the file
	slotIndex int64 // the one that the file's header names

	refs int // Tier.mu
}

// run is a piece of the backlog: consecutive bytes of one ledger's file in a
// chunk, or a control record.
type run struct {
	l     *ledgerState
	kind  uint32
	first int64
	count int
	pos   int64  // in the ledger file
	b     []byte // frames in c.b; of a create the file's header
	c     *chunk
	next  *run

	before   tail // to undo the run when its group fails
	wasEnded error
	after    tail // what holds once it is acknowledged
	off      int  // of the run header in the group
}

var runs = sync.Pool{New: func() any { return new(run) }}

func (r *run) free() {
	*r = run{}
	runs.Put(r)
}

// position returns where in the file a reader that wants entry starts to look,
// and which entry lies there. Call it with mu held.
func (l *ledgerState) position(entry int64) indexEntry {
	lo, hi := 0, len(l.index)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if l.index[m].entry <= entry {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo == 0 {
		return indexEntry{}
	}
	return l.index[lo-1]
}

// control is a record for the journal that is no entry. It travels in the
// queue of its ledger, so it takes effect behind the appends made before it.
type control struct {
	ledger.Append
	kind  uint32
	body  []byte
	then  error // of runSeal: what later appends fail with
	owner bool  // of runSeal: by the writer, who must not seal what it lost
	done  chan error
	// finish is called in place of a send to done.
	finish func(error)
}

func newControl(kind uint32) *control {
	c := &control{kind: kind, done: make(chan error, 1)}
	c.Done = c
	return c
}

// Appended implements ledger.Completion.
func (c *control) Appended(_ *ledger.Append, err error) {
	if c.finish != nil {
		c.finish(err)
		return
	}
	c.done <- err
}

// push queues an append or a control record. It never blocks on I/O.
func (l *ledgerState) push(a *ledger.Append, n int64) {
	j := &l.t.journal
	a.Next = nil
	a.Entry = entryQueued
	l.mu.Lock()
	if n >= 0 && (l.doomed > 0 || !j.reserve(n)) {
		a.Entry = entryDoomed
		l.doomed++
	}
	if l.last == nil {
		l.head = a
	} else {
		l.last.Next = a
	}
	l.last = a
	kick := !l.inQueue
	l.inQueue = true
	l.mu.Unlock()
	if kick {
		j.ready(l)
	}
}

// doomQueued refuses what was appended so far but not taken by the journal, so
// that nothing overtakes an append that was refused. Journal goroutine only.
func (l *ledgerState) doomQueued() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range [...]*ledger.Append{l.work, l.head} {
		for ; a != nil; a = a.Next {
			if _, ok := a.Done.(*control); !ok && a.Entry != entryDoomed {
				a.Entry = entryDoomed
				l.doomed++
				l.t.journal.queueBytes.Add(-int64(len(a.Head) + len(a.Body)))
			}
		}
	}
}
