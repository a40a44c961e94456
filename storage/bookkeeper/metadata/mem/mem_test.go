package mem_test

import (
	"context"
	"errors"
	"testing"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/mem"
	"github.com/quirelog/quire/storage/bookkeeper/metadata/metadatatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	metadatatest.Run(t, func(t *testing.T) metadatatest.Harness {
		s := mem.New("cluster")
		return metadatatest.Harness{
			Store: s,
			Init:  s.SetInstanceID,
			PutCookie: func(id metadata.BookieID, data []byte) {
				c, err := metadata.ParseCookie(id, data)
				if err != nil {
					t.Fatal(err)
				}
				s.SetCookie(id, c)
			},
			PutLedger:  s.Put,
			Register:   s.Register,
			Unregister: s.Unregister,
			Unmark:     s.Unmark,
		}
	})
}

func ledger() *metadata.Ledger {
	return &metadata.Ledger{
		ID: metadata.NoID, Ensemble: 1, WriteQuorum: 1, AckQuorum: 1, State: metadata.Open, LastEntry: metadata.NoEntry,
		Digest: metadata.CRC32C, Segments: []metadata.Segment{{Bookies: []metadata.BookieID{"b"}}},
	}
}

// A fault before a request keeps it from happening, one after it only its answer.
func TestFaults(t *testing.T) {
	s, ctx := mem.New("cluster"), t.Context()
	var seen []mem.Op
	fail := func(class error) func(context.Context, mem.Op, int64) error {
		return func(_ context.Context, op mem.Op, _ int64) error {
			seen = append(seen, op)
			return class
		}
	}
	s.SetFaults(mem.Faults{Before: fail(metadata.ErrUnavailable)})
	l := ledger()
	if _, err := s.Create(ctx, l); !errors.Is(err, metadata.ErrUnavailable) || l.ID != metadata.NoID {
		t.Errorf("Create = %v, id %d", err, l.ID)
	}
	s.SetFaults(mem.Faults{After: fail(metadata.ErrUnknownOutcome)})
	if _, err := s.Create(ctx, l); !errors.Is(err, metadata.ErrUnknownOutcome) || l.ID == metadata.NoID {
		t.Errorf("Create = %v, id %d", err, l.ID)
	}
	s.SetFaults(mem.Faults{})
	if _, v, err := s.Read(ctx, l.ID); err != nil || v == 0 {
		t.Errorf("Read of what was created without an answer: %d, %v", v, err)
	}
	if len(seen) != 2 || seen[0] != mem.Create || seen[1] != mem.Create {
		t.Errorf("faults saw %v", seen)
	}
}
