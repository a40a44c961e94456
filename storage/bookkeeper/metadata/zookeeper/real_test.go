//go:build zookeeper

package zookeeper

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/quirelog/quire/storage/bookkeeper/metadata/metadatatest"
)

// TestRealServer runs the contract on a real ZooKeeper, whose addresses
// QUIRE_ZOOKEEPER lists (host:port,…):
//
//	QUIRE_ZOOKEEPER=127.0.0.1:2181 go test -tags=zookeeper -run=TestRealServer ./storage/bookkeeper/metadata/zookeeper
//
// It uses roots of its own, /quire-test-…, and leaves them.
func TestRealServer(t *testing.T) {
	servers := strings.Split(os.Getenv("QUIRE_ZOOKEEPER"), ",")
	if servers[0] == "" {
		t.Fatal("QUIRE_ZOOKEEPER names no server")
	}
	other, events, err := zk.Connect(servers, 10*time.Second, zk.WithLogInfo(false))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		other.Close()
		for range events {
		}
	}()
	n := 0
	metadatatest.Run(t, func(t *testing.T) metadatatest.Harness {
		n++
		s, err := Open(Config{Servers: servers, Root: fmt.Sprintf("/quire-test-%d-%d/ledgers", time.Now().UnixNano(), n), Logf: t.Logf})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return harness(t, s, other)
	})
}
