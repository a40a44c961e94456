package etcd

import (
	"sync/atomic"
	"time"
)

const (
	// reserveBytes of the file system stay free for what etcd writes by itself:
	// it does not survive a full disk, so new facts are refused before.
	reserveBytes = 64 << 20
	// spaceEvery is how long an answer of the file system is believed.
	spaceEvery = time.Second
)

// freeSpace watches the file system of a folder.
type freeSpace struct {
	dir     string
	free    func(dir string) (uint64, error)
	checked atomic.Int64 // Unix nanoseconds of the last look
	isLow   atomic.Bool
}

// low says whether less than reserveBytes are free.
func (f *freeSpace) low() bool {
	now, last := time.Now().UnixNano(), f.checked.Load()
	if now-last >= int64(spaceEvery) && f.checked.CompareAndSwap(last, now) {
		free, err := f.free(f.dir)
		f.isLow.Store(err == nil && free < reserveBytes)
	}
	return f.isLow.Load()
}
