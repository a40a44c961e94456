package metadata

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Ledgers' metadata begins with this line; version 3 is then one message with
// its length before it (LedgerMetadataSerDe).
const (
	versionKey = "BookieMetadataFormatVersion\t"
	header     = versionKey + "3\n"
)

// MaxEnsemble bounds the bookies of a segment, far above any use.
const MaxEnsemble = 1 << 10

// AppendLedger appends the metadata in version 3, as BookKeeper writes it.
// ErrInvalid if it makes no sense. The id is not part of it.
func AppendLedger(dst []byte, l *Ledger) ([]byte, error) {
	if err := Check(l); err != nil {
		return nil, err
	}
	if l.ID < 0 {
		return nil, fmt.Errorf("ledger %d: %w: the id is negative", l.ID, ErrInvalid)
	}
	dst = append(dst, header...)
	body := appendFormat(nil, l)
	dst = protowire.AppendVarint(dst, uint64(len(body)))
	return append(dst, body...), nil
}

// ParseLedger reads what AppendLedger or BookKeeper wrote for a ledger. It copies
// what it keeps. Fields that it does not know are kept and written back: a newer
// BookKeeper may add some without a new version. ErrNewerVersion, ErrOldVersion
// or ErrCorrupt.
func ParseLedger(id int64, data []byte) (*Ledger, error) {
	fail := func(class error, why string) (*Ledger, error) {
		return nil, fmt.Errorf("ledger %d: %w: %s", id, class, why)
	}
	rest, ok := strings.CutPrefix(string(data), header)
	if !ok {
		version, ok := strings.CutPrefix(string(data), versionKey)
		version, _, ended := strings.Cut(version, "\n")
		switch {
		case ok && ended && (version == "1" || version == "2"):
			return fail(ErrOldVersion, "version "+version)
		case ok && ended && len(version) <= 9 && strings.Trim(version, "0123456789") == "" && strings.TrimLeft(version, "0") > "":
			return fail(ErrNewerVersion, "version "+version)
		}
		return fail(ErrCorrupt, "it does not begin with a version")
	}
	size, n := protowire.ConsumeVarint([]byte(rest))
	if n < 0 || size != uint64(len(rest)-n) {
		return fail(ErrCorrupt, "its length is not the one it says")
	}
	l, err := parseFormat([]byte(rest[n:]))
	if err == nil {
		l.ID = id
		err = l.check()
	}
	if err != nil {
		return fail(ErrCorrupt, err.Error())
	}
	return l, nil
}

// Check says with ErrInvalid whether a ledger makes sense, whatever its id.
func Check(l *Ledger) error {
	if err := l.check(); err != nil {
		return fmt.Errorf("ledger %d: %w: %w", l.ID, ErrInvalid, err)
	}
	return nil
}

// check says why a ledger makes no sense.
func (l *Ledger) check() error {
	switch {
	case l.AckQuorum < 1 || l.WriteQuorum < l.AckQuorum || l.Ensemble < l.WriteQuorum || l.Ensemble > MaxEnsemble:
		return fmt.Errorf("ensemble %d, write quorum %d, ack quorum %d: want %d ≥ ensemble ≥ write quorum ≥ ack quorum ≥ 1",
			l.Ensemble, l.WriteQuorum, l.AckQuorum, MaxEnsemble)
	case l.State < Open || l.State > Closed:
		return fmt.Errorf("state %d", l.State)
	case l.Digest < 0 || l.Digest > Dummy:
		return fmt.Errorf("digest type %d", l.Digest)
	case l.State == Closed && (l.LastEntry < NoEntry || l.Length < 0):
		return fmt.Errorf("closed at entry %d with %d bytes", l.LastEntry, l.Length)
	case len(l.Segments) == 0 || l.Segments[0].First != 0:
		return errors.New("no segment begins at entry 0")
	}
	for i, s := range l.Segments {
		if i > 0 && s.First <= l.Segments[i-1].First {
			return fmt.Errorf("segment at entry %d after the one at %d", s.First, l.Segments[i-1].First)
		}
		if len(s.Bookies) != l.Ensemble {
			return fmt.Errorf("the segment at entry %d has %d bookies of %d", s.First, len(s.Bookies), l.Ensemble)
		}
		for j, b := range s.Bookies {
			if !b.Valid() {
				return fmt.Errorf("bookie id %q", b)
			}
			if slices.Contains(s.Bookies[:j], b) {
				return fmt.Errorf("the segment at entry %d has %s twice", s.First, b)
			}
		}
	}
	return nil
}
