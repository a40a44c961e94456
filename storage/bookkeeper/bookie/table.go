package bookie

// table holds ops by their keys, each once. It is what a map is, but for hashing: the
// entries of a ledger follow each other, and so do their places here.
type table struct {
	slots []*op // a power of two of them; ops with the same place hang on each other by op.beside
	count int
}

const minSlots = 64

func (t *table) slot(k key) **op {
	const odd = 0x9e3779b97f4a7c15 // keeps the entries of ledgers apart
	return &t.slots[(uint64(k.entry)+uint64(k.ledger)*odd>>32+uint64(k.op))&uint64(len(t.slots)-1)]
}

// get returns nil if there is none.
func (t *table) get(k key) *op {
	if t.count == 0 {
		return nil
	}
	o := *t.slot(k)
	for o != nil && o.key != k {
		o = o.beside
	}
	return o
}

// put adds o, whose key is not there.
func (t *table) put(o *op) {
	if t.count == len(t.slots) {
		t.grow()
	}
	t.count++
	t.hang(o)
}

func (t *table) hang(o *op) {
	at := t.slot(o.key)
	o.beside, *at = *at, o
}

func (t *table) grow() {
	old := t.slots
	t.slots = make([]*op, max(minSlots, 2*len(old)))
	for _, o := range old {
		for o != nil {
			next := o.beside
			t.hang(o)
			o = next
		}
	}
}

// remove takes o out, which is there.
func (t *table) remove(o *op) {
	at := t.slot(o.key)
	for *at != o {
		at = &(*at).beside
	}
	*at, o.beside = o.beside, nil
	t.count--
}

// all yields every op. Meanwhile nothing may be added or removed.
func (t *table) all(yield func(*op) bool) {
	for _, o := range t.slots {
		for ; o != nil; o = o.beside {
			if !yield(o) {
				return
			}
		}
	}
}
