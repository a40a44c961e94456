//go:build !race && !poison

package buffer

const poison = false

func fillPoison([]byte)  {}
func checkPoison([]byte) {}
