package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"go.uber.org/zap"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/vfs"
)

type reader struct {
	l *ledgerState

	mu     sync.Mutex
	closed bool
	hint   indexEntry // where the entry after the last read begins
	ahead  int64      // the system was asked to read up to here
}

func (r *reader) ID() ledger.ID { return r.l.id }

func (r *reader) Last() (int64, bool) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	return r.l.acked, r.l.sealed
}

func (r *reader) Close() error {
	r.mu.Lock()
	closed := r.closed
	r.closed = true
	r.mu.Unlock()
	if !closed {
		r.l.t.release(r.l)
	}
	return nil
}

// span is a piece of the backlog that a reader copies from.
type span struct {
	b []byte
	c *chunk
}

// maxSpans bounds the runs that one Read gathers.
const maxSpans = 64

// readSlack is what a read takes beyond maxBytes for frame headers.
const readSlack = 4 << 10

func (r *reader) Read(ctx context.Context, first, last int64, maxBytes int) (ledger.Entries, error) {
	l := r.l
	if err := ctx.Err(); err != nil {
		return ledger.Entries{}, err
	}
	r.mu.Lock()
	closed, hint := r.closed, r.hint
	r.mu.Unlock()
	if closed || l.t.isClosed() {
		return ledger.Entries{}, fmt.Errorf("ledger %d: %w", l.id, ledger.ErrClosed)
	}
	if first < 0 {
		return ledger.Entries{}, fmt.Errorf("ledger %d: read of entry %d: %w", l.id, first, ledger.ErrNotFound)
	}
	maxBytes = max(maxBytes, 0)

	var spans [maxSpans]span
	l.mu.Lock()
	if l.deleted {
		l.mu.Unlock()
		return ledger.Entries{}, fmt.Errorf("ledger %d: %w", l.id, ledger.ErrNotFound)
	}
	last = min(last, l.acked)
	if first > last {
		l.mu.Unlock()
		return ledger.Entries{First: first}, nil
	}
	at := l.position(first)
	if hint.entry == first && hint.pos > 0 {
		at = hint
	}
	n := l.backlogSpans(first, at, maxBytes, spans[:])
	end := l.flushed
	l.mu.Unlock()

	if n > 0 {
		e, err := r.copySpans(spans[:n], first, last, maxBytes)
		for _, s := range spans[:n] {
			s.c.release()
		}
		return e, err
	}
	return r.readFile(at, end, first, last, maxBytes)
}

// backlogSpans fills spans with the runs that hold first and what follows it,
// retained; 0 if first is in the file. Call it with mu held.
func (l *ledgerState) backlogSpans(first int64, at indexEntry, maxBytes int, spans []span) int {
	n, bytes := 0, 0
	for r := l.firstRun; r != nil && n < len(spans) && (bytes <= maxBytes || n == 0); r = r.next {
		if r.kind != runEntries || r.first+int64(r.count) <= first {
			continue
		}
		if n == 0 && r.first > first {
			return 0
		}
		b := r.b
		if n == 0 && at.pos >= r.pos && at.entry <= first {
			b = b[at.pos-r.pos:]
		}
		r.c.retain()
		spans[n] = span{b, r.c}
		bytes += len(b)
		n++
	}
	return n
}

// copySpans copies entries out of the backlog, whose memory is wanted back soon.
func (r *reader) copySpans(spans []span, first, last int64, maxBytes int) (ledger.Entries, error) {
	l := r.l
	want, sum := first, 0
	each := func(f func(payload []byte)) {
		want = first
		for _, s := range spans {
			for b := s.b; len(b) > 0 && want <= last; {
				fh := parseFrameHeader(b)
				end := frameHeaderBytes + fh.n
				if fh.kind == kindEntry && fh.entry == want {
					if want > first && sum+fh.n > maxBytes {
						return
					}
					sum += fh.n
					want++
					f(b[frameHeaderBytes:end])
				}
				b = b[end:]
			}
		}
	}
	each(func([]byte) {})
	count := int(want - first)
	if count == 0 {
		return ledger.Entries{}, fmt.Errorf("ledger %d: entry %d is not in its run: %w", l.id, first, ledger.ErrCorrupt)
	}
	buf := buffer.Get(sum)
	e := ledger.Entries{First: first, Data: make([][]byte, 0, count), Buf: buf}
	off := 0
	sum = 0
	each(func(p []byte) {
		n := copy(buf.B[off:], p)
		e.Data = append(e.Data, buf.B[off:off+n:off+n])
		off += n
	})
	return e, nil
}

