package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/quirelog/quire/storage/meta"
)

// ClusterConfig says how to reach an etcd cluster.
type ClusterConfig struct {
	Endpoints          []string // host:port, or http(s)://host:port
	TLS                *tls.Config
	Username, Password string
	Logger             *zap.Logger   // nil: silent
	RequestTimeout     time.Duration // of one request; 0: 5 s

	// OnFailure is called once, on any goroutine, if the cluster turns out to have
	// forgotten what it had acknowledged (ErrWentBack). Every request fails from then
	// on, and watches end as at Close. It must not block, nor call Close. May be nil.
	OnFailure func(error)
}

// defaultRequestTimeout is also Kafka's limit for an offset commit
// (offsets.commit.timeout.ms), the most impatient of what waits for etcd.
const defaultRequestTimeout = 5 * time.Second

// Dial makes a client of the cluster for another use than a Store's. It does not wait for
// an answer. The caller closes it.
func (c ClusterConfig) Dial() (*clientv3.Client, error) {
	return c.dial(quiet(c.Logger), cmp.Or(c.RequestTimeout, defaultRequestTimeout))
}

func (c ClusterConfig) dial(logger *zap.Logger, timeout time.Duration) (*clientv3.Client, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   c.Endpoints,
		TLS:         c.TLS,
		Username:    c.Username,
		Password:    c.Password,
		Logger:      logger,
		DialTimeout: timeout,
		// gRPC pings every 10 s at most, and only while a request or a watch
		// waits: etcd closes connections that are pinged while idle, with
		// whatever has just been sent on them.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %v: %w: %s", c.Endpoints, classify(err, false), err)
	}
	return client, nil
}

// Open returns a store on a cluster, once the cluster has answered. With no
// answer it fails with ErrUnavailable, or the context's error if that ends first.
func Open(ctx context.Context, c ClusterConfig) (*Store, error) {
	if len(c.Endpoints) == 0 {
		return nil, errors.New("etcd: no endpoints are given")
	}
	s := newStore(c.Logger, c.RequestTimeout)
	s.onFailure = c.OnFailure
	var clients [3]*clientv3.Client
	for i := range clients {
		client, err := c.dial(s.logger, s.timeout)
		if err != nil {
			for _, opened := range clients[:i] {
				opened.Close()
			}
			s.cancel()
			return nil, err
		}
		clients[i] = client
	}
	s.kv, s.watcher, s.leases = clients[0], clients[1], clients[2]
	if _, err := s.Get(ctx, "quire/"); err != nil && !errors.Is(err, meta.ErrNotFound) {
		s.Close()
		return nil, fmt.Errorf("etcd at %v: %w", c.Endpoints, err)
	}
	s.startCompaction()
	return s, nil
}

func newStore(logger *zap.Logger, timeout time.Duration) *Store {
	if timeout <= 0 {
		timeout = defaultRequestTimeout
	}
	s := &Store{logger: quiet(logger), timeout: timeout, closing: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}
