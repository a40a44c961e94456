package peer

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports are taken from below Linux's ephemeral range (32768 up): a client that
// redials a dead server inside that range can connect to itself, and then holds
// the port that the restarted server needs.
const firstPort, lastPort = 15000, 31999

// freePorts returns n ports of 127.0.0.1 that nothing listens on now.
func freePorts(n int) ([]int, error) {
	var ports []int
	var held []net.Listener
	defer func() {
		for _, l := range held {
			l.Close()
		}
	}()
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		held = append(held, l)
		ports = append(ports, port)
	}
	return nil, errors.New("no free port on 127.0.0.1")
}
