package storage

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/quirelog/quire/storage/ledger"
	"github.com/quirelog/quire/storage/meta"
)

const (
	// chainSpillBytes is the size past which a chain's record hands its older
	// ledgers to a page: the record is rewritten at every roll.
	chainSpillBytes = 16 << 10
	// chainInline is how many ledgers stay in the record at least. The ones
	// that are not sealed yet are always among them.
	chainInline = 32
)

// link is one ledger of a chain.
type link struct {
	id           ledger.ID
	epoch        int32
	sealed       bool  // the fields below are known
	aborted      bool  // it holds markers of aborted transactions
	base, last   int64 // offsets of the first and last record
	lastEntry    int64 // entries beyond it do not belong to the log
	bytes        int64
	maxTimestamp int64 // of its records, ms; noTimestamp if they have none
	written      int64 // wall clock of its last append, or of its recovery, ms
}

// age returns the time from which the ledger ages, ms.
func (k *link) age() int64 {
	if k.maxTimestamp >= 0 {
		return k.maxTimestamp
	}
	return k.written
}

// page says where older links of a chain lie. Pages are written once.
type page struct {
	number uint64
	links  int
}

// chain is what the metadata store knows of a log. It is never changed in
// place: a swap makes a new one.
type chain struct {
	epoch int32
	start int64  // log start offset; the end too if there are no ledgers
	owner uint64 // random, of the open log that wrote the record
	swap  uint64 // of this owner, counted
	links []link // oldest first, those of pages included

	pages    []page
	skip     int    // links of the first page that have left the chain
	nextPage uint64 // number of the next page

	// purges counts how often ledgers of the log were deleted since no chain had
	// them. A ledger made under one count is not linked under another: it may be gone.
	purges uint64

	rev    meta.Revision // of the record, 0 if there is none
	exists []meta.Cond   // without a record: what holds while the topic exists
}

func (c *chain) clone() *chain {
	n := *c
	n.links = append([]link(nil), c.links...)
	n.pages = append([]page(nil), c.pages...)
	return &n
}

// adds says whether the chain has a ledger that old has not.
func (c *chain) adds(old *chain) bool {
	for i := range c.links {
		id := c.links[i].id
		if !slices.ContainsFunc(old.links, func(k link) bool { return k.id == id }) {
			return true
		}
	}
	return false
}

// paged returns how many links lie in pages.
func (c *chain) paged() int {
	n := -c.skip
	for _, p := range c.pages {
		n += p.links
	}
	return n
}

// drop takes n links from the front and returns the pages that are no longer needed.
func (c *chain) drop(n int) (pages []page) {
	c.links = c.links[n:]
	for n > 0 && len(c.pages) > 0 {
		left := c.pages[0].links - c.skip
		if n < left {
			c.skip += n
			return pages
		}
		n -= left
		pages = append(pages, c.pages[0])
		c.pages, c.skip = c.pages[1:], 0
	}
	return pages
}

const (
	chainVersion = 1

	linkSealed  = 1
	linkAborted = 2
)

// encode writes the record: version u8, epoch u32, then varints: start, owner, swap,
// next page, skip, count of pages (number, links each), the links, purges unless it is 0.
func (c *chain) encode() []byte {
	links := c.links[c.paged():]
	b := make([]byte, 0, 64+len(links)*32)
	b = append(b, chainVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(c.epoch))
	b = binary.AppendUvarint(b, uint64(c.start))
	b = binary.AppendUvarint(b, c.owner)
	b = binary.AppendUvarint(b, c.swap)
	b = binary.AppendUvarint(b, c.nextPage)
	b = binary.AppendUvarint(b, uint64(c.skip))
	b = binary.AppendUvarint(b, uint64(len(c.pages)))
	for _, p := range c.pages {
		b = binary.AppendUvarint(b, p.number)
		b = binary.AppendUvarint(b, uint64(p.links))
	}
	b = appendLinks(b, links)
	if c.purges > 0 {
		b = binary.AppendUvarint(b, c.purges)
	}
	return b
}

