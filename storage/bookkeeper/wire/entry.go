package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// ErrCorrupt: a stored entry that does not match its digest, is another than was
// asked for, or is too short. What the bookie holds of the entry is unknown:
// another replica may have it, and it is no sign of absence.
var ErrCorrupt = errors.New("stored entry is corrupt")

// Entry is a stored entry, taken apart.
type Entry struct {
	Ledger, ID int64
	// LastAddConfirmed is what the writer knew to be acknowledged when it sent
	// the entry: every entry up to it is. Copies of an entry may differ in it, and
	// those that a replication worker made of a closed ledger name its last entry
	// (LedgerFragmentReplicator).
	LastAddConfirmed int64
	// Length is the sum of the payloads up to this entry, which is included.
	Length  int64
	Payload []byte // a part of what was parsed
}

// Codec writes and checks the entries of one ledger. Any goroutine may use it.
type Codec struct {
	ledger int64
	key    MasterKey
	digest digest
}

// NewCodec makes the codec of a ledger with this digest and password.
// ErrDigestType.
func NewCodec(ledger int64, kind metadata.Digest, password []byte) (*Codec, error) {
	d, err := newDigest(kind, password)
	if err != nil {
		return nil, fmt.Errorf("ledger %d: %w", ledger, err)
	}
	return &Codec{ledger: ledger, key: NewMasterKey(password), digest: d}, nil
}

// Ledger returns the id of the codec's ledger.
func (c *Codec) Ledger() int64 { return c.ledger }

// MasterKey returns the key that adds and fencing reads carry.
func (c *Codec) MasterKey() MasterKey { return c.key }

// AddHeadBytes is what AppendAdd appends for an empty head.
func (c *Codec) AddHeadBytes() int {
	return LengthBytes + addPrefixBytes + MetadataBytes + c.digest.bytes
}

// AppendAdd appends the frame of an add but for body, which the caller sends
// after it: the length prefix counts it and the digest covers it. The payload of
// the entry is head, which is copied, then body, which is only read. lac is the
// last entry known to be acknowledged, length the sum of all payloads up to and
// with this one. The bytes are the same for every bookie.
func (c *Codec) AppendAdd(dst []byte, flags Flags, entry, lac, length int64, head, body []byte) []byte {
	n := addPrefixBytes + MetadataBytes + c.digest.bytes + len(head) + len(body)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n))
	dst = appendHeader(dst, Version, OpAdd, flags)
	dst = append(dst, c.key[:]...)
	meta := len(dst)
	dst = appendInt64(dst, c.ledger)
	dst = appendInt64(dst, entry)
	dst = appendInt64(dst, lac)
	dst = appendInt64(dst, length)
	dst = c.digest.append(dst, dst[meta:], head, body)
	return append(dst, head...)
}

// Parse takes a stored entry apart and checks it: its digest, its ledger and,
// unless entry is LastEntry, its id. The payload is a part of stored. ErrCorrupt.
func (c *Codec) Parse(stored []byte, entry int64) (Entry, error) {
	if len(stored) < MetadataBytes+c.digest.bytes {
		return Entry{}, fmt.Errorf("ledger %d, entry %d: %w: %d bytes", c.ledger, entry, ErrCorrupt, len(stored))
	}
	e := Entry{
		Ledger:           int64At(stored, 0),
		ID:               int64At(stored, 8),
		LastAddConfirmed: int64At(stored, 16),
		Length:           int64At(stored, 24),
		Payload:          stored[MetadataBytes+c.digest.bytes:],
	}
	var room [maxDigestBytes]byte
	sum := c.digest.append(room[:0], stored[:MetadataBytes], nil, e.Payload)
	switch {
	case !bytes.Equal(sum, stored[MetadataBytes:MetadataBytes+c.digest.bytes]):
		return Entry{}, fmt.Errorf("ledger %d, entry %d: %w: its digest is wrong", c.ledger, entry, ErrCorrupt)
	case e.Ledger != c.ledger || e.ID < 0 || entry != LastEntry && e.ID != entry:
		return Entry{}, fmt.Errorf("ledger %d, entry %d: %w: it is entry %d of ledger %d", c.ledger, entry, ErrCorrupt, e.ID, e.Ledger)
	case e.LastAddConfirmed < metadata.NoEntry:
		return Entry{}, fmt.Errorf("ledger %d, entry %d: %w: it says that %d is acknowledged", c.ledger, e.ID, ErrCorrupt, e.LastAddConfirmed)
	case e.Length < int64(len(e.Payload)):
		return Entry{}, fmt.Errorf("ledger %d, entry %d: %w: it says that the ledger has %d bytes", c.ledger, e.ID, ErrCorrupt, e.Length)
	}
	return e, nil
}
