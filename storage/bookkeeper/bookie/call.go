package bookie

import (
	"fmt"

	"github.com/quirelog/quire/protocol/buffer"
	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

// Call is a read under way.
type Call struct {
	ch        *channel
	codec     *wire.Codec
	done      func(ReadReply)
	doneBatch func(BatchReply)
	first     int64 // of a batch
	most      int   // entries of a batch; 0: no limit
	op        op
	room      [64]byte // for op.frame
}

// Cancel gives a read up: unless it has ended, done is called with ErrCanceled,
// from a goroutine of the client. An answer that comes later is dropped.
func (call *Call) Cancel() { call.ch.cancelRead(&call.op) }

func (call *Call) fail(bookie metadata.BookieID, err error) {
	if call.done != nil {
		call.done(ReadReply{Bookie: bookie, Err: err})
	} else {
		call.doneBatch(BatchReply{Bookie: bookie, Err: err})
	}
}

// answer checks what a bookie sent and calls done. It takes over buf, the body.
func (call *Call) answer(bookie metadata.BookieID, buf *buffer.Buffer) error {
	if call.done != nil {
		e, err := call.codec.Parse(buf.B, call.op.key.entry)
		if err != nil {
			err = fmt.Errorf("bookie %s: %w", bookie, err)
			buf.Release()
			call.fail(bookie, err)
			return err
		}
		call.done(ReadReply{Bookie: bookie, Entry: e, Buf: buf})
		return nil
	}
	entries, err := call.parseBatch(buf.B)
	if len(entries) == 0 {
		err = fmt.Errorf("bookie %s: %w", bookie, err)
		buf.Release()
		call.fail(bookie, err)
		return err
	}
	call.doneBatch(BatchReply{Bookie: bookie, Entries: entries, Buf: buf})
	return nil
}

// parseBatch returns the entries of a batch up to the first that is not right,
// and an error if that is the first.
func (call *Call) parseBatch(body []byte) ([]wire.Entry, error) {
	_, rest, err := wire.ParseBatch(body)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return nil, fmt.Errorf("ledger %d, entry %d: %w: an empty batch", call.op.key.ledger, call.first, wire.ErrCorrupt)
	}
	var entries []wire.Entry
	// What a bookie sends beyond what was asked for may not be acknowledged yet.
	for len(rest) > 0 && (call.most == 0 || len(entries) < call.most) {
		var stored []byte
		if stored, rest, err = wire.NextInBatch(rest); err != nil {
			break
		}
		var e wire.Entry
		if e, err = call.codec.Parse(stored, call.first+int64(len(entries))); err != nil {
			break
		}
		entries = append(entries, e)
	}
	return entries, err
}
