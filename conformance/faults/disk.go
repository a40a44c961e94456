package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/quirelog/quire/conformance/check"
	"github.com/quirelog/quire/conformance/load"
	"github.com/quirelog/quire/conformance/peer"
)

// A breakage is one way in which the disk below a running server fails with EIO.
type breakage struct {
	name string
	part string // of the paths it hits
	sync bool   // it hits syncs, else writes
	once bool   // one call fails, else all until the server is started again
}

// breakages are taken in turn. After one failure the server goes on by itself;
// when nothing can be written any more it must end with status 1 and say why.
var breakages = []breakage{
	{name: "one sync of the journal fails", part: "/ledgers/journal/", sync: true, once: true},
	{name: "no sync of the journal succeeds", part: "/ledgers/journal/", sync: true},
	{name: "one write to the journal fails", part: "/ledgers/journal/", once: true},
	{name: "no write to the journal succeeds", part: "/ledgers/journal/"},
	{name: "no sync of a ledger file succeeds", part: "/ledgers/ledgers/", sync: true},
	{name: "no write to a ledger file succeeds", part: "/ledgers/ledgers/"},
	{name: "no sync of the metadata succeeds", part: "/etcd/member/wal/", sync: true},
}

// A disk is what a server's calls pass through. The zero value is sound.
type disk struct {
	mu     sync.Mutex
	broken *breakage
	hits   int // of broken
}

// decide is a peer.Interceptor.
func (d *disk) decide(c peer.FileCall) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.broken
	if b == nil || c.Sync != b.sync || !strings.Contains(c.Path, b.part) || b.once && d.hits > 0 {
		return 0
	}
	d.hits++
	return syscall.EIO
}

// breakBy replaces what breaks the disk; nil heals it.
func (d *disk) breakBy(b *breakage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.broken, d.hits = b, 0
}

func (d *disk) wasHit() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hits > 0
}

// breakDisk lets b happen, and says whether the server ended by it, as it must
// unless b is a single failure.
func (p *plan) breakDisk(ctx context.Context, b *breakage) (ended bool, err error) {
	p.disk.breakBy(b)
	defer p.disk.breakBy(nil)
	proc := p.server.Process()
	if err := waitFor(ctx, p.disk.wasHit); err != nil {
		return false, fmt.Errorf("%s: no call was hit: %w\n%s", b.name, err, proc.LogTail(20))
	}
	if b.once {
		return false, nil
	}
	if err := waitFor(ctx, func() bool { return hasEnded(proc) }); err != nil {
		return false, fmt.Errorf("%s: the server is still up: %w\n%s", b.name, err, proc.LogTail(20))
	}
	return true, saysWhy(proc, b.name, "cannot be written any more")
}

func hasEnded(p *peer.Process) bool {
	select {
	case <-p.Exited():
		return true
	default:
		return false
	}
}

// saysWhy checks that an ended server failed with one last line for people.
func saysWhy(p *peer.Process, what string, words ...string) error {
	last := p.LogTail(1)
	ok := p.ExitCode() == 1 && strings.HasPrefix(last, "quire: ")
	for _, w := range words {
		ok = ok && strings.Contains(last, w)
	}
	if !ok {
		return fmt.Errorf("%s: the server ended with status %d and says %q, want 1 and %q", what, p.ExitCode(), last, words)
	}
	return nil
}

// keptBytes is what the server of a full-disk run keeps free
// (disk.min.free.bytes). The file system needs a few times as much.
const keptBytes = 64 << 20

var fullDiskOverrides = []string{
	fmt.Sprintf("disk.min.free.bytes=%d", keptBytes),
	"journal.file.bytes=4194304", "journal.max.bytes=16777216",
}

