package metadata

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Names under the root of the layout, which is "/ledgers" unless a ZooKeeper URI
// says otherwise. They are BookKeeper's and Pulsar's metadata drivers' alike.
const (
	InstanceIDPath      = "INSTANCEID"
	LayoutPath          = "LAYOUT" // of ZooKeeper alone
	AvailablePath       = "available"
	ReadOnlyName        = "readonly" // below AvailablePath
	CookiesPath         = "cookies"
	ShortIDsPath        = "idgen"
	LongIDsPath         = "idgen-long"
	UnderReplicatedPath = "underreplication/ledgers"

	bucketPrefix = "HOB-" // below LongIDsPath: the high 32 bits
	markPrefix   = "urL"
)

// MaxShortID is where ids of 31 bits end and those of 63 begin. BookKeeper never
// gives out MaxShortID itself.
const MaxShortID = math.MaxInt32

// LedgerPath returns where the metadata of a ledger is, relative to the root: the
// id in decimal, cut 2-4-4 if it has 31 bits and 3-4-4-4-4 if it has 63
// (HierarchicalLedgerManager).
func LedgerPath(id int64) string {
	if id < MaxShortID {
		s := fmt.Sprintf("%010d", id)
		return s[:2] + "/" + s[2:6] + "/L" + s[6:]
	}
	s := fmt.Sprintf("%019d", id)
	return s[:3] + "/" + s[3:7] + "/" + s[7:11] + "/" + s[11:15] + "/L" + s[15:]
}

// ParseLedgerPath is the opposite of LedgerPath: false for any path that no
// ledger has.
func ParseLedgerPath(path string) (int64, bool) {
	digits := make([]byte, 0, 19)
	for i := range len(path) {
		if c := path[i]; c >= '0' && c <= '9' && len(digits) < cap(digits) {
			digits = append(digits, c)
		}
	}
	id, err := strconv.ParseInt(string(digits), 10, 64)
	return id, err == nil && LedgerPath(id) == path
}

// MarkPath returns where the mark of an under-replicated ledger is, relative to
// the root: four groups of 16 bits in hex (ZkLedgerUnderreplicationManager).
func MarkPath(id int64) string {
	return fmt.Sprintf("%s/%04x/%04x/%04x/%04x/%s%010d", UnderReplicatedPath,
		id>>48&0xffff, id>>32&0xffff, id>>16&0xffff, id&0xffff, markPrefix, id)
}

// ParseMarkPath is the opposite of MarkPath.
func ParseMarkPath(path string) (int64, bool) {
	_, digits, ok := strings.Cut(path, "/"+markPrefix)
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseInt(digits, 10, 64)
	return id, err == nil && id >= 0 && MarkPath(id) == path
}

// BucketPath returns the node below LongIDsPath that counts the ids with these
// high bits; the first has 1.
func BucketPath(high int32) string {
	return fmt.Sprintf("%s/%s%010d", LongIDsPath, bucketPrefix, high)
}

// LastBucket returns the greatest bucket among names below LongIDsPath, 0 if
// there is none. Names that are no buckets do not count.
func LastBucket(names []string) int32 {
	last := int32(0)
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, bucketPrefix)
		if n, err := strconv.ParseInt(digits, 10, 32); ok && err == nil && n > 0 {
			last = max(last, int32(n))
		}
	}
	return last
}
