//go:build !unix

package embedded

import (
	"unsafe"

	"github.com/quirelog/quire/storage/vfs"
)

func allocAligned(n int) ([]byte, error) {
	b := make([]byte, n+vfs.BlockBytes)
	skip := -int(uintptr(unsafe.Pointer(&b[0]))) & (vfs.BlockBytes - 1)
	return b[skip : skip+n : skip+n], nil
}

func freeAligned([]byte) {}
