package bookietest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
	"github.com/quirelog/quire/storage/bookkeeper/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T, cfg Config) *Bookie {
	t.Helper()
	b, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

// client is a connection without any machinery: frames out, frames in.
type client struct {
	t    *testing.T
	conn net.Conn
}

func dial(t *testing.T, b *Bookie) *client {
	t.Helper()
	conn, err := net.Dial("tcp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn}
}

func (c *client) send(frames ...[]byte) {
	c.t.Helper()
	for _, f := range frames {
		if _, err := c.conn.Write(f); err != nil {
			c.t.Fatal(err)
		}
	}
}

// next returns the next answer and its body.
func (c *client) next() (wire.Response, []byte) {
	c.t.Helper()
	frame, err := c.frame()
	if err != nil {
		c.t.Fatal(err)
	}
	r, err := wire.ParseResponse(frame)
	if err != nil {
		c.t.Fatal(err)
	}
	return r, frame[wire.ResponseBytes:]
}

func (c *client) frame() ([]byte, error) {
	var prefix [wire.LengthBytes]byte
	if _, err := io.ReadFull(c.conn, prefix[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(prefix[:]))
	_, err := io.ReadFull(c.conn, frame)
	return frame, err
}

// ask sends a request and wants this code; it returns the body.
func (c *client) ask(frame []byte, want wire.Code) []byte {
	c.t.Helper()
	c.send(frame)
	r, body := c.next()
	if r.Code != want {
		c.t.Fatalf("%v of ledger %d, entry %d: %v, want %v", r.Op, r.Ledger, r.Entry, r.Code, want)
	}
	return body
}

// reset wants the connection to end without an answer.
func (c *client) reset() {
	c.t.Helper()
	if frame, err := c.frame(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("got %x, %v, want a reset connection", frame, err)
	}
}

func codec(ledger int64, password string) *wire.Codec {
	c, err := wire.NewCodec(ledger, metadata.CRC32C, []byte(password))
	if err != nil {
		panic(err)
	}
	return c
}

func add(ledger, entry int64, flags wire.Flags) []byte { return addKey(ledger, entry, flags, "") }

func addKey(ledger, entry int64, flags wire.Flags, password string) []byte {
	payload := fmt.Appendf(nil, "entry %d", entry)
	return codec(ledger, password).AppendAdd(nil, flags, entry, entry-1, 1000, payload, nil)
}

func read(ledger, entry int64, flags wire.Flags) []byte {
	return wire.AppendRead(nil, flags, ledger, entry, wire.NewMasterKey(nil))
}

func (c *client) wantEntry(body []byte, ledger, entry int64) {
	c.t.Helper()
	if e, err := codec(ledger, "").Parse(body, entry); err != nil || string(e.Payload) != fmt.Sprintf("entry %d", entry) {
		c.t.Fatalf("entry %d is %+v, %v", entry, e, err)
	}
}

func TestAddsAndReads(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	c.ask(read(1, 0, 0), wire.NoLedger)
	c.ask(read(1, wire.LastEntry, 0), wire.NoLedger)
	c.ask(add(1, 0, 0), wire.OK)
	c.ask(add(1, 5, 0), wire.OK) // gaps are no concern of a bookie
	c.ask(add(1, 5, 0), wire.OK) // nor is an entry that it has
	c.ask(read(1, 1, 0), wire.NoEntry)
	c.wantEntry(c.ask(read(1, 0, 0), wire.OK), 1, 0)
	c.wantEntry(c.ask(read(1, wire.LastEntry, 0), wire.OK), 1, 5)
	c.ask(add(0, 0, 0), wire.OK) // ledger 0 is one like others
	c.ask(add(-1, 0, 0), wire.BadRequest)
	c.ask(read(-1, 0, 0), wire.BadRequest)
	if got := b.Entries(1); !slices.Equal(got, []int64{0, 5}) {
		t.Errorf("entries %v", got)
	}
	if got := b.Ledgers(); !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("ledgers %v", got)
	}
}

func TestMasterKeys(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	c.ask(addKey(1, 0, 0, "mine"), wire.OK)
	c.ask(addKey(1, 1, 0, "yours"), wire.Unauthorized)
	c.ask(read(1, 0, wire.DoFencing), wire.Unauthorized)
	if b.Fenced(1) {
		t.Error("a read with another key fenced the ledger")
	}
	c.ask(read(1, 0, 0), wire.OK) // plain reads have no key
	// A fence leaves its key too.
	c.ask(read(2, 0, wire.DoFencing), wire.NoEntry)
	c.ask(addKey(2, 0, wire.RecoveryAdd, "mine"), wire.Unauthorized)
	c.ask(addKey(2, 0, wire.RecoveryAdd, ""), wire.OK)
}

func TestFences(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	c.ask(add(1, 0, 0), wire.OK)
	c.wantEntry(c.ask(read(1, wire.LastEntry, wire.DoFencing), wire.OK), 1, 0)
	c.ask(add(1, 1, 0), wire.Fenced)
	c.ask(add(1, 0, 0), wire.Fenced) // although it is stored
	c.ask(add(1, 1, wire.HighPriority), wire.Fenced)
	c.ask(add(1, 1, wire.RecoveryAdd|wire.HighPriority), wire.OK)
	// A ledger unknown until then, and an entry that is absent.
	c.ask(read(2, wire.LastEntry, wire.DoFencing), wire.NoEntry)
	c.ask(add(2, 0, 0), wire.Fenced)
	c.ask(add(3, 0, 0), wire.OK)
	c.ask(read(3, 7, wire.DoFencing), wire.NoEntry)
	c.ask(add(3, 1, 0), wire.Fenced)
}

func TestAddIsAnsweredAfterItsSync(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	b.HoldSync()
	// The pool is in order: once the read is answered, the add was done.
	c.send(add(1, 0, 0), read(1, wire.LastEntry, 0))
	r, body := c.next()
	if r.Op != wire.OpRead {
		t.Fatalf("%v was answered before its sync", r.Op)
	}
	c.wantEntry(body, 1, 0)
	b.ReleaseSync()
	if r, _ := c.next(); r.Op != wire.OpAdd || r.Code != wire.OK {
		t.Fatalf("%v: %v", r.Op, r.Code)
	}
}

func TestCrashLosesWhatWasNotSynced(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	c.ask(add(1, 0, 0), wire.OK)
	c.ask(read(2, 0, wire.DoFencing), wire.NoEntry)
	c.ask(read(2, 0, wire.DoFencing), wire.NoEntry)
	c.ask(add(3, 0, 0), wire.OK) // its sync is one after the fence's
	b.HoldSync()
	c.send(add(1, 1, 0))
	// The entry is absent, so this is answered before its fence is durable, and
	// it tells that the add was done, if not synced.
	c.ask(read(3, 1, wire.DoFencing), wire.NoEntry)
	c.wantEntry(c.ask(read(1, wire.LastEntry, 0), wire.OK), 1, 1)
	b.Crash()
	c.reset()
	if _, err := net.Dial("tcp", b.Address()); err == nil {
		t.Fatal("a bookie that crashed accepts connections")
	}
	b.ReleaseSync()
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, b)
	c.wantEntry(c.ask(read(1, wire.LastEntry, 0), wire.OK), 1, 0)
	c.ask(add(2, 0, 0), wire.Fenced)
	c.ask(add(3, 1, 0), wire.OK)
}

