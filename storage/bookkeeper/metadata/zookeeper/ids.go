package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-zookeeper/zk"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

// nextID takes an id as ZkLedgerIdGenerator and LongZkLedgerIdGenerator do, and
// shares their counters: the server numbers the nodes below a parent.
func (s *Store) nextID(ctx context.Context) (int64, error) {
	for {
		// Once there are ids of 63 bits nobody goes back.
		buckets, err := s.childrenOf(ctx, metadata.LongIDsPath)
		if err == nil {
			id, err := s.nextLongID(ctx, metadata.LastBucket(buckets))
			if errors.Is(err, errBucketFull) {
				continue
			}
			return id, err
		}
		if !errors.Is(err, zk.ErrNoNode) {
			return 0, err
		}
		id, err := s.number(ctx, metadata.ShortIDsPath)
		if err != nil {
			return 0, err
		}
		switch {
		case id == 0:
			continue // the server begins with it; Create promises more
		case id > 0 && id < metadata.MaxShortID:
			return id, nil
		}
		if err := s.make(ctx, metadata.LongIDsPath); err != nil {
			return 0, err
		}
	}
}

// errBucketFull: the bucket has given out its ids, or is none; there is another one now.
var errBucketFull = errors.New("bucket of ledger ids is full")

// nextLongID takes an id from a bucket, below which nodes count the low 31 bits.
func (s *Store) nextLongID(ctx context.Context, high int32) (int64, error) {
	if high > 0 {
		low, err := s.number(ctx, metadata.BucketPath(high))
		if err != nil {
			return 0, err
		}
		if low >= 0 && low < metadata.MaxShortID {
			return int64(high)<<32 | low, nil
		}
	}
	if high == metadata.MaxShortID {
		return 0, fmt.Errorf("ledger id: %w: no ids are left", metadata.ErrUnavailable)
	}
	if err := s.make(ctx, metadata.BucketPath(high+1)); err != nil {
		return 0, err
	}
	return 0, errBucketFull
}

// make makes a node without data if there is none.
func (s *Store) make(ctx context.Context, path string) error {
	_, err := s.create(ctx, "ledger id", path, nil, 0, false)
	if errors.Is(err, zk.ErrNodeExists) {
		err = nil
	}
	return err
}

// number takes the next number below a parent: that of a node that is deleted at
// once, or with the session if that fails. The server counts in 31 bits, and goes
// on with negative numbers.
func (s *Store) number(ctx context.Context, parent string) (int64, error) {
	prefix := parent + "/ID-"
	made, err := s.create(ctx, "ledger id", prefix, nil, zk.FlagEphemeral|zk.FlagSequence, false)
	if err != nil {
		return 0, err
	}
	path := strings.TrimPrefix(made, s.root)
	n, err := strconv.ParseInt(strings.TrimPrefix(path, prefix), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("ledger id: %w: the server numbered %.80q", metadata.ErrUnavailable, made)
	}
	if err := s.remove(ctx, "ledger id", path, -1, false); err != nil && !errors.Is(err, zk.ErrNoNode) {
		return 0, err
	}
	return n, nil
}
