//go:build race || poison

package buffer

const (
	poison     = true
	poisonByte = 0xDB
)

func fillPoison(b []byte) {
	for i := range b {
		b[i] = poisonByte
	}
}

// checkPoison panics if somebody wrote to b after its last release.
func checkPoison(b []byte) {
	for i := range b {
		if b[i] != poisonByte {
			panic("buffer: bytes written after the last release")
		}
	}
}