// readFile reads from the ledger file, which holds the bytes below end. The
// frame of entry at.entry begins at at.pos.
func (r *reader) readFile(at indexEntry, end, first, last int64, maxBytes int) (ledger.Entries, error) {
	l := r.l
	f, err := l.t.cache.get(l.id, false)
	if err != nil {
		return ledger.Entries{}, err
	}
	defer f.release()
	corrupt := func(entry, pos int64, why string) error {
		l.mu.Lock()
		deleted := l.deleted
		l.mu.Unlock()
		if deleted { // what was not written yet never will be
			return fmt.Errorf("ledger %d: %w", l.id, ledger.ErrNotFound)
		}
		l.t.metrics.corruptEntries.Inc()
		err := fmt.Errorf("ledger %d: entry %d at %d %s: %w", l.id, entry, pos, why, ledger.ErrCorrupt)
		l.t.log.Error("stored entry is corrupt", zap.Error(err))
		return err
	}
	if at.pos <= 0 {
		return ledger.Entries{}, corrupt(first, at.pos, "is not in the index")
	}
	want := int64(maxBytes) + readSlack
	if at.entry < first {
		want += l.t.c.indexEvery
	}
	for {
		n := min(want, end-at.pos)
		if n < frameHeaderBytes {
			return ledger.Entries{}, corrupt(at.entry, at.pos, "lies behind the end of the file")
		}
		buf := buffer.Get(int(n))
		got, err := f.ReadAt(buf.B, at.pos)
		if err != nil {
			buf.Release()
			if errors.Is(err, io.EOF) {
				return ledger.Entries{}, corrupt(at.entry, at.pos+int64(got), "is cut off")
			}
			return ledger.Entries{}, fmt.Errorf("ledger %d: %w", l.id, err)
		}
		e := ledger.Entries{First: first, Buf: buf}
		b := buf.B
		next, pos := at.entry, at.pos // what comes at b
		sum, need := 0, int64(0)
		var bad error
		for next <= last && len(b) >= frameHeaderBytes {
			fh := parseFrameHeader(b)
			size := frameHeaderBytes + fh.n
			if fh.id != l.id || fh.kind == kindEntry && fh.entry != next ||
				fh.kind != kindEntry && (fh.kind != kindIndex || fh.entry != next-1) || int64(size) > end-pos {
				bad = corrupt(next, pos, "has no valid header")
				break
			}
			if len(e.Data) > 0 && fh.kind == kindEntry && sum+fh.n > maxBytes {
				break
			}
			if size > len(b) {
				need = int64(size)
				break
			}
			if fh.kind == kindEntry && next >= first {
				if !frameIntact(b[:size]) {
					bad = corrupt(next, pos, "does not match its checksum")
					break
				}
				e.Data = append(e.Data, b[frameHeaderBytes:size:size])
				sum += fh.n
			}
			if fh.kind == kindEntry {
				next++
			}
			b = b[size:]
			pos += int64(size)
		}
		if len(e.Data) > 0 {
			r.remember(f, indexEntry{next, pos}, end)
			return e, nil
		}
		buf.Release()
		if bad != nil {
			return ledger.Entries{}, bad
		}
		if next > last {
			return ledger.Entries{}, corrupt(first, pos, "is missing")
		}
		// The entry is longer than what was read, or what was skipped was.
		at = indexEntry{next, pos}
		want = max(need, frameHeaderBytes, min(want, end-pos))
	}
}

// readAheadBytes is how far ahead of a reader that goes straight on the system is asked to read.
const readAheadBytes = 1 << 20

func (r *reader) remember(f *openFile, at indexEntry, end int64) {
	r.mu.Lock()
	straight := r.hint.pos > 0 && at.pos > r.hint.pos
	r.hint = at
	var from, to int64
	if straight && at.pos+readAheadBytes/2 > r.ahead {
		from = max(at.pos, r.ahead)
		to = min(at.pos+readAheadBytes, end)
		r.ahead = to
	} else if !straight {
		r.ahead = 0
	}
	r.mu.Unlock()
	if to > from {
		f.Advise(from, to-from, vfs.WillNeed)
	}
}
