package coordinator

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"go.uber.org/zap"

	"github.com/quirelog/quire/storage/meta"
)

// A feature level counts what nodes may write into metadata, ledgers or links between
// nodes that older programs cannot read. The cluster has one, and a node writes nothing
// of a higher level; so programs that know it work together, whatever else they know,
// and all of them can be put back. The operator raises it when every node knows the
// next one, after which older programs refuse to start.
const (
	// NewestFeatureLevel is the highest level that this program knows.
	NewestFeatureLevel = 1
	// OldestFeatureLevel is the lowest level that this program can still work at.
	OldestFeatureLevel = 1
)

// ErrFeatureLevel: the program and the cluster have no feature level in common.
var ErrFeatureLevel = errors.New("feature level")

// FeatureLevel returns the cluster's feature level. Any goroutine.
func (c *Coordinator) FeatureLevel() int32 { return c.level.Load() }

// openLevel reads the cluster's feature level. A cluster that has none was made by a
// program that knew of none: it is at the first.
func (c *Coordinator) openLevel(ctx context.Context) error {
	revision, err := c.listLevel(ctx)
	if err != nil {
		return err
	}
	if err := c.checkLevel(); err != nil {
		return err
	}
	c.background.Add(1)
	go func() {
		defer c.background.Done()
		c.follow(followed{
			prefix: c.keys.level(), after: revision,
			changed: func(meta.Events) error { return c.levelChanged() },
			list: func(ctx context.Context) (meta.Revision, error) {
				revision, err := c.listLevel(ctx)
				if err == nil {
					c.knowLevel()
				}
				return revision, err
			},
		})
	}()
	return nil
}

func (c *Coordinator) listLevel(ctx context.Context) (meta.Revision, error) {
	level, bad := int32(1), error(nil)
	revision, err := c.meta.List(ctx, c.keys.level(), func(kv meta.KV) bool {
		if kv.Key == c.keys.level() {
			level, bad = parseLevel(kv)
		}
		return true
	})
	if err != nil {
		return 0, unavailable("feature level", err)
	}
	if bad != nil {
		return 0, bad
	}
	c.level.Store(level)
	return revision, nil
}

func parseLevel(kv meta.KV) (int32, error) {
	n, err := strconv.ParseInt(string(kv.Value), 10, 32)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("metadata key %s: %q is not a feature level", kv.Key, kv.Value)
	}
	return int32(n), nil
}

// levelChanged reads the level again.
func (c *Coordinator) levelChanged() error {
	before := c.level.Load()
	if _, err := c.listLevel(c.ctx); err != nil {
		return err
	}
	if level := c.level.Load(); level != before {
		c.logger.Info("the cluster's feature level was changed", zap.Int32("from", before), zap.Int32("to", level))
	}
	c.knowLevel()
	return nil
}

// knowLevel ends a node that does not know the level: others may write from now on what
// it cannot read.
func (c *Coordinator) knowLevel() {
	if err := c.checkLevel(); err != nil && c.config.Failed != nil {
		c.config.Failed(err)
	}
}

func (c *Coordinator) checkLevel() error {
	level, newest := c.level.Load(), c.config.Node.FeatureLevel
	switch {
	case level > newest:
		return fmt.Errorf("metadata under %s are at %w %d and this program knows levels %d to %d: use a newer one", c.config.Prefix, ErrFeatureLevel, level, OldestFeatureLevel, newest)
	case level < OldestFeatureLevel:
		return fmt.Errorf("metadata under %s are at %w %d and this program knows levels %d to %d: raise it first with an older one (quire node upgrade-level)", c.config.Prefix, ErrFeatureLevel, level, OldestFeatureLevel, newest)
	}
	return nil
}

// RaiseFeatureLevel sets the cluster's feature level, to the highest that all live nodes
// know if to is 0, and returns what it is then. It never lowers it. The error is
// ErrFeatureLevel, with the node that does not know the level, or ErrUnavailable.
func (c *Coordinator) RaiseFeatureLevel(ctx context.Context, to int32) (int32, error) {
	oldest := c.config.Node
	for _, n := range c.Nodes() {
		if n.FeatureLevel < oldest.FeatureLevel {
			oldest = n
		}
	}
	if to == 0 {
		to = oldest.FeatureLevel
	}
	if to > oldest.FeatureLevel {
		return 0, fmt.Errorf("%w %d: node %d (%s, version %s) knows levels up to %d: upgrade it first", ErrFeatureLevel, to, oldest.ID, oldest.Name, oldest.Version, oldest.FeatureLevel)
	}
	for {
		level := int32(1)
		kv, err := c.meta.Get(ctx, c.keys.level())
		if err == nil {
			level, err = parseLevel(kv)
		} else if errors.Is(err, meta.ErrNotFound) {
			err = nil
		}
		switch {
		case err != nil:
			return 0, unavailable("feature level", err)
		case level == to:
			return level, nil
		case level > to:
			return 0, fmt.Errorf("%w %d: the cluster is at %d already, and there is no way back", ErrFeatureLevel, to, level)
		}
		_, _, err = c.meta.Txn(ctx, []meta.Cond{{Key: c.keys.level(), Modified: kv.Modified}}, []meta.Op{meta.Put(c.keys.level(), strconv.AppendInt(nil, int64(to), 10))})
		if err != nil && !retriable(ctx, err) {
			return 0, unavailable("feature level", err)
		}
	}
}
