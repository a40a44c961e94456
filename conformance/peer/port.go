package peer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// Ports are taken from below Linux's ephemeral range (32768 up): a client that
// redials a dead server inside that range can connect to itself, and then holds
// the port that the restarted server needs.
const firstPort, lastPort = 15000, 31999

// freePorts returns n ports of 127.0.0.1 that nothing listens on now and that no
// other process of this suite is given as long as this one lives.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		if reserve(port) {
			ports = append(ports, port)
		}
		l.Close()
	}
	return nil, errors.New("no free port on 127.0.0.1")
}

// reserve takes a port for this process, by a socket with its number in Linux's
// abstract namespace: it needs no file and goes with the process.
func reserve(port int) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@quire-conformance-port-%d", port)}); err != nil {
		unix.Close(fd)
		return false
	}
	return true
}

// Listen returns an address of the host, host:port, with a port that is free.
func (h *Host) Listen() (string, error) { return FreeAddress(h.IP()) }

// FreeAddress returns host:port with a port that is free here.
func FreeAddress(host string) (string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(ports[0])), nil
}
