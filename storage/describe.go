package storage

import (
	"fmt"

	"github.com/quirelog/quire/protocol/batch"
)

// DescribeEntry says in one line what an entry of a log's ledger holds, for people. The error
// is ErrCorrupt: it is no entry of a log, or a damaged one.
func DescribeEntry(data []byte) (string, error) {
	h, body, err := decodeEntry(data)
	if err != nil {
		return "", err
	}
	switch h.kind {
	case kindSnapshot, kindFinal:
		s, err := decodeSnapshot(body)
		if err != nil {
			return "", err
		}
		what := "snapshot"
		if h.kind == kindFinal {
			what = "end"
		}
		return fmt.Sprintf("%s at offset %d: %d producers, %d rows of the index, %d aborted transactions",
			what, h.offset, s.producers.len(), len(s.index.rows), len(s.aborted)), nil
	}
	b, err := decodeData(h, body)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("offsets %d to %d: %d records, %s", h.offset, b.LastOffset(), b.Count(), b.Codec())
	if b.ProducerID() != batch.NoProducerID {
		text += fmt.Sprintf(", producer %d epoch %d sequence %d", b.ProducerID(), b.ProducerEpoch(), b.BaseSequence())
	}
	if b.Control() {
		text += ", marker"
	}
	if err := b.VerifyStored(); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrCorrupt, text, err)
	}
	return text, nil
}
