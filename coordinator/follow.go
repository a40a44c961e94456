package coordinator

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// relistRetry is how long a failed listing waits for the next attempt.
const relistRetry = 500 * time.Millisecond

// follow hands changed everything under prefix after a revision, until the
// coordinator closes. If history is gone it calls relist, which brings the copy to the
// revision that it returns.
func (c *Coordinator) follow(prefix string, after meta.Revision, changed func(meta.Events), relist func(context.Context) (meta.Revision, error)) {
	for {
		var last error
		for e := range c.meta.Watch(c.ctx, prefix, after) {
			if last = e.Err; last != nil {
				break
			}
			changed(e)
		}
		switch {
		case c.ctx.Err() != nil:
			return
		case !errors.Is(last, meta.ErrCompacted):
			c.logger.Error("metadata is not followed any more", zap.String("prefix", prefix), zap.Error(last))
			return
		}
		c.logger.Warn("metadata history is gone; listing again", zap.String("prefix", prefix), zap.Error(last))
		for {
			revision, err := relist(c.ctx)
			if err == nil {
				after = revision
				break
			}
			t := time.NewTimer(relistRetry)
			select {
			case <-t.C:
			case <-c.ctx.Done():
				t.Stop()
				return
			}
		}
	}
}
