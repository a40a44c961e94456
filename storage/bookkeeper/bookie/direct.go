package bookie

// directBytes bounds the frame of an add that is written by the goroutine that makes
// it: other appends to the same ledger wait meanwhile.
const directBytes = 64 << 10

// mayWrite says whether the caller may write an add of so many bytes itself: the
// bookie owes no answer, so there is nothing to gather for, and the writer sleeps. The
// lock is held; if it is true, so is ch.writing.
func (ch *channel) mayWrite(bytes int) bool {
	return ch.direct != nil && ch.asleep && ch.owed == 0 && ch.left == nil && bytes <= directBytes && ch.writing.TryLock()
}

// writeNow sends o, an add, from the caller's goroutine: to wake the writer takes
// about as long as to write. What the connection does not take at once is left to the
// writer, so it does not wait. ch.writing and the lock are held, and given back.
func (ch *channel) writeNow(o *op) {
	defer ch.writing.Unlock()
	ch.enter(o)
	p := o.packet
	d := ch.direct
	ch.mu.Unlock()
	n, err := d.write(p.head, p.body)
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if err == nil && n < p.Bytes() {
		o.sent = n
		ch.left = o
		ch.rouse()
		return
	}
	if err != nil {
		ch.hangUp(err)
	}
	o.writing = false
	ch.drop(o)
}
