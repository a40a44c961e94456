package bookies

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// stepTimeout is what one step of a test may take on a busy machine: JVMs start
// in seconds.
const stepTimeout = 60 * time.Second

// full says whether the long run was asked for.
var full = os.Getenv("QUIRE_CONFORMANCE_FULL") == "true"

// sharedCluster serves every test that leaves the bookies alone.
var sharedCluster struct {
	once    sync.Once
	cluster *peer.BookKeeper
	err     error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if c := sharedCluster.cluster; c != nil {
		if err := errors.Join(c.Kill(), os.RemoveAll(c.Dir())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// shared returns the cluster of three bookies that tests use one after the other.
func shared(t *testing.T) *peer.BookKeeper {
	t.Helper()
	sharedCluster.once.Do(func() {
		dir, err := peer.DataDir("", "bookies-test")
		if err != nil {
			sharedCluster.err = err
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // with the downloads
		defer cancel()
		cluster, err := peer.NewBookKeeper(ctx, peer.BookKeeperOptions{Dir: dir, Bookies: 3, AutoRecovery: true})
		if err == nil {
			sharedCluster.cluster = cluster
			err = cluster.Start(ctx)
		}
		sharedCluster.err = err
	})
	if err := sharedCluster.err; err != nil {
		missing(t, err)
		t.Fatal(err)
	}
	return sharedCluster.cluster
}

// missing skips a test whose tools are not there, unless they must be.
func missing(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, peer.ErrMissingTool) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
}

// start runs a cluster for one test.
func start(t *testing.T, opts peer.BookKeeperOptions) *peer.BookKeeper {
	t.Helper()
	opts.Dir = t.TempDir()
	cluster, err := peer.NewBookKeeper(t.Context(), opts)
	if err != nil {
		missing(t, err)
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Kill(); err != nil {
			t.Error(err)
		}
	})
	if err := cluster.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	return cluster
}

// step returns a context for the next step of a test.
func step(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	t.Cleanup(cancel)
	return ctx
}

// java starts a Java client.
func java(t *testing.T, cluster *peer.BookKeeper, protocol string) *javaClient {
	t.Helper()
	client, err := cluster.StartJavaClient(step(t), protocol, "-Xmx128M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Kill)
	return &javaClient{t, client}
}

// A javaClient fails its test where a command fails.
type javaClient struct {
	t      *testing.T
	client *peer.JavaClient
}

func (j *javaClient) do(words ...any) string {
	j.t.Helper()
	answer, err := j.client.Do(step(j.t), words...)
	if err != nil {
		j.t.Fatal(err)
	}
	return strings.Join(answer, " ")
}

// refused is what a command is refused with.
func (j *javaClient) refused(words ...any) string {
	j.t.Helper()
	answer, err := j.client.Do(step(j.t), words...)
	if !errors.Is(err, peer.ErrJava) {
		j.t.Fatalf("%v: answer %v, error %v; want a refusal", words, answer, err)
	}
	return err.Error()
}