func TestStopKeepsAll(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	b.HoldSync()
	c.send(add(1, 0, 0))
	c.wantEntry(c.ask(read(1, wire.LastEntry, 0), wire.OK), 1, 0)
	b.Stop()
	c.reset()
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	b.Crash()
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, b)
	c.wantEntry(c.ask(read(1, wire.LastEntry, 0), wire.OK), 1, 0)
}

func TestHighPriorityOvertakes(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	b.HoldPool(Normal)
	c.send(add(1, 0, 0), add(1, 1, wire.RecoveryAdd|wire.HighPriority))
	if r, _ := c.next(); r.Entry != 1 || r.Code != wire.OK {
		t.Fatalf("entry %d was answered first, %v", r.Entry, r.Code)
	}
	c.ask(read(1, 0, wire.DoFencing), wire.NoEntry)
	b.ReleasePool(Normal)
	if r, _ := c.next(); r.Entry != 0 || r.Code != wire.Fenced {
		t.Fatalf("the add that was overtaken by a fence: entry %d, %v", r.Entry, r.Code)
	}
	b.HoldPool(High)
	c.send(read(1, 1, wire.DoFencing))
	c.ask(read(1, 0, 0), wire.NoEntry)
	b.ReleasePool(High)
	if r, _ := c.next(); r.Entry != 1 || r.Code != wire.OK {
		t.Fatalf("the fencing read: entry %d, %v", r.Entry, r.Code)
	}
}

