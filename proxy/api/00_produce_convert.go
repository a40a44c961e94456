package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/quirelog/quire/protocol/batch"
	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage"
)

// A message set of Produce v0-2 becomes one batch, or as many as max.message.bytes
// demands, with offsets in one row. Clients count their records' offsets from the one base
// offset that they are told, so the batches are appended as one: all are taken or none is. Kafka
// 3.9 makes one batch of a set and refuses what is too large for it then, though each
// message alone was not; the brokers for which these clients were made took it.

// inlineConversion is what the loop converts itself of one request, in bytes of
// plain messages; a byte of a compressed set costs as much as several.
const inlineConversion = 32 << 10

// conversionCost returns what converting a set costs, in plain bytes.
func conversionCost(set []byte, o *batch.UpConvertOptions) int {
	first, _, err := batch.NextMessage(set)
	if err != nil || first == nil {
		return len(set)
	}
	from := first.Codec()
	to := from
	if o.Recode {
		to = o.Codec
	}
	factor := 1
	for _, c := range [...]batch.Codec{from, to} {
		switch c {
		case batch.None:
		case batch.Snappy, batch.LZ4:
			factor = max(factor, 8)
		default:
			factor = max(factor, 32)
		}
	}
	return factor * len(set)
}

// convertInline converts a set on the loop if that is cheap. False: a worker has to.
func (s *produceRequest) convertInline(p *producePart) bool {
	o := p.log.UpConvertOptions()
	cost := conversionCost(p.set, &o)
	if cost > s.inline {
		return false
	}
	s.inline -= cost
	o.MaxInflatedBytes = min(o.MaxInflatedBytes, inlineConversion)
	err := s.convert(p, &o)
	if errors.Is(err, batch.ErrTooLarge) {
		return false // perhaps not with a worker's limits
	}
	p.refused = err
	return true
}

// convertAll converts what the loop has not. Workers only.
func (s *produceRequest) convertAll(ctx context.Context) {
	for i := range s.parts {
		p := &s.parts[i]
		if p.refused != nil || p.set == nil {
			continue
		}
		o := p.log.UpConvertOptions()
		most := o.MaxInflatedBytes
		p.refused = s.h.conversions.run(ctx, len(p.set), func(limitBytes int) error {
			o.MaxInflatedBytes = min(most, limitBytes)
			return s.convert(p, &o)
		})
	}
}

// convert makes batches of p's set.
func (s *produceRequest) convert(p *producePart, o *batch.UpConvertOptions) error {
	if n := s.h.converted.Load(); n > 0 && n+int64(len(p.set)) > s.h.c.MaxConvertedBytes {
		return fmt.Errorf("%d bytes of converted message sets wait to be stored, the limit is %d: %w", n, s.h.c.MaxConvertedBytes, storage.ErrStorage)
	}
	plain := !o.Recode || o.Codec == batch.None
	if first, _, err := batch.NextMessage(p.set); plain && err == nil && first != nil {
		plain = first.Codec() == batch.None
	}
	var to *buffer.Buffer
	if plain {
		// A record of v2 is shorter than its message, so the result fits and stays.
		to = buffer.Get(len(p.set) + batch.HeaderBytes)
	} else {
		to = scratch(len(p.set))
	}
	out, err := batch.UpConvert(to.B[:0], p.set, *o)
	if err != nil || len(out) == 0 {
		to.Release()
		if err == nil {
			p.set = nil
		}
		return err
	}
	if &out[0] != &to.B[:1][0] || !plain {
		own := kept(out)
		to.Release()
		to, out = own, own.B
	}
	p.set, p.own = nil, to
	n := int64(cap(to.B))
	s.converted += n
	if s.h.converted.Add(n) > s.h.c.MaxConvertedBytes && s.h.converted.Load() > n {
		return fmt.Errorf("more than %d bytes of converted message sets wait to be stored: %w", s.h.c.MaxConvertedBytes, storage.ErrStorage)
	}
	return p.takeConverted(out)
}

// maxBatches bounds the batches of one set. The log takes them in one go, and a topic
// whose max.message.bytes is tiny would have millions made of a large request.
const maxBatches = 10_000

// takeConverted cuts out into its batches.
func (p *producePart) takeConverted(out []byte) error {
	first, rest, err := batch.Next(out)
	if err != nil {
		return err
	}
	if err := p.take(first); err != nil {
		return err
	}
	p.append.Buf = p.own
	for len(rest) > 0 {
		if len(p.more)+1 == maxBatches {
			return fmt.Errorf("a message set of more than %d batches of max.message.bytes: %w", maxBatches, storage.ErrListTooLarge)
		}
		var b batch.Batch
		if b, rest, err = batch.Next(rest); err != nil {
			return err
		}
		p.more = append(p.more, &storage.Append{Batch: b, Buf: p.own, Notify: p})
	}
	return nil
}

// releaseConverted lets go of the converted sets, which the logs hold as long as
// they need them.
func (s *produceRequest) releaseConverted() {
	if s.converted == 0 {
		return
	}
	s.h.converted.Add(-s.converted)
	s.converted = 0
	for i := range s.parts {
		if p := &s.parts[i]; p.own != nil {
			p.own.Release()
			p.own = nil
		}
	}
}
