//go:build race || poison

package buffer

import "testing"

func TestReleasedBytesArePoisoned(t *testing.T) {
	b := Get(2000)
	late := b.B
	b.Release()
	for i, c := range late {
		if c != poisonByte {
			t.Fatalf("byte %d is %#x after the last release", i, c)
		}
	}
}

func TestDeadBufferStaysDead(t *testing.T) {
	b := Get(3000)
	b.Release()
	for range 10 {
		if Get(3000) == b {
			t.Fatal("a released *Buffer was handed out again")
		}
	}
	mustPanic(t, "released too often", b.Release)
}

func TestLateWriteIsCaught(t *testing.T) {
	b := &Buffer{whole: make([]byte, 2048)}
	fillPoison(b.whole)
	checkPoison(b.whole)
	b.whole[77] = 1
	mustPanic(t, "written after the last release", func() { checkPoison(b.whole) })
}
