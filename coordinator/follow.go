package coordinator

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// followed is a copy of what lies under a prefix of the metadata store; see meta.Follower.
type followed struct {
	prefix  string
	after   meta.Revision // that the copy is of
	changed func(meta.Events) error
	list    func(context.Context) (meta.Revision, error)
	every   time.Duration
}

// follow keeps a copy up to date until the coordinator closes. A node whose copy cannot
// be followed any more ends: it would go on by what once was.
func (c *Coordinator) follow(f followed) {
	err := (&meta.Follower{
		Store: c.meta, Prefix: f.prefix, Changed: f.changed, List: f.list, Every: f.every,
		Amiss: func(err error) {
			if c.ctx.Err() == nil {
				c.logger.Warn("metadata is listed again", zap.Error(err))
			}
		},
	}).Run(c.ctx, f.after)
	if err == nil || c.ctx.Err() != nil {
		return
	}
	c.blind.Do(func() {
		err := fmt.Errorf("metadata is not followed any more: %w", err)
		c.logger.Error("this node cannot go on", zap.Error(err))
		if c.config.Failed != nil {
			c.config.Failed(err)
		}
	})
}

// applied makes what cannot fail a followed.changed.
func applied(f func(meta.Events)) func(meta.Events) error {
	return func(e meta.Events) error {
		f(e)
		return nil
	}
}
