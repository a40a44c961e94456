package bookietest

import "github.com/quirelog/quire/storage/bookkeeper/wire"

// responseBatchBytes is what an answer to a batch read counts for itself.
const responseBatchBytes = wire.ResponseBytes + wire.RequestIDBytes + wire.LengthBytes

func response(r wire.Request, code wire.Code) wire.Response {
	return wire.Response{Version: r.Version, Op: r.Op, Code: code, Ledger: r.Ledger, Entry: r.Entry}
}

// errorBody is the body of an answer that is an error: a batch read's has its
// request id.
func errorBody(r wire.Request) []byte {
	if r.Op == wire.OpBatchRead {
		return wire.AppendBatchID(nil, r.RequestID)
	}
	return nil
}

// do carries out a request. The bookie's lock is held.
func (p *process) do(t task) {
	fail := func(code wire.Code) {
		if !t.silent {
			t.c.answer(response(t.r, code), errorBody(t.r))
		}
	}
	switch {
	case t.r.Version > wire.Version:
		fail(wire.BadVersion)
	case t.r.Ledger < 0, t.r.Op == wire.OpAdd && t.r.Entry < 0:
		fail(wire.BadRequest)
	case t.r.Op == wire.OpAdd:
		p.add(t, fail)
	default:
		p.read(t, fail)
	}
}

func (p *process) add(t task, fail func(wire.Code)) {
	r := t.r
	if p.b.readOnly && r.Flags&wire.HighPriority == 0 {
		fail(wire.ReadOnly)
		return
	}
	l := p.b.memory.get(r.Ledger, r.Key)
	switch {
	case l.key != r.Key:
		fail(wire.Unauthorized)
		return
	case l.fenced && r.Flags&wire.RecoveryAdd == 0:
		fail(wire.Fenced)
		return
	}
	l.entries[r.Entry] = r.Stored
	p.log(record{
		ledger: r.Ledger, key: r.Key, entry: r.Entry, stored: r.Stored,
		c: t.c, answer: response(r, wire.OK), silent: t.silent,
	})
}

func (p *process) log(r record) {
	p.journal = append(p.journal, r)
	p.b.moved.Broadcast()
}

func (p *process) read(t task, fail func(wire.Code)) {
	r := t.r
	fencing := r.Flags&wire.DoFencing != 0
	if fencing {
		l := p.b.memory.get(r.Ledger, r.Key)
		if l.key != r.Key {
			fail(wire.Unauthorized)
			return
		}
		l.fenced = true
	}
	body, code := p.find(r)
	durable := p.b.durable[r.Ledger]
	if !fencing || durable != nil && durable.fenced {
		if code != wire.OK {
			fail(code)
		} else if !t.silent {
			t.c.answer(response(r, code), body)
		}
		return
	}
	fence := record{ledger: r.Ledger, key: r.Key, fence: true}
	if code != wire.OK {
		// Who asked hears of the entry's absence before the fence is durable.
		fail(code)
	} else {
		fence.c, fence.answer, fence.body, fence.silent = t.c, response(r, code), body, t.silent
	}
	p.log(fence)
}

// find returns the body of the answer to a read.
func (p *process) find(r wire.Request) ([]byte, wire.Code) {
	l := p.b.memory[r.Ledger]
	if l == nil {
		return nil, p.absent(wire.NoLedger)
	}
	entry := r.Entry
	if entry == wire.LastEntry {
		entry = l.last()
	}
	stored := l.entries[entry]
	if stored == nil {
		return nil, p.absent(wire.NoEntry)
	}
	if r.Op == wire.OpRead {
		return stored, wire.OK
	}
	limit := min(r.MaxBytes, p.b.cfg.MaxBatchBytes)
	bytes := int64(responseBatchBytes + len(stored) + wire.LengthBytes)
	body := wire.AppendInBatch(wire.AppendBatchID(nil, r.RequestID), stored)
	for n := int32(1); r.MaxEntries <= 0 || n < r.MaxEntries; n++ {
		stored = l.entries[entry+int64(n)]
		bytes += int64(len(stored) + wire.LengthBytes)
		if stored == nil || bytes > limit {
			break
		}
		body = wire.AppendInBatch(body, stored)
	}
	return body, wire.OK
}

// absent is the code for what the bookie does not have.
func (p *process) absent(code wire.Code) wire.Code {
	if p.b.limbo {
		return wire.UnknownLedgerState
	}
	return code
}