func appendLinks(b []byte, links []link) []byte {
	b = binary.AppendUvarint(b, uint64(len(links)))
	var last link
	for _, k := range links {
		var flags uint64
		if k.sealed {
			flags |= linkSealed
		}
		if k.aborted {
			flags |= linkAborted
		}
		b = binary.AppendVarint(b, int64(k.id-last.id))
		b = binary.AppendUvarint(b, uint64(k.epoch))
		b = binary.AppendUvarint(b, flags)
		if k.sealed {
			b = binary.AppendVarint(b, k.base-last.last)
			b = binary.AppendUvarint(b, uint64(k.last-k.base))
			b = binary.AppendUvarint(b, uint64(k.lastEntry))
			b = binary.AppendUvarint(b, uint64(k.bytes))
			b = binary.AppendVarint(b, k.maxTimestamp-last.maxTimestamp)
			b = binary.AppendVarint(b, k.written-last.written)
		}
		last = k
	}
	return b
}

func (d *varints) links() []link {
	n := d.count(3)
	if n == 0 {
		return nil
	}
	links := make([]link, n)
	var last link
	for i := range links {
		k := link{id: last.id + ledger.ID(d.signed())}
		epoch, flags := d.unsigned(), d.unsigned()
		k.epoch, k.sealed, k.aborted = int32(epoch), flags&linkSealed != 0, flags&linkAborted != 0
		if k.sealed {
			k.base = last.last + d.signed()
			k.last = k.base + d.offset()
			k.lastEntry, k.bytes = d.offset(), d.offset()
			k.maxTimestamp = last.maxTimestamp + d.signed()
			k.written = last.written + d.signed()
		}
		if k.id <= 0 || epoch > math.MaxInt32 || k.base < 0 || k.last < k.base {
			d.bad = true
		}
		links[i], last = k, k
	}
	return links
}

// decodeEpoch reads no more of a record than its epoch.
func decodeEpoch(b []byte) (int32, error) {
	if len(b) < 5 || b[0] != chainVersion {
		return 0, errors.New("record of unknown version")
	}
	return int32(binary.BigEndian.Uint32(b[1:])), nil
}

// decodeChain reads a record, without the links that lie in pages.
func decodeChain(kv meta.KV) (*chain, error) {
	epoch, err := decodeEpoch(kv.Value)
	if err != nil {
		return nil, fmt.Errorf("chain at %s: %w", kv.Key, err)
	}
	d := varints{b: kv.Value[5:]}
	c := &chain{epoch: epoch, rev: kv.Modified}
	c.start, c.owner, c.swap, c.nextPage, c.skip = d.offset(), d.unsigned(), d.unsigned(), d.unsigned(), int(d.offset())
	c.pages = make([]page, d.count(2))
	for i := range c.pages {
		c.pages[i] = page{number: d.unsigned(), links: int(d.offset())}
	}
	c.links = d.links()
	if len(d.b) > 0 {
		c.purges = d.unsigned()
	}
	if d.bad || len(d.b) > 0 || epoch < 0 || c.skip < 0 || c.skip > 0 && (len(c.pages) == 0 || c.skip >= c.pages[0].links) {
		return nil, fmt.Errorf("chain at %s: malformed record of %d bytes", kv.Key, len(kv.Value))
	}
	return c, nil
}

// CountLedgers returns how many ledgers the chains under prefix have in a tier.
func CountLedgers(ctx context.Context, store meta.Store, prefix string, tier int) (n int, err error) {
	count := func(links []link) {
		for i := range links {
			if of, _ := TierOf(links[i].id); of == tier {
				n++
			}
		}
	}
	var bad error
	_, err = store.List(ctx, prefix+"log/", func(kv meta.KV) bool {
		var c *chain
		if c, bad = decodeChain(kv); bad == nil {
			count(c.links)
		}
		return bad == nil
	})
	if err = cmp.Or(err, bad); err != nil {
		return n, fmt.Errorf("count ledgers: %w", err)
	}
	_, err = store.List(ctx, prefix+"logpage/", func(kv meta.KV) bool {
		d := varints{b: kv.Value}
		count(d.links())
		return true
	})
	if err != nil {
		return n, fmt.Errorf("count ledgers: %w", err)
	}
	return n, nil
}

// chainKey returns the key of a log's record.
func (s *Store) chainKey(id LogID) string {
	return s.topicPrefix(id.Topic) + strconv.Itoa(int(id.Partition))
}

func (s *Store) topicPrefix(topic [16]byte) string {
	return s.c.Prefix + "log/" + hex.EncodeToString(topic[:]) + "/"
}

