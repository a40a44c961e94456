package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// clientFlags choose the server that a tool talks to. Any Kafka server will do.
type clientFlags struct {
	BootstrapServer []string      `short:"b" placeholder:"HOST:PORT,…" env:"${bootstrap_env}" default:"127.0.0.1:9092" help:"Servers to ask first (${default})."`
	Timeout         time.Duration `default:"30s" help:"Time for one request, or one record to be acknowledged (${default})."`
}

func (f *clientFlags) open(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(f.BootstrapServer...),
		kgo.ClientID("quire"),
		kgo.SoftwareNameAndVersion("quire", clientVersion()),
		kgo.RetryTimeout(f.Timeout),
	}, opts...)...)
}

// clientVersion is version in the characters that KIP-511 allows.
func clientVersion() string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r == '.', r == '-':
			return r
		}
		return '-'
	}, version())
}

// reach dials one of the servers before anything else is tried: a client
// library retries a server that is not there, which helps nobody at a terminal.
func (f *clientFlags) reach(ctx context.Context) error {
	var first error
	for _, s := range f.BootstrapServer {
		address := s
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(address, "9092")
		}
		d := net.Dialer{Timeout: f.Timeout}
		conn, err := d.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		if first == nil {
			first = err
		}
	}
	var op *net.OpError
	if errors.As(first, &op) {
		first = op.Err
	}
	return fmt.Errorf("no server at %s: %w; is quire serve running there? (-b names another)", strings.Join(f.BootstrapServer, ", "), first)
}

// admin runs f with an admin client within the timeout.
func (f *clientFlags) admin(p *process, do func(ctx context.Context, a *kadm.Client) error) error {
	ctx, cancel := context.WithTimeout(p.ctx, f.Timeout)
	defer cancel()
	if err := f.reach(ctx); err != nil {
		return err
	}
	client, err := f.open()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := do(ctx, kadm.NewClient(client)); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("no answer within %s (--timeout): %w", f.Timeout, err)
		}
		return err
	}
	return nil
}

// explain words an error of a topic: the server's message if it sent one, else
// the error code's name and what it means.
func explain(topic string, err error, message string) error {
	var code *kerr.Error
	if !errors.As(err, &code) {
		return fmt.Errorf("topic %s: %w", topic, err)
	}
	if message == "" {
		message = strings.TrimSuffix(code.Description, ".")
	}
	return fmt.Errorf("topic %s: %s: %s", topic, code.Message, message)
}
