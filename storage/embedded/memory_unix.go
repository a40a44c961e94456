//go:build unix

package embedded

import "golang.org/x/sys/unix"

// allocAligned returns zeroed memory that begins on a page, outside the
// collector's heap: the backlog would otherwise double its goal.
func allocAligned(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

func freeAligned(b []byte) { _ = unix.Munmap(b) }