func (s *Store) pageKey(id LogID, number uint64) string {
	return s.pagePrefix(id) + strconv.FormatUint(number, 10)
}

func (s *Store) pagePrefix(id LogID) string {
	return s.topicPagePrefix(id.Topic) + strconv.Itoa(int(id.Partition)) + "/"
}

func (s *Store) topicPagePrefix(topic [16]byte) string {
	return s.c.Prefix + "logpage/" + hex.EncodeToString(topic[:]) + "/"
}

// parseChainKey is the reverse of chainKey.
func (s *Store) parseChainKey(key string) (id LogID, ok bool) {
	rest, ok := strings.CutPrefix(key, s.c.Prefix+"log/")
	if !ok {
		return id, false
	}
	return parseLogName(rest)
}

// logName is the log in a ledger's properties and in messages.
func logName(id LogID) string {
	return hex.EncodeToString(id.Topic[:]) + "/" + strconv.Itoa(int(id.Partition))
}

func parseLogName(name string) (id LogID, ok bool) {
	topic, partition, ok := strings.Cut(name, "/")
	if !ok || len(topic) != 32 {
		return id, false
	}
	if _, err := hex.Decode(id.Topic[:], []byte(topic)); err != nil {
		return id, false
	}
	p, err := strconv.ParseInt(partition, 10, 32)
	if err != nil || p < 0 {
		return id, false
	}
	id.Partition = int32(p)
	return id, true
}

// loadChain reads a log's record and pages. A log that was never written has a
// chain with revision 0.
func (s *Store) loadChain(ctx context.Context, id LogID) (*chain, error) {
	for {
		kv, err := s.c.Meta.Get(ctx, s.chainKey(id))
		if errors.Is(err, meta.ErrNotFound) {
			return &chain{epoch: s.c.FirstEpoch}, nil
		}
		if err != nil {
			return nil, err
		}
		c, err := decodeChain(kv)
		if err != nil {
			return nil, err
		}
		again, err := s.loadPages(ctx, id, c)
		if err != nil {
			return nil, err
		}
		if !again {
			return c, nil
		}
	}
}

// loadPages puts the links of the pages before those of the record. It says
// whether a page was gone because the record has changed meanwhile.
func (s *Store) loadPages(ctx context.Context, id LogID, c *chain) (again bool, err error) {
	var links []link
	for _, p := range c.pages {
		kv, err := s.c.Meta.Get(ctx, s.pageKey(id, p.number))
		if errors.Is(err, meta.ErrNotFound) {
			now, err := s.c.Meta.Get(ctx, s.chainKey(id))
			if errors.Is(err, meta.ErrNotFound) || err == nil && now.Modified != c.rev {
				return true, nil
			}
			if err != nil {
				return false, err
			}
			return false, fmt.Errorf("chain at %s: page %d is missing", s.chainKey(id), p.number)
		}
		if err != nil {
			return false, err
		}
		d := varints{b: kv.Value}
		some := d.links()
		if d.bad || len(d.b) > 0 || len(some) != p.links {
			return false, fmt.Errorf("chain at %s: malformed page %d", s.chainKey(id), p.number)
		}
		links = append(links, some...)
	}
	c.links = append(links[c.skip:], c.links...)
	return false, nil
}

// swapOps spills old links to a page if the record has become too long, and
// returns what to write.
func (s *Store) swapOps(id LogID, c *chain) []meta.Op {
	var ops []meta.Op
	value := c.encode()
	if inline := c.links[c.paged():]; len(value) > chainSpillBytes && len(inline) >= 2*chainInline {
		n := len(inline) / 2
		for i, k := range inline[:n] {
			if !k.sealed {
				n = i
				break
			}
		}
		if n > 0 {
			ops = append(ops, meta.Put(s.pageKey(id, c.nextPage), appendLinks(nil, inline[:n])))
			c.pages = append(c.pages, page{number: c.nextPage, links: n})
			c.nextPage++
			value = c.encode()
		}
	}
	return append(ops, meta.Put(s.chainKey(id), value))
}

// deletePages removes pages that no record names any more. This comes after the
// swap, not with it: a swap whose outcome is unknown may come through late, and what is
// written over it still names the pages. What a crash leaves is removed by removeStrayPages.
func (s *Store) deletePages(ctx context.Context, id LogID, gone []page) error {
	for some := range slices.Chunk(gone, meta.MaxTxnOps) {
		ops := make([]meta.Op, len(some))
		for i, p := range some {
			ops[i] = meta.Delete(s.pageKey(id, p.number))
		}
		if _, _, err := s.c.Meta.Txn(ctx, nil, ops); err != nil {
			return err
		}
	}
	return nil
}

