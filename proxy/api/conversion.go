package api

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
)

// Records are stored as batches of magic 2. What clients older than Kafka 0.11 send is
// converted up before it is appended, and what they fetch is converted down.
//
// Conversion is bounded in three ways. Anything but a small set is converted by a worker,
// and no more workers convert at a time than there are processors, so that loops get theirs. What a
// set may inflate to is limited by its size, as far as honest data goes; what inflates further,
// up to maxInflatedBytes, is converted one at a time, beside others. The results count: for producers in
// Config.MaxConvertedBytes, for consumers in Config.MaxFetchedBytes and Config.ConversionCacheBytes.

const (
	// maxInflatedBytes bounds what one set or batch may inflate to, as it does in storage.
	maxInflatedBytes = 128 << 20

	// What a set of n bytes may inflate to beside others: inflateFactor·n + inflateBytes. The
	// latter is for small sets of lines that are much the same, which are honest and many.
	inflateFactor = 8
	inflateBytes  = 1 << 20
)

// conversions bounds the conversions of all workers.
type conversions struct {
	slots     chan struct{} // one for each that runs
	large     chan struct{} // the one that may inflate to mostBytes
	mostBytes int
}

func newConversions(mostBytes int) conversions {
	return conversions{
		slots:     make(chan struct{}, runtime.GOMAXPROCS(0)),
		large:     make(chan struct{}, 1),
		mostBytes: mostBytes,
	}
}

// run calls convert with what it may inflate a set of n bytes to, and again with
// more if that was too little. It waits for its turn and returns ctx's error if that ends
// first. Workers only.
func (c *conversions) run(ctx context.Context, n int, convert func(limitBytes int) error) error {
	limit := min(inflateLimit(n), c.mostBytes)
	err := c.inSlot(ctx, limit, convert)
	if !errors.Is(err, batch.ErrTooLarge) || limit == c.mostBytes {
		return err
	}
	// The slot was given back: who waits here keeps nobody else from running.
	if err := take(ctx, c.large); err != nil {
		return err
	}
	defer func() { <-c.large }()
	return c.inSlot(ctx, c.mostBytes, convert)
}

func (c *conversions) inSlot(ctx context.Context, limitBytes int, convert func(limitBytes int) error) error {
	if err := take(ctx, c.slots); err != nil {
		return err
	}
	defer func() { <-c.slots }()
	return convert(limitBytes)
}

func take(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting to convert records: %w", ctx.Err())
	}
}

func inflateLimit(n int) int { return inflateFactor*n + inflateBytes }

// scratch is the buffer that a conversion of n bytes writes to. Snappy's encoder wants
// room for the worst case of a block, whatever comes of it.
func scratch(n int) *buffer.Buffer { return buffer.Get(n + n/2 + 48<<10) }

// kept returns a buffer of its own for b, which lies in a scratch buffer or has outgrown it.
func kept(b []byte) *buffer.Buffer {
	own := buffer.Get(len(b))
	copy(own.B, b)
	return own
}
