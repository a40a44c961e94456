package etcd_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/meta/etcd"
	"github.com/quirelog/quire/storage/meta/metatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openEmbedded(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	s, err := etcd.OpenEmbedded(t.Context(), etcd.EmbeddedConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestEmbedded(t *testing.T) {
	metatest.Run(t, func(t *testing.T) metatest.Harness {
		s := openEmbedded(t, t.TempDir())
		return metatest.Harness{Store: s, Compact: s.Compact}
	})
}