// removeStrayPages deletes the pages from before c that c, written by this owner, does
// not name. Numbers are never used again, so what a later owner has made stays.
func (s *Store) removeStrayPages(ctx context.Context, id LogID, c *chain) error {
	if c.nextPage == 0 {
		return nil
	}
	var gone []page
	_, err := s.c.Meta.List(ctx, s.pagePrefix(id), func(kv meta.KV) bool {
		n, err := strconv.ParseUint(kv.Key[len(s.pagePrefix(id)):], 10, 64)
		if err == nil && n < c.nextPage && !slices.ContainsFunc(c.pages, func(p page) bool { return p.number == n }) {
			gone = append(gone, page{number: n})
		}
		return true
	})
	if err != nil {
		return err
	}
	return s.deletePages(ctx, id, gone)
}

// swapChain writes the record next in place of old. It returns next's revision,
// or errConflict with the owner of what is there instead, or *purgedError, or
// errTopicDeleted of a first record. After any other
// error the record may be either of the two, now or a moment later; the same
// owner may call again with what it believes.
func (s *Store) swapChain(ctx context.Context, id LogID, old, next *chain) error {
	ops := s.swapOps(id, next)
	cond := []meta.Cond{{Key: s.chainKey(id), Modified: old.rev}}
	for range 3 {
		if cond = cond[:1]; cond[0].Modified == 0 {
			cond = append(cond, old.exists...)
		}
		rev, ok, err := s.c.Meta.Txn(ctx, cond, ops)
		if err == nil && ok {
			next.rev = rev
			return nil
		}
		kv, getErr := s.c.Meta.Get(ctx, s.chainKey(id))
		switch {
		case errors.Is(getErr, meta.ErrNotFound):
			if err == nil && cond[0].Modified != 0 {
				return fmt.Errorf("%w: its record is gone", errConflict)
			}
			if err == nil {
				if _, err := s.topicExists(ctx, id.Topic); err != nil {
					return err
				}
				err = fmt.Errorf("%w: record came and went", meta.ErrUnknownOutcome)
			}
			return err
		case getErr != nil:
			if err == nil {
				err = getErr
			}
			return err
		}
		there, decodeErr := decodeChain(kv)
		if decodeErr != nil {
			return decodeErr
		}
		switch {
		case there.owner == next.owner && there.swap == next.swap && there.purges == next.purges:
			// An attempt whose answer was lost has succeeded.
			next.rev = kv.Modified
			return nil
		case err != nil:
			return err
		case there.owner == next.owner && there.purges != next.purges:
			return &purgedError{purges: there.purges, rev: kv.Modified}
		case there.owner == next.owner:
			// An earlier attempt of this owner was taken for lost and came
			// through. What it linked is not in use; it is written over.
			cond[0].Modified = kv.Modified
		default:
			return fmt.Errorf("%w: epoch %d was opened", errConflict, there.epoch)
		}
	}
	return meta.ErrUnknownOutcome
}

// topicExists returns what holds while the topic exists, nothing if that cannot be
// said of topics here. The error is errTopicDeleted if it does not exist: it never will again.
func (s *Store) topicExists(ctx context.Context, topic [16]byte) ([]meta.Cond, error) {
	if s.c.TopicKey == nil {
		return nil, nil
	}
	kv, err := s.c.Meta.Get(ctx, s.c.TopicKey(topic))
	if errors.Is(err, meta.ErrNotFound) {
		return nil, errTopicDeleted
	}
	if err != nil {
		return nil, err
	}
	return []meta.Cond{{Key: kv.Key, Modified: kv.Modified}}, nil
}

// purgedError says that the janitor has deleted ledgers of the log since the swap's
// owner read or wrote the record, which is otherwise the owner's. A ledger made
// before may be among them.
type purgedError struct {
	purges uint64
	rev    meta.Revision
}

func (e *purgedError) Error() string {
	return "ledgers outside the chain were deleted meanwhile"
}

// errConflict says that another owner has written the record.
var errConflict = errors.New("chain belongs to another owner")
