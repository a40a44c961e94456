package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/quirelog/quire/storage/meta"
)

// producerIDBlock is how many ids one transaction takes, as in Kafka
// (ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE). A node that ends loses the rest of its block.
const producerIDBlock = 1000

// producerIDs gives out the ids of a block, and takes the next block.
type producerIDs struct {
	c *Coordinator
	// turn holds one token: whoever has it owns the fields below. A mutex could
	// not be given up when a context ends.
	turn      chan struct{}
	next, end int64
}

func (p *producerIDs) init(c *Coordinator) {
	p.c = c
	p.turn = make(chan struct{}, 1)
	p.turn <- struct{}{}
}

// NextProducerID returns a producer id never given out before. Ids come from
// blocks, so it blocks rarely, on metadata.
func (c *Coordinator) NextProducerID(ctx context.Context) (int64, error) {
	p := &c.producerIDs
	select {
	case <-p.turn:
	case <-ctx.Done():
		return 0, unavailable("producer ids", ctx.Err())
	}
	defer func() { p.turn <- struct{}{} }()
	if p.next == p.end {
		first, err := p.takeBlock(ctx)
		if err != nil {
			return 0, err
		}
		p.next, p.end = first, first+producerIDBlock
	}
	id := p.next
	p.next++
	return id, nil
}

// takeBlock returns the first id of a block that is ours alone. A block whose
// transaction has no known outcome is never used.
func (p *producerIDs) takeBlock(ctx context.Context) (int64, error) {
	key := p.c.keys.nextProducerID()
	for {
		kv, err := p.c.meta.Get(ctx, key)
		if err != nil && !errors.Is(err, meta.ErrNotFound) {
			return 0, unavailable("producer ids", err)
		}
		var first int64
		if err == nil {
			if first, err = strconv.ParseInt(string(kv.Value), 10, 64); err != nil || first < 0 {
				return 0, fmt.Errorf("metadata key %s: %q is not a producer id", key, kv.Value)
			}
		}
		if first > math.MaxInt64-producerIDBlock {
			return 0, fmt.Errorf("metadata key %s: all producer ids are used up", key)
		}
		next := strconv.FormatInt(first+producerIDBlock, 10)
		_, ok, err := p.c.meta.Txn(ctx, []meta.Cond{{Key: key, Modified: kv.Modified}}, []meta.Op{meta.Put(key, []byte(next))})
		switch {
		case err == nil && ok:
			return first, nil
		case err != nil && !retriable(ctx, err):
			return 0, unavailable("producer ids", err)
		}
	}
}
