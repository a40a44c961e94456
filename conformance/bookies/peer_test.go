package bookies

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
)

// The cluster that the other tests run on does what they take for granted: the
// Java client writes and reads on it, a fence holds, the shell answers, and what
// is in etcd is understood.
func TestCluster(t *testing.T) {
	if !full {
		t.Skip("only in the full run: the other tests stand on it")
	}
	cluster := shared(t)
	for _, b := range cluster.Bookies {
		registered, readOnly, err := cluster.Registered(step(t), b)
		if err != nil || !registered || readOnly {
			t.Errorf("bookie %s: registered %t, read-only %t, error %v", b.ID, registered, readOnly, err)
		}
	}
	writer, reader := java(t, cluster, "v2"), java(t, cluster, "v3")
	id := writer.do("create CRC32C secret 3 3 2")
	if last := writer.do("add", id, 10, 100); last != "9" {
		t.Errorf("last entry: %s, want 9", last)
	}
	if got := reader.do("open", id, "CRC32C secret recover"); got != "9 1000" {
		t.Errorf("recovered: %s, want 9 1000", got)
	}
	if got := writer.refused("add", id, 1, 100); !strings.Contains(got, "-101 ") { // LedgerFencedException
		t.Errorf("the fenced writer is refused with %q", got)
	}
	if got := reader.do("custom", id); got != "application=java" {
		t.Errorf("custom metadata: %s", got)
	}
	ledgers, err := cluster.Ledgers(step(t))
	number, _ := strconv.ParseInt(id, 10, 64)
	if metadata := ledgers[number]; err != nil || !bytes.HasPrefix(metadata, []byte("BookieMetadataFormatVersion\t3\n")) {
		t.Errorf("metadata of ledger %s in etcd: %q, error %v", id, metadata, err)
	}
	for entry, want := range []int32{peer.BookieOK, peer.BookieNoEntry} {
		code, payload, err := cluster.Bookies[0].ReadEntry(step(t), number, int64(entry)*10)
		if err != nil || code != want || want == peer.BookieOK && !bytes.Equal(payload, make([]byte, 100)) {
			t.Errorf("entry %d of a bookie: code %d, payload %x, error %v", entry*10, code, payload, err)
		}
	}
	out, err := cluster.Shell(step(t), "ledgermetadata", "-ledgerid", id)
	if err != nil || !strings.Contains(out, "CLOSED") {
		t.Errorf("ledgermetadata: %v\n%s", err, out)
	}
	for _, s := range append(slices.Clone(cluster.Bookies), cluster.AutoRecovery) {
		usage, err := s.Process().Usage()
		if err != nil {
			t.Error(err)
		}
		const rssBytesMax = 400 << 20
		if usage.RSSBytes > rssBytesMax {
			t.Errorf("%s has %d MB resident", s.ID, usage.RSSBytes>>20)
		}
	}
}
