//go:build !linux

package loop

// Epoll returns ErrUnsupported: use Portable.
func Epoll(Config) (Group, error) { return nil, ErrUnsupported }