func TestModes(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	c.ask(add(1, 0, 0), wire.OK)
	b.SetReadOnly(true)
	c.ask(add(1, 1, 0), wire.ReadOnly)
	c.ask(add(1, 1, wire.HighPriority), wire.OK)
	c.ask(read(1, 0, 0), wire.OK)
	b.SetReadOnly(false)
	b.SetLimbo(true)
	c.ask(read(1, 0, 0), wire.OK)
	c.ask(read(1, 7, 0), wire.UnknownLedgerState)
	c.ask(read(2, 7, 0), wire.UnknownLedgerState)
	c.ask(read(2, 7, wire.DoFencing), wire.UnknownLedgerState)
	b.SetLimbo(false)
	c.ask(add(2, 0, 0), wire.Fenced)
	if !b.Corrupt(1, 0) || b.Corrupt(1, 7) {
		t.Error("Corrupt does not say what it found")
	}
	if _, err := codec(1, "").Parse(c.ask(read(1, 0, 0), wire.OK), 0); !errors.Is(err, wire.ErrCorrupt) {
		t.Errorf("corrupted entry: %v", err)
	}
	if !b.Lose(1, 0) {
		t.Error("Lose found nothing")
	}
	c.ask(read(1, 0, 0), wire.NoEntry)
	b.CollectGarbage(func(ledger int64) bool { return ledger != 1 })
	c.ask(read(1, 1, 0), wire.NoLedger)
	c.ask(add(2, 0, 0), wire.Fenced)
	b.Wipe()
	c.ask(add(2, 0, 0), wire.OK)
}

func TestPause(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	c.ask(add(1, 0, 0), wire.OK)
	b.Pause()
	before := b.Requests(nil)
	c.send(read(1, 0, 0))
	late := dial(t, b) // the kernel still accepts
	late.send(add(1, 1, 0))
	if n := b.Requests(nil); n != before {
		t.Errorf("%d requests were decoded in a pause", n-before)
	}
	b.Resume()
	if r, _ := c.next(); r.Code != wire.OK {
		t.Error(r.Code)
	}
	if r, _ := late.next(); r.Code != wire.OK {
		t.Error(r.Code)
	}
	b.Pause()
	b.Crash()
	c.reset()
}

func TestBindOnly(t *testing.T) {
	b := listen(t, Config{})
	dial(t, b).ask(add(1, 0, 0), wire.OK)
	b.Stop()
	if err := b.BindOnly(); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", b.Address()); err == nil {
		(&client{t, conn}).reset()
		conn.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	if err := b.Restart(); err != nil {
		t.Fatal(err)
	}
	dial(t, b).ask(read(1, 0, 0), wire.OK)
	b.Close()
	if b.Restart() == nil {
		t.Error("a closed bookie restarts")
	}
}

func TestFaults(t *testing.T) {
	b := listen(t, Config{})
	c := dial(t, b)
	entry := func(id int64) func(wire.Request) bool {
		return func(r wire.Request) bool { return r.Op == wire.OpAdd && r.Entry == id }
	}
	b.Inject(Fault{Match: entry(0), Times: 2, Code: wire.TooManyRequests})
	c.ask(add(1, 0, 0), wire.TooManyRequests)
	c.ask(add(1, 0, 0), wire.TooManyRequests)
	c.ask(read(1, 0, 0), wire.NoLedger)
	c.ask(add(1, 0, 0), wire.OK)

	b.Inject(Fault{Match: entry(1), Times: 1, DropRequest: true})
	c.send(add(1, 1, 0))
	c.ask(read(1, 1, 0), wire.NoEntry)

	b.Inject(Fault{Match: entry(2), Times: 1, DropReply: true})
	c.send(add(1, 2, 0))
	c.wantEntry(c.ask(read(1, 2, 0), wire.OK), 1, 2)

	late := make(chan struct{})
	b.Inject(Fault{Match: entry(3), Times: 1, Until: late})
	c.send(add(1, 3, 0))
	c.ask(add(1, 4, 0), wire.OK)
	c.ask(read(1, 3, 0), wire.NoEntry)
	close(late)
	if r, _ := c.next(); r.Entry != 3 || r.Code != wire.OK {
		t.Errorf("the delayed add: entry %d, %v", r.Entry, r.Code)
	}

	remove := b.Inject(Fault{Code: wire.IOError})
	c.ask(read(1, 0, 0), wire.IOError)
	remove()
	c.ask(read(1, 0, 0), wire.OK)

	b.Inject(Fault{Match: entry(5), Disconnect: true})
	c.send(add(1, 5, 0))
	c.reset()
	if b.Stored(1, 5) != nil {
		t.Error("an add that broke its connection was stored")
	}
	if n := b.Requests(entry(0)); n != 3 {
		t.Errorf("%d adds of entry 0 were counted", n)
	}
}

