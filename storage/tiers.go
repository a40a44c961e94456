package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/quirelog/quire/storage/ledger"
)

// tierShift is where the number of a ledger's tier lies in its id. The ids of tiers
// are their own and may be equal; what chains hold says whose they are. Ledgers
// of tier 0 have the ids that chains had when there was one tier.
const tierShift = 60

// maxTiers is how many numbers fit beside the sign.
const maxTiers = 1 << (63 - tierShift)

// Tiers makes one tier of several: a chain may begin in one and go on in another.
// New ledgers go to one of them, the others are read, recovered and emptied.
type Tiers struct {
	tiers  []ledger.Tier // by number; nil: not configured
	create int
}

var _ ledger.Tier = (*Tiers)(nil)

// NewTiers returns a tier of tiers, by their numbers, which must stay the same for the
// life of a cluster; a number without a tier is nil. create is the number of the
// one that takes new ledgers. The tiers stay the caller's to close.
func NewTiers(create int, tiers ...ledger.Tier) (*Tiers, error) {
	if len(tiers) > maxTiers {
		return nil, fmt.Errorf("storage: %d ledger tiers, of at most %d", len(tiers), maxTiers)
	}
	if create < 0 || create >= len(tiers) || tiers[create] == nil {
		return nil, fmt.Errorf("storage: no ledger tier %d to create ledgers in", create)
	}
	return &Tiers{tiers: tiers, create: create}, nil
}

// ErrNoTier says that a ledger lies in a tier that is not configured.
var ErrNoTier = errors.New("the ledger lies in a storage tier that is not configured")

// TierOf splits the id of a ledger, as chains and Tiers have it, into the number of
// its tier and its id there.
func TierOf(id ledger.ID) (tier int, own ledger.ID) {
	return int(id >> tierShift), id & (1<<tierShift - 1)
}

func (t *Tiers) outside(tier int, own ledger.ID) ledger.ID {
	return ledger.ID(tier)<<tierShift | own
}

func (t *Tiers) of(id ledger.ID) (ledger.Tier, ledger.ID, error) {
	tier, own := TierOf(id)
	if tier < 0 || tier >= len(t.tiers) || t.tiers[tier] == nil {
		return nil, 0, fmt.Errorf("ledger %d of tier %d: %w", own, tier, ErrNoTier)
	}
	return t.tiers[tier], own, nil
}

// Create implements ledger.Tier.
func (t *Tiers) Create(ctx context.Context, props ledger.Properties) (ledger.Writer, error) {
	w, err := t.tiers[t.create].Create(ctx, props)
	if err != nil {
		return nil, err
	}
	if tier, _ := TierOf(w.ID()); tier != 0 {
		_, closeErr := w.Close(ctx)
		return nil, errors.Join(fmt.Errorf("ledger %d: %w: its id leaves no room for the tier's", w.ID(), ledger.ErrFailed), closeErr)
	}
	if t.create == 0 {
		return w, nil
	}
	return tierWriter{w, t.outside(t.create, w.ID())}, nil
}

// Open implements ledger.Tier.
func (t *Tiers) Open(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	tier, own, err := t.of(id)
	if err != nil {
		return nil, err
	}
	r, err := tier.Open(ctx, own)
	if err != nil || own == id {
		return r, err
	}
	return tierReader{r, id}, nil
}

// Recover implements ledger.Tier.
func (t *Tiers) Recover(ctx context.Context, id ledger.ID) (ledger.Reader, error) {
	tier, own, err := t.of(id)
	if err != nil {
		return nil, err
	}
	r, err := tier.Recover(ctx, own)
	if err != nil || own == id {
		return r, err
	}
	return tierReader{r, id}, nil
}

// Delete implements ledger.Tier.
func (t *Tiers) Delete(ctx context.Context, id ledger.ID) error {
	tier, own, err := t.of(id)
	if err != nil {
		return err
	}
	return tier.Delete(ctx, own)
}

// List implements ledger.Tier, one tier after the other.
func (t *Tiers) List(ctx context.Context, f func(ledger.Info) bool) error {
	for n, tier := range t.tiers {
		if tier == nil {
			continue
		}
		more := true
		err := tier.List(ctx, func(i ledger.Info) bool {
			i.ID = t.outside(n, i.ID)
			more = f(i)
			return more
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// Reserve implements ledger.Reserver, for those tiers that do.
func (t *Tiers) Reserve(last ledger.ID) {
	if tier, own, err := t.of(last); err == nil {
		if r, ok := tier.(ledger.Reserver); ok {
			r.Reserve(own)
		}
	}
}

// MaxEntryBytes implements ledger.Tier: what the tier of new ledgers takes.
func (t *Tiers) MaxEntryBytes() int { return t.tiers[t.create].MaxEntryBytes() }

// Close does nothing: the tiers are the caller's.
func (*Tiers) Close() error { return nil }

type tierWriter struct {
	ledger.Writer
	id ledger.ID
}

func (w tierWriter) ID() ledger.ID { return w.id }

func (w tierWriter) Close(ctx context.Context) (ledger.Sealed, error) {
	s, err := w.Writer.Close(ctx)
	s.ID = w.id
	return s, err
}

// Degraded implements ledger.Degradable.
func (w tierWriter) Degraded() bool {
	d, ok := w.Writer.(ledger.Degradable)
	return ok && d.Degraded()
}

func (w tierWriter) Reader() ledger.Reader { return tierReader{w.Writer.Reader(), w.id} }

type tierReader struct {
	ledger.Reader
	id ledger.ID
}

func (r tierReader) ID() ledger.ID { return r.id }
