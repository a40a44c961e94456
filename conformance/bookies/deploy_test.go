package bookies

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

func deployFile(t *testing.T, name string) string {
	t.Helper()
	root, err := peer.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "..", "deploy", name)
}

// The configuration in deploy is one that a bookie starts with and serves by.
func TestDeployedConfiguration(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	text, err := os.ReadFile(deployFile(t, "bookie.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		// What names its place is the suite's.
		for _, key := range []string{"#", "metadataServiceUri=", "bookiePort=", "useHostName", "useShortHostName", "journalDirectories=", "ledgerDirectories=", "indexDirectories="} {
			if strings.HasPrefix(line, key) {
				line = ""
			}
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	// Caches are fractions of the memory of a server, which a test does not have.
	lines = append(lines, "dbStorage_writeCacheMaxSizeMb=16", "dbStorage_readAheadCacheMaxSizeMb=16", "dbStorage_rocksDB_blockCacheSize=8388608")
	cluster := start(t, peer.BookKeeperOptions{Bookies: 1, Overrides: lines})
	j := java(t, cluster, "v2")
	id := j.do("create CRC32C - 1 1 1")
	if last := j.do("add", id, 100, 10000); last != "99" {
		t.Errorf("the last entry is %s", last)
	}
}

// bookkeeper-watch ends a bookie that has been unregistered for too long, and
// AutoRecovery when etcd was started anew, and leaves both alone otherwise.
func TestWatch(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	if _, err := peer.Debian(t.Context(), "curl", "curl"); err != nil {
		missing(t, err)
		t.Fatal(err)
	}
	var keys, started, asked atomic.Int64 // keys: how many etcd has of each that is asked for
	etcd := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.URL.Path == "/metrics":
			fmt.Fprintf(w, "# HELP x\nprocess_start_time_seconds 1.7%de+09\n", started.Load())
		case r.URL.Path == "/v3/kv/range" && strings.Contains(string(body), `"count_only":true`):
			if n := keys.Load(); n == 0 {
				fmt.Fprint(w, `{"header":{"revision":"7"}}`) // protobuf's JSON leaves zeros out
			} else {
				fmt.Fprintf(w, `{"header":{"revision":"7"},"count":"%d"}`, n)
			}
		default:
			http.Error(w, "unexpected "+r.URL.Path, http.StatusBadRequest)
		}
		asked.Add(1)
	}))
	defer etcd.Close()
	for _, c := range []struct {
		mode []string
		lose func()
		says string
	}{
		{[]string{"registered", etcd.URL, "127.0.0.1:3181"}, func() { keys.Store(0) }, "has not been registered"},
		{[]string{"connected", etcd.URL}, func() { started.Add(1) }, "started anew"},
	} {
		t.Run(c.mode[0], func(t *testing.T) {
			keys.Store(1)
			args := append([]string{deployFile(t, "bookkeeper-watch")}, c.mode...)
			cmd := exec.CommandContext(t.Context(), "sh", append(args, "sleep", "1000")...)
			cmd.Env = append(os.Environ(), "WATCH_EVERY_SECONDS=1", "WATCH_SECONDS=2")
			cmd.WaitDelay = time.Second // its sleep may outlive it
			var said strings.Builder
			cmd.Stderr = &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			until := asked.Load() + 3
			for asked.Load() < until {
				select {
				case err := <-ended:
					t.Fatalf("the watch ended with nothing lost: %v\n%s", err, said.String())
				case <-time.After(10 * time.Millisecond):
				}
			}
			c.lose()
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(said.String(), c.says) {
					t.Errorf("the watch ended with %v and said %q, want a failure and %q", err, said.String(), c.says)
				}
			case <-step(t).Done():
				cmd.Process.Kill()
				t.Error("the watch goes on")
			}
		})
	}
}

// The supervisor of this suite does what deploy's units do: bookies and AutoRecovery
// come back after a stall past their lease, and after etcd was started anew.
func TestSupervisor(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 3, AutoRecovery: true})
	supervisor := cluster.Supervise(3*time.Second, t.Logf)
	defer supervisor.Stop()
	b := cluster.Bookies[0]
	before := b.Process().PID()
	if err := b.Pause(); err != nil {
		t.Fatal(err)
	}
	registered := func(want bool) {
		t.Helper()
		q := quire{t: t, cluster: cluster}
		q.waitFor(fmt.Sprintf("registered is not %t", want), func(ctx context.Context) (bool, error) {
			is, _, err := cluster.Registered(ctx, b)
			return is == want, err
		})
	}
	registered(false)
	if err := b.Resume(); err != nil {
		t.Fatal(err)
	}
	registered(true)
	if b.Process().PID() == before {
		t.Error("the bookie registered again by itself: the rule has lost its reason")
	}
	daemon := cluster.AutoRecovery.Process()
	cluster.Etcd.Kill()
	if err := cluster.Etcd.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-daemon.Exited():
	case <-step(t).Done():
		t.Error("AutoRecovery was not started again after etcd was")
	}
}