func TestBatchRead(t *testing.T) {
	b := listen(t, Config{MaxBatchBytes: 300})
	c := dial(t, b)
	for _, id := range []int64{0, 1, 2, 3, 5} {
		c.ask(add(1, id, 0), wire.OK)
	}
	stored := int64(len(b.Stored(1, 0)))
	batch := func(first int64, entries int32, bytes int64, code wire.Code) []int64 {
		t.Helper()
		body := c.ask(wire.AppendBatchRead(nil, 0, 1, wire.Batch{First: first, RequestID: 77, MaxEntries: entries, MaxBytes: bytes}, wire.MasterKey{}), code)
		id, rest, err := wire.ParseBatch(body)
		if err != nil || id != 77 {
			t.Fatalf("request id %d, %v", id, err)
		}
		var got []int64
		for len(rest) > 0 {
			var s []byte
			if s, rest, err = wire.NextInBatch(rest); err != nil {
				t.Fatal(err)
			}
			got = append(got, first+int64(len(got)))
			c.wantEntry(s, 1, got[len(got)-1])
		}
		return got
	}
	for _, f := range []struct {
		first   int64
		entries int32
		bytes   int64
		want    []int64
	}{
		{0, 2, 1 << 20, []int64{0, 1}},
		{2, 0, 1 << 20, []int64{2, 3}}, // up to the gap
		{0, 0, 1, []int64{0}},          // the first in any case
		{0, 0, 36 + 2*(stored+4), []int64{0, 1}},
		{0, 0, 35 + 2*(stored+4), []int64{0}},
		{0, -1, 1 << 40, []int64{0, 1, 2, 3}}, // 300 bytes are enough for them
		{5, 9, 1 << 20, []int64{5}},
	} {
		if got := batch(f.first, f.entries, f.bytes, wire.OK); !slices.Equal(got, f.want) {
			t.Errorf("batch from %d, %d entries, %d bytes: %v, want %v", f.first, f.entries, f.bytes, got, f.want)
		}
	}
	if got := batch(4, 1, 100, wire.NoEntry); got != nil {
		t.Errorf("an error came with %v", got)
	}
}

func TestFramesThatReset(t *testing.T) {
	b := listen(t, Config{MaxFrameBytes: 200, NoBatchRead: true})
	fence := read(1, 0, wire.DoFencing)
	fence[3] = 20
	version0 := read(1, 0, 0)
	version0[4] = 0
	unknown := read(1, 0, 0)
	unknown[5] = 8
	for name, frame := range map[string][]byte{
		"a fence without key": fence[:24],
		"version 0":           version0,
		"operation 8":         unknown,
		"a frame too long":    {0, 0, 0, 197},
		"a batch read":        wire.AppendBatchRead(nil, 0, 1, wire.Batch{}, wire.MasterKey{}),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, b)
			c.send(frame)
			c.reset()
		})
	}
	c := dial(t, b)
	old := read(1, 0, 0)
	old[4] = 1
	c.send(old)
	if r, _ := c.next(); r.Version != 1 || r.Code != wire.NoLedger {
		t.Errorf("version 1: %+v", r)
	}
	old[4] = 3
	c.ask(old, wire.BadVersion)
	// Ask for TLS where there is none.
	c = dial(t, b)
	c.send(wire.AppendStartTLS(nil, 9))
	frame, err := c.frame()
	if err != nil {
		t.Fatal(err)
	}
	if s, err := wire.ParseStartTLS(frame); err != nil || s.TxnID != 9 || s.Status != 404 {
		t.Errorf("START_TLS: %+v, %v", s, err)
	}
}

// The address of a bookie that is down is nobody else's: other tests, in other processes
// too, ask for free ports meanwhile.
func TestPortIsKept(t *testing.T) {
	b := listen(t, Config{})
	taken := func(when string) {
		t.Helper()
		if ln, err := net.Listen("tcp", b.Address()); err == nil {
			ln.Close()
			t.Errorf("somebody else listens at %s %s", b.Address(), when)
		}
	}
	refused := func(when string) {
		t.Helper()
		if conn, err := net.Dial("tcp", b.Address()); err == nil {
			conn.Close()
			t.Errorf("a connection is accepted %s", when)
		}
	}
	for range 3 {
		taken("while it is up")
		b.Stop()
		taken("while it is stopped")
		refused("while it is stopped")
		b.Crash()
		taken("after a crash")
		if err := b.Restart(); err != nil {
			t.Fatal(err)
		}
		dial(t, b).conn.Close()
	}
}
