package mem_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/meta/mem"
	"github.com/quirelog/quire/storage/meta/metatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Harness {
		clock := new(mem.ManualClock)
		s := mem.New(clock)
		t.Cleanup(func() { s.Close() })
		return metatest.Harness{Store: s, Compact: s.Compact, Pass: clock.Advance}
	})
}

// With the system's clock leases end by themselves.
func TestStoreSystemClock(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Harness {
		s := mem.New(nil)
		t.Cleanup(func() { s.Close() })
		return metatest.Harness{Store: s, Compact: s.Compact}
	})
}
