package bookies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quirelog/quire/conformance/peer"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ensemble returns the bookies that some ledger names in its metadata.
func (q *quire) ensemble(ledger int64) (named []*peer.JavaServer) {
	q.t.Helper()
	all, err := q.cluster.Ledgers(step(q.t))
	if err != nil {
		q.t.Fatal(err)
	}
	for _, b := range q.cluster.Bookies {
		if bytes.Contains(all[ledger], []byte(b.ID)) {
			named = append(named, b)
		}
	}
	return named
}

// begin produces in the background; the result waits for its end.
func (q *quire) begin(topic string, from, to int) (wait func()) {
	q.t.Helper()
	ctx := step(q.t)
	done := make(chan error, 1)
	go func() {
		for ; from < to; from++ {
			if err := q.client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: value(topic, from)}).FirstErr(); err != nil {
				done <- fmt.Errorf("record %d of %s: %w", from, topic, err)
				return
			}
		}
		done <- nil
	}()
	return func() {
		q.t.Helper()
		if err := <-done; err != nil {
			q.t.Fatal(err)
		}
	}
}

func pause(t *testing.T, e *peer.Etcd, on bool) {
	t.Helper()
	for _, m := range e.Members {
		act := m.Resume
		if on {
			act = m.Pause
		}
		if err := act(); err != nil {
			t.Fatal(err)
		}
	}
}

// Without etcd no ledger is made and no ensemble changes. A ledger that is full takes
// what comes until etcd is back; so does one that has lost a bookie, while the others
// are an ack quorum.
func TestEtcdAwayDuringRollAndChange(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 4})
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("postponed", 1<<18)
	q.produce(topic, 0, 100, 100)
	before := q.ledgers(topic)

	pause(t, cluster.Etcd, true)
	q.produce(topic, 100, 2000, 100) // several segments
	pause(t, cluster.Etcd, false)
	q.produce(topic, 2000, 2100, 1)
	var now []int64
	q.waitFor("the ledger is not replaced", func(context.Context) (bool, error) {
		now = q.ledgers(topic)
		return len(now) > len(before), nil
	})

	lost := q.ensemble(now[len(now)-1])[0]
	pause(t, cluster.Etcd, true)
	if err := lost.Kill(); err != nil {
		t.Fatal(err)
	}
	q.produce(topic, 2100, 2300, 20)
	pause(t, cluster.Etcd, false)
	q.check(topic, 0, 2300)
	q.restart()
	q.check(topic, 0, 2300)
}

// A bookie that stood still for longer than its lease serves on without being
// registered, and nobody hears of its address any more. It is no death: what it alone
// can answer is read from it, also by a server that was started since.
func TestBookiePausedPastItsLease(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 3})
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("paused", 1<<18)
	q.produce(topic, 0, 1000, 100)
	stalled := cluster.Bookies[1]
	if err := stalled.Pause(); err != nil {
		t.Fatal(err)
	}
	wait := q.begin(topic, 1000, 1500)
	q.waitFor("the lease lives on", func(ctx context.Context) (bool, error) {
		registered, _, err := cluster.Registered(ctx, stalled)
		return !registered, err
	})
	wait()
	if err := stalled.Resume(); err != nil {
		t.Fatal(err)
	}
	q.produce(topic, 1500, 1600, 1)
	q.restart()
	q.check(topic, 0, 1600) // all of it is sealed now
	if registered, _, err := cluster.Registered(step(t), stalled); err != nil || registered {
		t.Fatalf("the bookie registered again by itself: %t, error %v: what follows shows nothing", registered, err)
	}
	for _, b := range cluster.Bookies {
		if b == stalled {
			continue
		}
		if err := b.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	q.check(topic, 0, 500)
}

