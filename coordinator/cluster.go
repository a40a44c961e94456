package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

	"github.com/quirelog/quire/storage/meta"
)

// ClusterID is the id that clients see, 22 characters of base64url as Kafka's.
func (c *Coordinator) ClusterID() string { return c.clusterID }

// MetadataRevision asks the metadata store how many changes it has seen. It
// blocks. The error is ErrUnavailable.
func (c *Coordinator) MetadataRevision(ctx context.Context) (int64, error) {
	revision, err := c.meta.List(ctx, c.keys.cluster(), func(meta.KV) bool { return true })
	if err != nil {
		return 0, unavailable("revision", err)
	}
	return int64(revision), nil
}

// openCluster checks the format of the facts and reads the cluster's id, or
// makes both if there are none.
func (c *Coordinator) openCluster(ctx context.Context) error {
	version, err := c.format(ctx)
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(version); err != nil || n < 1 {
		return fmt.Errorf("metadata under %s: format is %q, not a version", c.config.Prefix, version)
	} else if n > formatVersion {
		return fmt.Errorf("metadata under %s has format %d; this program knows formats up to %d: use a newer one", c.config.Prefix, n, formatVersion)
	}
	if err := c.openLevel(ctx); err != nil {
		return err
	}
	c.clusterID, err = c.getOrCreate(ctx, c.keys.cluster(), encodeID(newID()))
	if err != nil {
		return err
	}
	if _, ok := decodeID(c.clusterID); !ok {
		return fmt.Errorf("metadata under %s: cluster id %q is not 22 characters of base64url", c.config.Prefix, c.clusterID)
	}
	return nil
}

// format returns the format of the facts. Where there are none it writes it, with the
// newest feature level: nobody older has to read them.
func (c *Coordinator) format(ctx context.Context) (string, error) {
	for {
		kv, err := c.meta.Get(ctx, c.keys.version())
		if err == nil {
			return string(kv.Value), nil
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return "", unavailable(c.keys.version(), err)
		}
		_, _, err = c.meta.Txn(ctx, []meta.Cond{{Key: c.keys.version()}}, []meta.Op{
			meta.Put(c.keys.version(), []byte(strconv.Itoa(formatVersion))),
			meta.Put(c.keys.level(), strconv.AppendInt(nil, int64(c.config.Node.FeatureLevel), 10)),
		})
		if err != nil && !retriable(ctx, err) {
			return "", unavailable(c.keys.version(), err)
		}
		// Whoever wrote it: read it.
	}
}

// getOrCreate returns the value of a key, or makes the key with that value.
func (c *Coordinator) getOrCreate(ctx context.Context, key, value string) (string, error) {
	for {
		kv, err := c.meta.Get(ctx, key)
		if err == nil {
			return string(kv.Value), nil
		}
		if !errors.Is(err, meta.ErrNotFound) {
			return "", unavailable(key, err)
		}
		_, ok, err := c.meta.Txn(ctx, []meta.Cond{{Key: key}}, []meta.Op{meta.Put(key, []byte(value))})
		switch {
		case err == nil && ok:
			return value, nil
		case err != nil && !retriable(ctx, err):
			return "", unavailable(key, err)
		}
		// Somebody else was faster, or nobody knows: read again.
	}
}

// retriable says whether a change that failed with err may be looked at and
// tried again: its outcome is not known, and there is time and space left.
func retriable(ctx context.Context, err error) bool {
	return errors.Is(err, meta.ErrUnknownOutcome) && !errors.Is(err, meta.ErrNoSpace) &&
		!errors.Is(err, meta.ErrClosed) && ctx.Err() == nil
}

// newID makes a random id (UUID version 4) as Kafka does: never one that would
// read as an option on a command line, so its text does not begin with '-'.
func newID() (id [16]byte) {
	for {
		// crypto/rand.Read never fails.
		rand.Read(id[:])
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if encodeID(id)[0] != '-' {
			return id
		}
	}
}
