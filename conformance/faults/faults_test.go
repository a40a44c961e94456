package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/quirelog/quire/conformance/peer"
)

// The short form of the long run that the command does: enough rounds to see
// recovery, replay and idempotent retries at work on every change.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	cases := []struct {
		name string
		plan plan
		with []string
	}{
		{"kill", plan{rounds: 5}, nil},
		{"terminate", plan{rounds: 2, terminate: true}, nil},
		{"kill with a small journal", plan{rounds: 3}, smallJournalOverrides},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.plan.runShort(t, peer.Options{Dir: t.TempDir(), Overrides: c.with})
		})
	}
}

// runShort runs p with a load for a short test and expects it to find nothing.
func (p plan) runShort(t *testing.T, options peer.Options) {
	t.Helper()
	server, err := peer.NewServer(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	p.server = server
	p.minUp, p.maxUp = 100*time.Millisecond, time.Second
	p.libraries = []string{"franz-go", "librdkafka"}
	p.topics, p.partitions, p.perSecond = 3, 4, 2000
	p.segmentBytes = 1 << 20
	p.seed = uint64(time.Now().UnixNano())
	p.logf = t.Logf
	t.Logf("seed %d", p.seed)
	res, err := p.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(res.summary())
	if err := res.verdict(); err != nil {
		t.Fatal(err)
	}
	if res.Rounds != p.rounds {
		t.Fatalf("%d rounds were run, want %d", res.Rounds, p.rounds)
	}
}

// A disk that fails under load costs at most an end of the server that says why.
func TestDiskErrors(t *testing.T) {
	d := &disk{}
	plan{rounds: len(breakages), disk: d}.runShort(t, peer.Options{Dir: t.TempDir(), Overrides: smallJournalOverrides, Intercept: d.decide})
}

// Bookies and their etcd die and stop below a server that serves on: the first
// kinds of harm of the long run.
func TestBookieFaults(t *testing.T) {
	dir := t.TempDir()
	const rounds = 2
	below, err := newBookies(t.Context(), filepath.Join(dir, "bookkeeper"), 3, "3/3/2", "")
	if errors.Is(err, peer.ErrMissingTool) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	plan{rounds: rounds, bookies: below}.runShort(t, peer.Options{Dir: dir, Overrides: below.overrides()})
}

// ownDisk names the folder on which this test binary, started again in a mount
// namespace of its own, mounts a small file system. It goes with the process.
const ownDisk = "QUIRE_CONFORMANCE_OWN_DISK"

const ownDiskBytes = 5 * keptBytes

// A full disk refuses what is produced, serves what is there, and heals.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(ownDisk); dir != "" {
		// Of a chroot the root is no mount and cannot be made private: then the
		// disk may be seen outside until it is unmounted.
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil && err != syscall.EINVAL {
			t.Fatalf("make the mounts private: %v", err)
		}
		if err := syscall.Mount("disk", dir, "tmpfs", 0, fmt.Sprintf("size=%d", ownDiskBytes)); err != nil {
			t.Fatalf("mount a tmpfs on %s: %v", dir, err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Errorf("unmount %s: %v", dir, err)
			}
		})
		plan{rounds: 4, fullDisk: true}.runShort(t, peer.Options{Dir: dir, Overrides: fullDiskOverrides})
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestFullDisk$", "-test.v")
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