// AutoRecovery cannot close an open ledger whose ensemble takes all bookies and of which
// one is dead: it leaves it IN_RECOVERY. Quire closes it with the ack quorum.
func TestLedgerInRecoveryWithoutSpare(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster := start(t, peer.BookKeeperOptions{Bookies: 3, AutoRecovery: true, Recovery: []string{"openLedgerRereplicationGracePeriod=1000"}})
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("in-recovery", 1<<30)
	const records = 300
	q.produce(topic, 0, records, 100)
	ids := q.ledgers(topic)
	if err := q.server.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Bookies[2].Kill(); err != nil {
		t.Fatal(err)
	}
	// lastEntryId −1, state IN_RECOVERY.
	inRecovery := append(append([]byte{0x20}, bytes.Repeat([]byte{0xff}, 9)...), 0x01, 0x28, 0x02)
	q.waitFor("AutoRecovery does not fence the ledger", func(ctx context.Context) (bool, error) {
		all, err := cluster.Ledgers(ctx)
		return bytes.Contains(all[ids[0]], inRecovery), err
	})
	if err := q.server.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	q.check(topic, 0, records)
	q.produce(topic, records, 2*records, 10)
	q.check(topic, 0, 2*records)
}

// Metadata of a version that nobody knows here stop the reader of their ledger, with an
// error that it retries, and nobody else; no record is skipped.
func TestMetadataOfANewerVersion(t *testing.T) {
	q := quireOn(t, shared(t), threeThreeTwo)
	topic, other := q.topic("newer", 1<<18), q.topic("as-ever", 1<<30)
	const records = 1500
	q.produce(topic, 0, records, 200)
	q.produce(other, 0, 100, 100)
	ids := q.ledgers(topic)
	if len(ids) < 2 {
		t.Fatalf("ledgers: %v, want several", ids)
	}
	// Sealed by the restart, so that nothing has to be recovered but what the test breaks.
	q.restart()
	q.check(topic, 0, records)
	all, err := q.cluster.Ledgers(step(t))
	if err != nil {
		t.Fatal(err)
	}
	kvs, err := q.cluster.Etcd.Prefix(step(t), "/ledgers/")
	if err != nil {
		t.Fatal(err)
	}
	key, old := "", all[ids[0]]
	for _, kv := range kvs {
		if bytes.Equal(kv.Value, old) {
			key = string(kv.Key)
		}
	}
	newer := bytes.Replace(old, []byte("Version\t3\n"), []byte("Version\t4\n"), 1)
	if key == "" || bytes.Equal(newer, old) {
		t.Fatalf("the metadata of ledger %d are %q", ids[0], old)
	}
	if err := q.cluster.Etcd.Put(step(t), key, string(newer)); err != nil {
		t.Fatal(err)
	}
	q.restart()
	reader, err := kgo.NewClient(kgo.SeedBrokers(q.server.Addr()), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.KeepRetryableFetchErrors(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if fetches := reader.PollFetches(step(t)); fetches.NumRecords() > 0 || fetches.Err() == nil {
		t.Errorf("a reader of what nobody understands gets %d records and error %v", fetches.NumRecords(), fetches.Err())
	}
	q.produce(topic, records, records+10, 1)
	q.check(other, 0, 100)
	if err := q.cluster.Etcd.Put(step(t), key, string(old)); err != nil {
		t.Fatal(err)
	}
	q.check(topic, 0, records+10)
	for _, name := range []string{topic, other} {
		if _, err := q.admin.DeleteTopic(step(t), name); err != nil {
			t.Fatal(err)
		}
	}
}

// A bookie of another cluster, which came to be registered here with the cookie of its
// own, gets nothing to keep.
func TestBookieOfAnotherCluster(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	cluster, elsewhere := start(t, peer.BookKeeperOptions{Bookies: 4}), start(t, peer.BookKeeperOptions{Bookies: 1})
	stranger := elsewhere.Bookies[0].ID
	kvs, err := elsewhere.Etcd.Prefix(step(t), "/ledgers/")
	if err != nil {
		t.Fatal(err)
	}
	copied := 0
	for _, kv := range kvs {
		if strings.HasSuffix(string(kv.Key), "/"+stranger) { // registration and cookie
			if err := cluster.Etcd.Put(step(t), string(kv.Key), string(kv.Value)); err != nil {
				t.Fatal(err)
			}
			copied++
		}
	}
	if copied != 2 {
		t.Fatalf("%d keys of the bookie were found, want its registration and its cookie", copied)
	}
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("strangers", 1<<18)
	q.produce(topic, 0, 3000, 200)
	ids := q.ledgers(topic)
	// One of the ensemble is replaced, and not by the stranger.
	if err := q.ensemble(ids[len(ids)-1])[0].Kill(); err != nil {
		t.Fatal(err)
	}
	q.produce(topic, 3000, 4000, 100)
	q.check(topic, 0, 4000)
	all, err := cluster.Ledgers(step(t))
	if err != nil {
		t.Fatal(err)
	}
	for id, metadata := range all {
		if bytes.Contains(metadata, []byte(stranger)) {
			t.Errorf("ledger %d is on the stranger: %q", id, metadata)
		}
	}
}

// ownDisk names the folder on which this test binary, started again in a mount namespace
// of its own, mounts a small file system for one bookie. It goes with the process.
const ownDisk = "QUIRE_CONFORMANCE_BOOKIE_DISK"

const (
	ownDiskBytes = 96 << 20
	ballastBytes = 64 << 20
)

// The disk of a bookie fills up: it becomes read-only, ledgers leave it, and it takes
// part again when there is room. Then it is full to the last byte, and the bookie dies
// of it.
func TestFullDiskOfABookie(t *testing.T) {
	if !full {
		t.Skip("only in the full run")
	}
	if dir := os.Getenv(ownDisk); dir != "" {
		// Of a chroot the root is no mount and cannot be made private: then the
		// disk may be seen outside until it is unmounted.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil && err != syscall.EINVAL {
			t.Fatalf("make the mounts private: %v", err)
		}
		fullDisk(t, dir)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestFullDiskOfABookie$", "-test.v")
	cmd.Env = append(os.Environ(), ownDisk+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in a mount namespace: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func fullDisk(t *testing.T, dir string) {
	cluster, err := peer.NewBookKeeper(t.Context(), peer.BookKeeperOptions{Dir: dir, Bookies: 4})
	if err != nil {
		t.Fatal(err)
	}
	b := cluster.Bookies[0]
	// Its configuration lies there already, and stays below the mount.
	conf, err := os.ReadFile(filepath.Join(b.Dir(), "server.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("disk", b.Dir(), "tmpfs", 0, fmt.Sprintf("size=%d", ownDiskBytes)); err != nil {
		t.Fatalf("mount a tmpfs on %s: %v", b.Dir(), err)
	}
	t.Cleanup(func() {
		err := errors.Join(cluster.Kill(), syscall.Unmount(b.Dir(), syscall.MNT_DETACH))
		if err != nil {
			t.Error(err)
		}
	})
	// The first of two lines with one key counts. The other bookies have the machine's disk.
	own := "diskUsageThreshold=0.60\ndiskUsageWarnThreshold=0.55\ndiskUsageLwmThreshold=0.50\ndiskCheckInterval=200\n"
	if err := os.WriteFile(filepath.Join(b.Dir(), "server.conf"), append([]byte(own), conf...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(step(t)); err != nil {
		t.Fatal(err)
	}
	q := quireOn(t, cluster, threeThreeTwo)
	topic := q.topic("full-disk", 1<<18)
	next := 0
	more := func(count int) {
		t.Helper()
		q.produce(topic, next, next+count, 100)
		next += count
	}
	more(1000)
	readOnly := func(want bool) {
		t.Helper()
		q.waitFor(fmt.Sprintf("read-only is not %t", want), func(ctx context.Context) (bool, error) {
			registered, is, err := cluster.Registered(ctx, b)
			return registered && is == want, err
		})
	}
	ballast := filepath.Join(b.Dir(), "ballast")
	if err := os.WriteFile(ballast, make([]byte, ballastBytes), 0o644); err != nil {
		t.Fatal(err)
	}
	readOnly(true)
	more(1000)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	readOnly(false)
	more(1000)

	// Now without a word before: the journal itself finds no room.
	rest, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer rest.Close()
	chunk := make([]byte, 64<<10)
	for err == nil {
		_, err = rest.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	for range 20 {
		more(200)
	}
	q.check(topic, 0, next)
	q.restart()
	q.check(topic, 0, next)
}
