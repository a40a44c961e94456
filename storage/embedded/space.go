package embedded

import (
	"time"

	"go.uber.org/zap"
)

// spaceGauge knows, without asking the system for each group, whether the disk
// has room for more. The journal goroutine owns it.
type spaceGauge struct {
	budget int64 // bytes that may be written before asking again
	asked  time.Time
	low    bool
}

const (
	// spaceStride is after how many bytes, spaceInterval after what time the
	// system is asked again.
	spaceStride   = 16 << 20
	spaceInterval = 200 * time.Millisecond
)

func (g *spaceGauge) wrote(n int64) { g.budget -= n }

// refuses returns the error that appends get, nil while there is room. Bytes in
// the backlog still need room in ledger files.
func (g *spaceGauge) refuses(t *Tier) error {
	if t.stuck.Load() {
		return errBacklogStuck
	}
	now := time.Now()
	if !g.low && g.budget > 0 && now.Sub(g.asked) < spaceInterval {
		return nil
	}
	free, err := t.fs.FreeBytes(t.c.Dir)
	if err != nil {
		// What cannot be asked is not refused; a full disk will tell by itself.
		free = 1 << 62
	}
	room := free - t.c.MinFreeBytes - t.chunks.backlogBytes()
	g.asked = now
	g.budget = min(room, spaceStride)
	if low := room <= 0; low != g.low {
		g.low = low
		if low {
			t.log.Warn("disk is nearly full, appends are refused until there is room", zap.Int64("free bytes", free), zap.Int64("kept bytes", t.c.MinFreeBytes))
		} else {
			t.log.Info("disk has room again", zap.Int64("free bytes", free))
		}
	}
	if g.low {
		return errLowSpace
	}
	return nil
}
