package proxy

import (
	"context"
	"errors"
	"testing"

	"github.com/quirelog/quire/proxy/loop"
)

func TestPing(t *testing.T) {
	onEachKind(t, func(t *testing.T, c Config) {
		s := start(t, c, echo)
		ping := s.NewPing()
		if err := ping(context.Background()); err != nil {
			t.Fatal(err)
		}

		// One loop of two is stuck: told as long as it is, and not after.
		stuck, release := make(chan struct{}), make(chan struct{})
		s.loops[1].Post(&loop.Task{Run: func() { close(stuck); <-release }})
		<-stuck
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for range 3 {
			if err := ping(ended); !errors.Is(err, context.Canceled) {
				t.Errorf("with a stuck loop: %v", err)
			}
		}
		close(release)
		if err := ping(context.Background()); err != nil {
			t.Error(err)
		}
		s.Close()
		if err := ping(context.Background()); !errors.Is(err, loop.ErrStopped) {
			t.Errorf("after Close: %v", err)
		}
	})
}
