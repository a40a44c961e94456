package metadata_test

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func TestPaths(t *testing.T) {
	for id, want := range map[int64]string{
		0:             "00/0000/L0000",
		1:             "00/0000/L0001",
		123456789:     "01/2345/L6789",
		1<<31 - 2:     "21/4748/L3646",
		1<<31 - 1:     "000/0000/0021/4748/L3647",
		4294967296:    "000/0000/0042/9496/L7296",
		1<<62 + 5:     "461/1686/0184/2738/L7909",
		math.MaxInt64: "922/3372/0368/5477/L5807",
	} {
		if got := metadata.LedgerPath(id); got != want {
			t.Errorf("LedgerPath(%d) = %s, want %s", id, got, want)
		}
	}
	for id, want := range map[int64]string{
		42:        "underreplication/ledgers/0000/0000/0000/002a/urL0000000042",
		1<<62 + 5: "underreplication/ledgers/4000/0000/0000/0005/urL4611686018427387909",
	} {
		if got := metadata.MarkPath(id); got != want {
			t.Errorf("MarkPath(%d) = %s, want %s", id, got, want)
		}
	}
	for _, path := range []string{
		"", "0", "available", "available/127.0.0.1:3181", "cookies/0000000001", "idgen", "idgen/ID-0000000001", "idgen-long/HOB-0000000001",
		"INSTANCEID", "00/0000", "00/0000/0001", "00/0000/L001", "00/0000/L00011", "00/0000/L0001/", "/00/0000/L0001", "0000/00/L0001",
		"21/4748/L3647", "000/0000/0000/0000/L0001", "922/3372/0368/5477/L5808", "999/9999/9999/9999/L9999", "00/00x0/L0001", "00/0000/L٠٠٠١",
		"underreplication/ledgers/0000/0000/0000/002a/urL0000000042",
	} {
		if id, ok := metadata.ParseLedgerPath(path); ok {
			t.Errorf("%q is the path of ledger %d", path, id)
		}
	}
	for _, path := range []string{
		"", "urL0000000042", "underreplication/ledgers/0000/0000/0000/002b/urL0000000042", "underreplication/ledgers/0000/0000/0000/002a/urL42",
		"underreplication/ledgers/ffff/ffff/ffff/ffff/urL-000000001", "underreplication/locks/urL0000000042",
	} {
		if id, ok := metadata.ParseMarkPath(path); ok {
			t.Errorf("%q is the mark of ledger %d", path, id)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.Int64Min(0).Draw(t, "id")
		if got, ok := metadata.ParseLedgerPath(metadata.LedgerPath(id)); !ok || got != id {
			t.Fatalf("ParseLedgerPath of %d's: %d, %v", id, got, ok)
		}
		if got, ok := metadata.ParseMarkPath(metadata.MarkPath(id)); !ok || got != id {
			t.Fatalf("ParseMarkPath of %d's: %d, %v", id, got, ok)
		}
	})
}

func TestBuckets(t *testing.T) {
	if got, want := metadata.BucketPath(1), "idgen-long/HOB-0000000001"; got != want {
		t.Errorf("BucketPath(1) = %s, want %s", got, want)
	}
	if got := metadata.LastBucket([]string{"HOB-0000000003", "HOB-0000000011", "HOB-x", "ID-0000000099", "HOB--000000001", "HOB-9999999999"}); got != 11 {
		t.Errorf("LastBucket = %d, want 11", got)
	}
	if got := metadata.LastBucket(nil); got != 0 {
		t.Errorf("LastBucket of nothing = %d", got)
	}
}

func TestBookieIDs(t *testing.T) {
	for id, want := range map[metadata.BookieID]bool{
		"127.0.0.1:3181": true, "bookie-1.example": true, "A_z@x": true, "[::1]:3181": true,
		"": false, "readonly": false, "a/b": false, "a b": false, "a\nb": false, "ü": false, "a\"b": false,
	} {
		if id.Valid() != want {
			t.Errorf("%q: valid %v, want %v", id, !want, want)
		}
	}
}
