package storage

import (
	"runtime"

	"github.com/quirelog/quire/protocol/batch"
)

// maxInflatedBytes bounds what the records of one batch may inflate to where
// they have to be looked at.
const maxInflatedBytes = 128 << 20

// maxScratchBytes bounds the memory that a slot keeps for the next batch.
const maxScratchBytes = 4 << 20

// inflation lets no more batches be inflated at a time than there are processors,
// however many workers have one: a batch of a few KB may take maxInflatedBytes. Each slot
// carries the memory of the one before.
type inflation chan []byte

func newInflation() inflation {
	slots := make(inflation, runtime.GOMAXPROCS(0))
	for range cap(slots) {
		slots <- nil
	}
	return slots
}

// records calls look with what b's records inflate to, which is gone when it returns. It
// may wait for its turn; look must not wait for anything.
func (s inflation) records(b batch.Batch, look func(records []byte) error) error {
	scratch := <-s
	defer func() {
		if cap(scratch) > maxScratchBytes {
			scratch = nil
		}
		s <- scratch
	}()
	records, err := batch.Decompress(scratch[:0], b.Codec(), b.Records(), maxInflatedBytes)
	if err != nil {
		return err
	}
	scratch = records
	return look(records)
}
