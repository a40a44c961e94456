//go:build planted

package quorum

import "github.com/quirelog/quire/storage/planted"

func init() {
	switch {
	case planted.Is(planted.AckBeforeQuorum):
		protocol.acknowledged = func(acks, _ int) bool { return acks > 0 }
	case planted.Is(planted.NoFence):
		protocol.lastFlags &^= Fence
		protocol.readFlags &^= Fence
	case planted.Is(planted.ShortRecovery):
		protocol.absent = func(int, int, int) bool { return true }
	}
}