// fillDisk takes the space away, to the last byte or to half of what the server
// keeps, sees that produce is refused and that reads go on, kills the server in
// some rounds, and gives the space back. The server runs afterwards. It says in
// words what came of it.
func (p *plan) fillDisk(ctx context.Context, round int, partitions []check.Partition) (what string, err error) {
	leave := int64(0)
	if round%2 == 0 {
		leave = keptBytes / 2
	}
	ballast := filepath.Join(p.server.DataDir(), "..", "ballast")
	defer os.Remove(ballast)
	if err := fill(ballast, leave); err != nil {
		return "", err
	}
	proc := p.server.Process()
	var refused error
	if err := waitFor(ctx, func() bool {
		refused = p.refusal(ctx)
		return refused != nil || hasEnded(proc)
	}); err != nil {
		return "", fmt.Errorf("nothing is refused on the full disk: %w", err)
	}
	up, err := p.upOrWhy(proc, refused)
	if err != nil {
		return "", err
	}
	what = fmt.Sprintf("%d MiB left free, produce says %v", leave>>20, refused)
	if !up {
		what += ", the server ended"
	} else if err := p.reads(ctx, partitions); err != nil {
		return "", fmt.Errorf("full disk: %w", err)
	}
	if round%4 >= 2 {
		if err := p.server.Kill(); err != nil {
			return "", err
		}
		err := p.server.Start(ctx)
		switch {
		case err == nil:
			what += ", started again on it"
			err = p.reads(ctx, partitions)
		case hasEnded(p.server.Process()):
			what += ", not started again on it"
			err = saysWhy(p.server.Process(), "start on a full disk", "free some space")
		}
		if err != nil {
			return "", fmt.Errorf("restart on a full disk: %w", err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		return "", err
	}
	if !hasEnded(p.server.Process()) {
		return what, nil
	}
	return what, p.server.Start(ctx)
}

// upOrWhy checks the answer to a produce on a full disk: a retriable error, or
// an end of the server that says why.
func (p *plan) upOrWhy(proc *peer.Process, refused error) (up bool, err error) {
	var code *kerr.Error
	if errors.As(refused, &code) && code.Retriable {
		body, err := p.readyz()
		if err != nil {
			return false, err
		}
		if !strings.Contains(body, "produce is refused") {
			return false, fmt.Errorf("full disk: /readyz says %q", body)
		}
		return true, nil
	}
	if hasEnded(proc) {
		return false, saysWhy(proc, "full disk", "cannot be written any more")
	}
	return false, fmt.Errorf("full disk: produce says %w, want a retriable error", refused)
}

// fill writes a file until the file system has only leave bytes free.
func fill(path string, leave int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 4<<10; {
		var fs syscall.Statfs_t
		if err := syscall.Fstatfs(int(f.Fd()), &fs); err != nil {
			return err
		}
		if leave > 0 && int64(fs.Bavail)*fs.Bsize-leave < int64(size) {
			size /= 2
			continue
		}
		_, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, syscall.ENOSPC):
			size /= 2
		case err != nil:
			return err
		}
	}
	return nil
}

// probeTopic is nobody's but refusal's.
const probeTopic = "faults-probe"

// refusal is what a producer without patience is told, nil if its record is stored.
func (p *plan) refusal(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(p.server.Addr()), kgo.RecordRetries(0), kgo.RequestRetries(0),
		kgo.DefaultProduceTopic(probeTopic), kgo.RetryBackoffFn(func(int) time.Duration { return load.RedialMillisMax / 2 * time.Millisecond }))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, liveTimeout)
	defer cancel()
	return client.ProduceSync(ctx, kgo.StringRecord("probe")).FirstErr()
}

// reads shows that every partition can be read from its start on.
func (p *plan) reads(ctx context.Context, partitions []check.Partition) error {
	read, err := load.ReadAll(ctx, "read on a full disk", p.server.Addr(), partitions, liveTimeout)
	for q, why := range read.Stuck {
		err = errors.Join(err, fmt.Errorf("%s: %s: %s", read.Name, q, why))
	}
	return err
}

func (p *plan) readyz() (string, error) {
	resp, err := http.Get("http://" + p.server.AdminAddr() + "/readyz")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("/readyz: %s: %s", resp.Status, body)
	}
	return string(body), err
}
